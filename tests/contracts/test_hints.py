"""No refusal that a person can meet is without a hint: what to do next."""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestable_mcp import errors
from attestable_mcp.appraise.deployment import HINTS as DEPLOYMENT_HINTS
from attestable_mcp.appraise.judge import HINTS as POLICY_HINTS
from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.hints import HINTS, hint_for
from attestable_mcp.rats import ErrorReport, Tee
from attestable_mcp.simulator import options as knobs
from attestable_mcp.simulator.intel import Vendor, evidence
from attestable_mcp.verifier import Verifier

KNOWN = {**HINTS, **POLICY_HINTS, **DEPLOYMENT_HINTS}
for _kind in KINDS.values():
    KNOWN.update(_kind.hints)


@functools.cache
def raised(source: Path) -> tuple[tuple[str, bool, str], ...]:
    """Every code in the source; see `_raised`."""
    return tuple(_raised(source))


def _raised(source: Path) -> Iterator[tuple[str, bool, str]]:
    """Every code that is written down where an error or a failed finding is made: code, has it a hint there, where."""
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                words = {keyword.arg: keyword.value for keyword in node.keywords}
                code = words.get("code")
                if isinstance(code, ast.Constant) and isinstance(code.value, str) and code.value:
                    yield code.value, "hint" in words, f"{path.name}:{node.lineno}"


def documented(repository: Path) -> set[str]:
    """The codes of the first column of docs/errors.md and of the table of refusals in docs/policy.md."""
    tables = (repository / "docs" / "errors.md").read_text(encoding="utf-8")
    policy = (repository / "docs" / "policy.md").read_text(encoding="utf-8")
    tables += policy[policy.index("## Refusals") :].split("\n## ")[1].partition("\n## ")[0]
    rows = [line.split("|")[1:3] for line in tables.splitlines() if line.startswith("| `")]
    words = [cell for first, second in rows for cell in ([second] if re.match(r" `[A-Z]", first) else [first])]
    return {code for cell in words for code in re.findall(r"`([a-z][a-z0-9_]+)`", cell)}


def test_every_code_that_is_raised_has_a_hint_there_or_in_the_table(repository: Path) -> None:
    found = list(raised(repository / "src"))
    assert len({code for code, _, _ in found}) > 90, "the pattern of this test no longer fits the source"
    missing = sorted({f"{code} ({where})" for code, own, where in found if not own and code not in KNOWN})
    assert not missing, missing


def test_every_documented_code_has_a_hint(repository: Path) -> None:
    own = {code for code, has, _ in raised(repository / "src") if has}
    codes = documented(repository)
    assert len(codes) > 130
    assert not sorted(codes - set(KNOWN) - own)


def test_every_class_without_words_of_its_own_has_a_hint() -> None:
    kinds = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.AttestationError)
    ]
    assert len(kinds) >= 20
    for kind in kinds:
        assert kind("something").hint, kind
        assert kind("something", hint="mine").hint == "mine"
    assert ErrorReport(code="crl_invalid", message="x").hint == hint_for("crl_invalid") != ""


def test_a_hint_is_a_sentence_and_never_a_way_around_a_check() -> None:
    for code, hint in KNOWN.items():
        assert re.fullmatch(r"[A-Z`\"].*[.\w)`\"]", hint, re.DOTALL), (code, hint)
        assert 15 <= len(hint) <= 300, code
        assert not re.search(r"\b(disable|switch off|turn off|skip|ignore)\b|--danger|--insecure", hint), code


FAULTS = {
    "old collateral": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(span=knobs.EXPIRED))},
    "another signer": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(signer=knobs.Signer.STRANGER))},
    "altered TCB info": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(tampered=True))},
    "another platform": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(fmspc=bytes(6)))},
    "below all levels": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(below_all_levels=True))},
    "revoked level": {"collateral": knobs.Collateral(tcb_info=knobs.TcbInfo(status=knobs.TcbStatus.REVOKED))},
    "the other kind": {"collateral": knobs.Collateral(), "tee": Tee.TDX},
    "PCK by a stranger": {"certificates": knobs.Certificates(pck_signed_by_stranger=True)},
    "no SGX extension": {"certificates": knobs.Certificates(pck_sgx_extension=False)},
    "no CA": {"certificates": knobs.Certificates(pck_ca_is_ca=False)},
    "critical extension": {"certificates": knobs.Certificates(pck_unknown_critical_extension=True)},
    "an unknown root": {"seed": b"somebody else's root"},
    "a cut quote": {"cut": 100},
    "a flipped signature": {"flip": 450},
    "nothing stapled": {"stapled": False},
}


@pytest.mark.parametrize("fault", FAULTS, ids=FAULTS)
def test_refusals_that_are_really_made_have_a_hint(fault: str) -> None:
    knob = dict(FAULTS[fault])
    at = datetime(2026, 6, 1, tzinfo=UTC)
    options = {name: knob[name] for name in ("seed", "certificates") if name in knob}
    vendor = Vendor(**options)  # type: ignore[arg-type]
    quote = bytearray(vendor.quote_sgx(bytes(64), bytes(32)))
    if "flip" in knob:
        quote[int(knob["flip"])] ^= 1  # type: ignore[call-overload]
    if "cut" in knob:
        del quote[int(knob["cut"]) :]  # type: ignore[call-overload]
    bag = vendor.collateral(at=at, tee=knob.get("tee", Tee.SGX), options=knob.get("collateral", knobs.Collateral()))  # type: ignore[arg-type]
    verifier = Verifier(Policy.genuine_only(simulated=True), sources=())
    result = verifier.appraise_evidence(
        evidence(bytes(quote)), stapled=bag if knob.get("stapled", True) else None, at=at
    ).result
    assert result.error is not None, "this was admitted"
    assert result.error.hint, result.error
