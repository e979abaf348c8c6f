"""Writes the policy that accepts exactly the server that a result speaks of, for `pin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attestable_mcp.appraise.policy import DEFAULT_STATUSES, RTMRS, Policy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Tee

_REGISTERS = {
    "mr_td": "the TD as it was built: its firmware",
    "rtmr0": "what the firmware measured of the virtual machine: its tables, memory layout, devices",
    "rtmr1": "what was booted: the kernel",
    "rtmr2": "the kernel's command line and initial file system",
    "rtmr3": "what the system itself measured since: applications, containers",
}
_EXACT = {
    "mr_config_id": "configuration that the host gave the TD at its start",
    "mr_owner": "owner that the host named at the TD's start",
    "mr_owner_config": "owner's configuration that the host named at the TD's start",
    "td_attributes": "the TD's attributes, every bit: debug, SEPT_VE_DISABLE, migration and the rest",
    "xfam": "processor features that the TD may use, every bit",
}


def policy_toml(
    result: AttestationResult, *, source: str = "", anchors: Sequence[str] = ("intel",),
    endorsements: Sequence[str] = ("stapled", "pcs"),
) -> str:  # fmt: skip
    """Give the text of a policy that accepts exactly the code, configuration and platform status in `result`.

    `result` is that of a server verified as genuine; `source` says in words where it was met.

    Raises:
        ConfigurationError: the result proves nothing, or shows a debuggable enclave, which no pin accepts.
    """
    if not result.admitted:
        raise ConfigurationError("nothing was proven of this server, so there is nothing to pin")
    if result.claims.get("debug") is not False:
        raise ConfigurationError("this server's enclave is debuggable: its measurement keeps nobody out")
    lines = [*_head(result, source), *_trust(result, anchors, endorsements), "", *_rules(result)]
    text = "\n".join(lines) + "\n"
    Policy.from_toml(text, "pinned policy")  # what is written can be read
    return text


def _comment(text: str) -> str:
    """One printable line: what a peer or a shell gave must not end the comment."""
    return "# " + "".join(letter if letter.isprintable() else " " for letter in text)


def _quoted(value: str) -> str:
    """A TOML basic string."""
    special = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(special.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value) + '"'


def _list(values: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(value) for value in values) + "]"


def _claim(result: AttestationResult, name: str) -> str:
    value = result.claims.get(name)
    if not isinstance(value, str):
        raise ConfigurationError(f"the result holds no {name}, so it cannot be pinned")
    return value


def _head(result: AttestationResult, source: str) -> Iterator[str]:
    met = f" from {source}" if source else ""
    yield _comment(f"Accepts exactly the server that was met{met} at {result.at.strftime('%Y-%m-%dT%H:%M:%SZ')}.")
    yield "# It was proven to be genuine. Whether its code is good, its makers and reviewers must say."
    if result.simulated:
        yield "# SIMULATED EVIDENCE: this server proves nothing about hardware. For tests and demonstrations only."
    yield ""


def _trust(result: AttestationResult, anchors: Sequence[str], endorsements: Sequence[str]) -> Iterator[str]:
    yield "[trust]"
    yield '# Whose signature counts: "intel" is Intel\'s root; a path names a PEM certificate.'
    yield f"anchors = {_list(anchors)}"
    yield "# Where collateral (certificates, revocation lists, platform status) may come from, in this order."
    yield f"endorsements = {_list(endorsements)}"
    yield "# Each connection is proven anew."
    yield 'freshness = "connection"'
    if result.simulated:
        yield "# The server runs on the simulated attester: take this line out before anything real depends on it."
        yield 'simulated = "accept"'


def _rules(result: AttestationResult) -> Iterator[str]:
    yield "[policy]"
    yield f"tee = {_quoted(result.tee)}"
    yield from _tdx(result) if result.tee == Tee.TDX else _sgx(result)
    yield from _platform(result)


def _sgx(result: AttestationResult) -> Iterator[str]:
    yield "# The enclave's measurement: every byte of its code and first data. Any other build measures differently."
    yield f"mrenclave = {_quoted(_claim(result, 'mrenclave'))}"
    signer, product, version = (result.claims.get(name) for name in ("mrsigner", "isvprodid", "isvsvn"))
    if isinstance(signer, str) and isinstance(product, int) and isinstance(version, int):
        yield "# Who signed it, as which product and lowest security version."
        yield f"mrsigner = {_quoted(signer)}"
        yield f"isvprodid = {product}"
        yield f"min_isvsvn = {version}"
    yield "# The enclave's flags (first 8 bytes): initialised, 64 bit, no debug. The rest depends on the processor."
    yield f"attributes = {_quoted(_claim(result, 'attributes')[:16] + '0' * 16)}"
    yield f"attributes_mask = {_quoted('f' * 16 + '0' * 16)}"


def _tdx(result: AttestationResult) -> Iterator[str]:
    for name in ("mr_td", *RTMRS):
        yield f"# {name}: {_REGISTERS[name]}."
        yield f"{name} = {_quoted(_claim(result, name))}"
    for name, meaning in _EXACT.items():
        yield f"# {name}: {meaning}."
        yield f"{name} = {_quoted(_claim(result, name))}"
    yield from _td_state(result)
    if isinstance(module := result.claims.get("mr_seam"), str):
        yield "# mr_seam: Intel's TDX module. Its status counts below already; to hold to this build, uncomment."
        yield f"# mr_seam = [{_quoted(module)}]"


def _td_state(result: AttestationResult) -> Iterator[str]:
    attributes = int.from_bytes(bytes.fromhex(_claim(result, "td_attributes")), "little")
    if not attributes & 1 << 28:
        yield "# SEPT_VE_DISABLE is clear on this TD: its kernel can be fed pages by the host."
        yield 'sept_ve_disable = "accept-clear"'
    if attributes & 1 << 29:
        yield "# This TD may be moved to another platform."
        yield 'migratable = "accept"'
    service = result.claims.get("mr_service_td")
    if isinstance(service, str) and service.strip("0"):
        yield "# A service TD of this measurement can act on this TD."
        yield f"mr_service_td = [{_quoted(service)}]"


def _platform(result: AttestationResult) -> Iterator[str]:
    statuses = tuple(dict.fromkeys((*DEFAULT_STATUSES, result.tcb_status)))
    yield "# What Intel may say of the platform's patches; anything else refuses."
    yield f"tcb_statuses = {_list(statuses)}"
    yield "# Security advisories that apply to the platform today and are accepted; a further one refuses."
    yield f"advisories = {_list(result.advisories) if result.advisories else _quoted('none')}"
    number = result.claims.get("tcb_evaluation_data_number")
    if isinstance(number, int) and number > 0:
        yield "# Collateral of an evaluation older than this refuses: nobody can hide today's status behind old papers."
        yield f"min_tcb_evaluation_data_number = {number}"
