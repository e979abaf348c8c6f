"""The policy that `pin` writes accepts exactly the server it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attestable_mcp.appraise.judge import appraise
from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.policy import JUDGED, Policy
from attestable_mcp.appraise.write import policy_toml
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Tee, Verdict, Verified

Make = Callable[..., Verified]
SEEN = {
    "plain": {},
    "old platform": {"tcb_status": "OutOfDate", "advisories": ("INTEL-SA-00001", "INTEL-SA-00002")},
    "simulated": {"simulated": True},
}
TD = {
    "service td": {"values": {"mr_service_td": "cc" * 48, "td_attributes": "0000003000000000"}},
    "sept clear": {"values": {"td_attributes": "00" * 8}},
}


def met(verified: Verified) -> AttestationResult:
    """What `pin` sees: genuine, code not compared, with whatever state the platform is in named as accepted."""
    policy = Policy.genuine_only(accept_statuses=[verified.claims.tcb_status], simulated="accept")
    return replace(appraise(verified, policy), verdict=Verdict.PARTIAL)


CASES = [(tee, name, changed) for tee in JUDGED if tee is not Tee.TOKEN for name, changed in SEEN.items()] + [
    (Tee.TDX, n, c) for n, c in TD.items()
]


@pytest.mark.parametrize(("tee", "name", "changed"), CASES, ids=[f"{tee}-{name}" for tee, name, _ in CASES])
def test_a_pin_accepts_the_server_it_was_made_from(
    verified: Make, tee: Tee, name: str, changed: dict[str, Any]
) -> None:
    server = verified(tee, **changed)
    text = policy_toml(met(server), source="https://example:8443/mcp")
    result = appraise(server, Policy.from_toml(text, "pinned.toml"))
    assert result.verdict is Verdict.VERIFIED, result.error
    assert ("SIMULATED" in text) == server.simulated
    assert f'anchors = ["{KINDS[tee].vendor}"]' in text  # nobody else's word counts
    for line in text.splitlines():
        assert line.startswith(("#", "[")) or " = " in line or not line


@pytest.mark.parametrize(
    ("tee", "changed"),
    [
        (Tee.SGX, {"values": {"mrenclave": "ab" * 32}}),
        (Tee.SGX, {"values": {"isvsvn": 2}}),
        (Tee.SGX, {"values": {"attributes": "2500000000000000e700000000000000"}}),
        (Tee.SGX, {"simulated": True}),
        (Tee.SGX, {"tcb_status": "OutOfDate"}),
        (Tee.SGX, {"advisories": ("INTEL-SA-00003",)}),
        (Tee.SGX, {"tcb_evaluation_data_number": 16}),
        *[
            (Tee.TDX, {"values": {name: "12" * 48}})
            for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_config_id", "mr_owner", "mr_owner_config")
        ],
        (Tee.TDX, {"values": {"xfam": "0700000000000000"}}),
        (Tee.TDX, {"values": {"td_attributes": "0000001000000080"}}),
        (Tee.TDX, {"values": {"mr_service_td": "12" * 48}}),
        (Tee.SGX, {"debug": True}),
        *[
            (tee, {"values": {name: value}})
            for tee in (Tee.SEV_SNP, Tee.AZURE_SEV_SNP)
            for name, value in {
                "measurement": "12" * 48,
                "host_data": "12" * 32,
                "id_key_digest": "12" * 48,
                "guest_svn": 3,
                "vmpl": 1,
                "product": "Milan",
                "signing_key": "VLEK",
                "migrate_ma": 1,
                "alias_check_complete": False,
                "tcb_bl": 9,
                "tcb_snp": 24,
                "tcb_ucode": 83,
            }.items()
        ],
        *[
            (tee, {"values": {f"{name}_sha256": "12" * 32}})
            for tee in (Tee.TPM, Tee.AZURE_SEV_SNP, Tee.AZURE_TDX)
            for name in ("pcr0", "pcr2", "pcr4", "pcr7", "pcr8", "pcr9", "pcr11", "pcr12")
        ],
        (Tee.TPM, {"values": {"secure_boot": False}}),
        (Tee.TPM, {"values": {"secure_boot": None}}),
        (Tee.TPM, {"values": {"event_log_explains": "not sha256 PCR 8"}}),
        (Tee.AZURE_TDX, {"values": {"mr_td": "12" * 48}}),
        (Tee.AZURE_TDX, {"tcb_status": "OutOfDate"}),
        *[(Tee.NITRO, {"values": {name: "12" * 48}}) for name in ("pcr0", "pcr1", "pcr2")],
        (Tee.NITRO, {"debug": True}),
    ],
)
def test_a_pin_refuses_whatever_differs(verified: Make, tee: Tee, changed: dict[str, Any]) -> None:
    policy = Policy.from_toml(policy_toml(met(verified(tee))))
    assert appraise(verified(tee), policy).verdict is Verdict.VERIFIED
    assert appraise(verified(tee, **changed), policy).verdict is Verdict.REFUSED


def test_a_hostile_source_cannot_write_rules(verified: Make) -> None:
    source = 'https://x/\n[policy]\ndebug = "danger-accept"\r#\x00'
    text = policy_toml(met(verified()), source=source, anchors=('./a"b\\c\n.pem',))
    policy = Policy.from_toml(text)
    assert policy.rules.debug == "refuse"
    assert policy.trust.anchors == ('./a"b\\c\n.pem',)


@pytest.mark.parametrize("changed", [{"debug": True}, {"tcb_status": "Revoked"}])
def test_nothing_bad_is_pinned(verified: Make, changed: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        policy_toml(appraise(verified(**changed), Policy.genuine_only()))


def test_a_debuggable_enclave_is_not_pinned_even_where_it_was_admitted(verified: Make) -> None:
    with pytest.raises(ConfigurationError, match="debuggable"):
        policy_toml(met(verified(debug=True)))


def test_a_result_without_the_fields_is_not_pinned(verified: Make) -> None:
    result = met(verified(Tee.TDX, values={"rtmr2": None}))
    with pytest.raises(ConfigurationError, match="rtmr2"):
        policy_toml(result)
