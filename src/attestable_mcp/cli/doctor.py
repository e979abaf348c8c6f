"""`doctor`: what this machine has for attestation, what is missing, and what to do."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestable_mcp.attest import machine
from attestable_mcp.attest.base import Attester
from attestable_mcp.attest.detect import DEVICES, Device, Found, named, survey
from attestable_mcp.attest.tpm import TpmAttester
from attestable_mcp.cli import text_doctor as text
from attestable_mcp.cli.command import Arguments, Parser, existing_path
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.errors import EXIT_UNAVAILABLE, AttesterError
from attestable_mcp.rats import Evidence, EvidenceKind, Tee
from attestable_mcp.wire.hcl import read_evidence as read_azure
from attestable_mcp.wire.tpm import read_evidence as read_tpm

SERVICES = (
    ("Intel PCS", "https://api.trustedservices.intel.com/sgx/certification/v4/rootcacrl"),
    ("AMD KDS", "https://kdsintf.amd.com/vcek/v1/Genoa/cert_chain"),
)
_SECONDS = 10.0
_STYLES = {"ready": "good", "faulty": "bad", "absent": "dim"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One device in words; `data` are further facts."""

    device: Device
    state: str
    message: str
    hint: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The public JSON shape."""
        return {
            "name": self.device.name,
            "about": self.device.about,
            "place": self.device.place,
            "state": self.state,
            "message": self.message,
            "hint": self.hint,
            **self.data,
        }


def configure(parser: Parser) -> None:
    """`doctor [ATTESTER] [--collateral] [--ak FILE]`."""
    parser.add_argument("attester", metavar="ATTESTER", nargs="?", help=text.HELP_ATTESTER)
    parser.add_argument("--collateral", action="store_true", help=text.HELP_COLLATERAL)
    parser.add_argument("--ak", metavar="FILE", type=existing_path, help=text.HELP_AK)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Look, try, and say. 0 if at least one attester is ready, else 3."""
    devices = (named(arguments.attester),) if arguments.attester else DEVICES
    return diagnose(arguments, terminal, devices=devices, root=Path("/"), services=SERVICES)


def diagnose(
    arguments: Arguments,
    terminal: Terminal,
    *,
    devices: tuple[Device, ...],
    root: Path,
    services: tuple[tuple[str, str], ...],
) -> int:
    """`run` for a machine of these devices, with its files under `root`. Raises: AttesterError, ConfigurationError."""
    refuse_overwrite(arguments.ak, force=False)
    found = list(survey(devices))
    pem = _ak_pem(found) if arguments.ak is not None else ""
    here = machine.look(root)
    lines = [examine(item) for item in found]
    ready = [line for line in lines if line.state == "ready"]
    advice = [] if ready else list(machine.advice(here))
    reached = [reach(name, url) for name, url in services] if arguments.collateral else []
    if terminal.json:
        terminal.emit(_json(here, lines, advice, reached))
    else:
        _print(here, lines, advice, reached, terminal)
    if arguments.ak is not None:
        write_file(arguments.ak, pem, force=False)
        terminal.say(text.wrote(arguments.ak))
    return 0 if ready else EXIT_UNAVAILABLE


def examine(found: Found, clock: Callable[[], float] = time.monotonic) -> Line:
    """One device: if it opened, it has to make evidence now. Errors become words."""
    if found.attester is None:
        return _failed(found.device, found.state, found.error or AttesterError(found.state))
    started = clock()
    try:
        evidence = found.attester.attest(hashlib.sha512(b"attestable-mcp/doctor" + os.urandom(32)).digest())
        milliseconds = (clock() - started) * 1000
        logged = _log_data(evidence, found.attester)
    except AttesterError as error:
        return _failed(found.device, "faulty", error)
    data = {"tee": found.attester.tee, "evidence": str(evidence.kind), "milliseconds": round(milliseconds, 1)}
    return Line(
        device=found.device,
        state="ready",
        message=text.evidence(str(evidence.kind), len(evidence.body), milliseconds),
        data=data | _key_data(found.attester) | logged,
    )


def _failed(device: Device, state: str, error: AttesterError) -> Line:
    return Line(device=device, state=state, message=error.message, hint=error.hint)


def _key_data(attester: Attester) -> dict[str, Any]:
    if not isinstance(attester, TpmAttester):
        return {}
    digest = hashlib.sha256(attester.ak).hexdigest()
    return {"ak_sha256": digest, "ak_name": attester.key.name, "pcr_bank": attester.bank}


def _log_data(evidence: Evidence, attester: Attester) -> dict[str, Any]:
    """How many bytes of event log go along, for the kinds whose registers one explains."""
    match evidence.kind:
        case EvidenceKind.TPM_QUOTE:
            return {"event_log_bytes": len(read_tpm(evidence.body).event_log)}
        case EvidenceKind.AZURE_VTPM:
            return {"event_log_bytes": len(read_azure(evidence.body).tpm.event_log)}
        case EvidenceKind.INTEL_QUOTE if attester.tee == Tee.TDX:
            return {"event_log_bytes": sum(len(log.body) for log in attester.endorsements().event_logs)}
    return {}


def reach(name: str, url: str) -> dict[str, Any]:
    """Whether a service answers at all; its answer is thrown away."""
    import httpx2

    try:
        status = httpx2.get(url, timeout=_SECONDS).status_code
    except (httpx2.HTTPError, OSError) as error:
        return {"name": name, "url": url, "reached": False, "message": text.unreached(name, str(error))}
    return {"name": name, "url": url, "reached": status < 500, "message": text.reached(name, status)}


def _ak_pem(found: list[Found]) -> str:
    tpm = next((item.attester for item in found if isinstance(item.attester, TpmAttester)), None)
    if tpm is None:
        raise AttesterError(text.NO_TPM)
    body = base64.encodebytes(tpm.ak).replace(b"\n", b"").decode("ascii")
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    return "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""))


def _json(here: machine.Machine, lines: list[Line], advice: list[str], reached: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "ready": [line.device.name for line in lines if line.state == "ready"],
        "machine": {
            "system": here.system, "kernel": here.kernel, "vendor": here.vendor, "product": here.product,
            "cloud": here.cloud, "cpu_flags": list(here.flags), "modules": list(here.modules),
            "devices": dict(here.devices),
        },
        "attesters": [line.to_json() for line in lines],
        "advice": advice,
        "collateral": reached,
    }  # fmt: skip


def _print(
    here: machine.Machine, lines: list[Line], advice: list[str], reached: list[dict[str, Any]], terminal: Terminal
) -> None:
    terminal.data(printable(text.machine(here.system, here.kernel, here.vendor, here.product)))
    for line in lines:
        terminal.data(
            f"  {terminal.paint(_STYLES[line.state], f'{line.state:<7}')} {line.device.name:<7} {line.device.about}"
        )
        for detail in _details(line):
            terminal.data(f"          {printable(detail)}")
    for answer in reached:
        terminal.data(f"  {printable(answer['message'])}")
    for sentence in _next(lines, advice):
        terminal.data(printable(sentence))


def _details(line: Line) -> Iterator[str]:
    yield line.message
    if line.hint:
        yield f"to do: {line.hint}"
    if "ak_sha256" in line.data:
        yield text.key(line.data["ak_sha256"], line.data["ak_name"])
    if "event_log_bytes" in line.data:
        yield text.event_log(line.data["event_log_bytes"])


def _next(lines: list[Line], advice: list[str]) -> Iterator[str]:
    ready = [line for line in lines if line.state == "ready"]
    if not ready:
        yield text.NONE_READY
        yield from advice
        yield text.SIMULATED
        return
    yield _serve(lines, ready[0])
    if any(line.device.name == "tpm" for line in ready):
        yield text.TPM_TRUST


def _serve(lines: list[Line], best: Line) -> str:
    """How to serve with the first that is ready: `auto` looks neither past a faulty device nor at other places."""
    own = next(device for device in DEVICES if device.name == best.device.name)
    place = "" if best.device.place == own.place else f":{best.device.place}"
    name = ",".join((own.name + place, *(f"{word}={value}" for word, value in best.device.given.items())))
    first = next(line for line in lines if line.state != "absent")
    if first.state == "faulty":
        return text.behind_faulty(name, first.device.name)
    return text.READY_AUTO.format(name) if len(lines) == len(DEVICES) else text.READY_NAMED.format(name)
