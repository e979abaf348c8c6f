"""The orchestration: what is asked for and in which order, and that whatever a peer sends becomes a result."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable
from attestable_mcp.rats import EndorsementQuery, Endorsements, Evidence, Outcome, Tee, Verdict
from attestable_mcp.simulator.intel import Vendor, evidence, well_known
from attestable_mcp.simulator.options import Collateral, Crls, Quote, TcbInfo
from attestable_mcp.verifier import Verifier, anchors_from_file, resolve_anchors, resolve_sources
from attestable_mcp.verify.anchors import INTEL_SGX_ROOT
from attestable_mcp.wire import ratls
from attestable_mcp.wire.stapled import tagged_endorsements

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
MRENCLAVE = bytes(range(32))
TAGGED, ENDORSED = "2.23.133.5.4.9", "2.23.133.5.4.2"


def policy(trust: str = "", rules: str = f'mrenclave = "{MRENCLAVE.hex()}"') -> Policy:
    return Policy.from_toml(f'[trust]\nsimulated = "accept"\n{trust}\n[policy]\n{rules}', "prod.toml")


class Source:
    """A source that answers from a script and counts how often it is asked."""

    def __init__(self, answer: Endorsements | Exception, name: str = "scripted") -> None:
        self.answer, self.name = answer, name
        self.asked: list[EndorsementQuery] = []
        self.deadlines: list[float] = []

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        self.asked.append(query)
        self.deadlines.append(deadline_seconds)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def vendor() -> Vendor:
    return well_known()


def quote(vendor: Vendor, report_data: bytes = bytes(64), options: Quote | None = None) -> Evidence:
    return evidence(vendor.quote_sgx(report_data, MRENCLAVE, options=options or Quote()))


def collateral(vendor: Vendor, options: Collateral | None = None) -> Endorsements:
    return vendor.collateral(at=AT, options=options or Collateral())


def test_stapled_collateral_suffices_and_nobody_is_asked(vendor: Vendor) -> None:
    source = Source(collateral(vendor))
    appraisal = Verifier(policy(), sources=[source]).appraise_evidence(quote(vendor), stapled=collateral(vendor), at=AT)
    assert appraisal.result.verdict is Verdict.VERIFIED, appraisal.result.error
    assert appraisal.verified is not None
    assert appraisal.result.simulated
    assert appraisal.result.evidence_digest == quote(vendor).digest
    assert source.asked == []


def test_sources_are_asked_in_turn_where_pieces_are_missing(vendor: Vendor) -> None:
    dead = Source(EndorsementUnavailable("no line"), "first")
    empty = Source(Endorsements(), "second")
    good, unused = Source(collateral(vendor), "third"), Source(collateral(vendor), "fourth")
    verifier = Verifier(policy(), sources=[dead, empty, good, unused])
    assert verifier.appraise_evidence(quote(vendor), at=AT).result.verdict is Verdict.VERIFIED
    assert [len(source.asked) for source in (dead, empty, good, unused)] == [1, 1, 1, 0]
    assert good.asked[0].tee is Tee.SGX
    assert good.asked[0].parameters["fmspc"] == vendor.platform.fmspc.hex()
    assert good.asked[0].parameters["pck_ca"] == vendor.platform.pck_ca


def test_what_is_stapled_and_what_is_fetched_add_up(vendor: Vendor) -> None:
    half = collateral(vendor, Collateral(crls=Crls(with_root=False, with_pck=False)))
    rest = collateral(vendor, Collateral(with_tcb_info=False, with_qe_identity=False))
    verifier = Verifier(policy(), sources=[Source(rest)])
    assert verifier.appraise_evidence(quote(vendor), stapled=half, at=AT).result.verdict is Verdict.VERIFIED


def test_nothing_stapled_and_no_source_is_unavailable(vendor: Vendor) -> None:
    result = Verifier(policy(), sources=[]).appraise_evidence(quote(vendor), at=AT).result
    assert result.verdict is Verdict.UNAVAILABLE
    assert result.exit_code == 3
    assert result.error is not None
    assert result.error.hint


def test_the_reasons_of_all_sources_are_told(vendor: Vendor) -> None:
    sources = [Source(EndorsementUnavailable("no line"), "first"), Source(EndorsementUnavailable("no luck"), "second")]
    error = Verifier(policy(), sources=sources).appraise_evidence(quote(vendor), at=AT).result.error
    assert error is not None
    assert "first: no line" in error.message
    assert "second: no luck" in error.message


def test_one_deadline_covers_all_sources(vendor: Vendor) -> None:
    ticks = iter([0.0, 1.0, 9.0, 11.0])
    sources = [Source(EndorsementUnavailable("slow")) for _ in range(3)]
    result = (
        Verifier(policy(), sources=sources, clock=lambda: next(ticks)).appraise_evidence(quote(vendor), at=AT).result
    )
    assert result.verdict is Verdict.UNAVAILABLE
    assert [source.deadlines for source in sources] == [[9.0], [1.0], []]


def test_a_policy_without_stapled_does_not_look_at_it(vendor: Vendor) -> None:
    source = Source(EndorsementUnavailable("no line"))
    verifier = Verifier(policy('endorsements = ["pcs"]'), sources=[source])
    result = verifier.appraise_evidence(quote(vendor), stapled=collateral(vendor), at=AT).result
    assert result.verdict is Verdict.UNAVAILABLE
    assert len(source.asked) == 1


def test_a_failed_proof_asks_nobody_and_keeps_its_findings(vendor: Vendor) -> None:
    source = Source(collateral(vendor))
    forged = quote(vendor, options=Quote(bad_isv_signature=True))
    appraisal = Verifier(policy(), sources=[source]).appraise_evidence(forged, stapled=collateral(vendor), at=AT)
    assert appraisal.verified is None
    assert appraisal.result.verdict is Verdict.REFUSED
    assert appraisal.result.error is not None
    assert appraisal.result.error.code == "signature_invalid"
    assert appraisal.result.findings[-1].outcome is Outcome.FAIL
    assert appraisal.result.claims == {}
    assert source.asked == []


def test_an_unknown_vendor_is_refused(vendor: Vendor) -> None:
    stranger = Vendor(seed=b"somebody else")
    result = Verifier(policy(), sources=[]).appraise_evidence(
        evidence(stranger.quote_sgx(bytes(64), MRENCLAVE)), stapled=stranger.collateral(at=AT), at=AT
    ).result  # fmt: skip
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.code in ("untrusted_root", "simulated_evidence")  # its root says that it is simulated


def test_a_replaced_anchor_is_told(vendor: Vendor, tmp_path: Path) -> None:
    stranger = Vendor(seed=b"somebody else")
    (tmp_path / "own.pem").write_text(stranger.root_pem)
    text = f'[trust]\nanchors = ["./own.pem"]\nsimulated = "accept"\n[policy]\nmrenclave = "{MRENCLAVE.hex()}"'
    verifier = Verifier(Policy.from_toml(text, base=tmp_path), sources=[])
    appraisal = verifier.appraise_evidence(
        evidence(stranger.quote_sgx(bytes(64), MRENCLAVE)), stapled=stranger.collateral(at=AT), at=AT
    )
    assert appraisal.result.verdict is Verdict.VERIFIED, appraisal.result.error
    assert any("replaced" in sentence for sentence in appraisal.result.not_proven)
    assert "own.pem" in appraisal.result.trust_anchor
    assert INTEL_SGX_ROOT not in verifier.anchors.intel  # an anchor replaces: the vendor's is not trusted beside it


def test_naming_its_file_does_not_launder_the_simulated_root(vendor: Vendor, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_text(vendor.root_pem)
    (anchor,) = anchors_from_file(tmp_path / "root.pem")
    assert anchor.simulated
    (tmp_path / "p.toml").write_text(f'[trust]\nanchors = ["./root.pem"]\n[policy]\nmrenclave = "{MRENCLAVE.hex()}"')
    result = Verifier(Policy.load(tmp_path / "p.toml"), sources=[]).appraise_evidence(
        quote(vendor), stapled=collateral(vendor), at=AT
    ).result  # fmt: skip
    assert result.error is not None
    assert result.error.code == "simulated_evidence"
    assert result.simulated


@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_anchors_that_cannot_be_read_are_our_own_fault(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "own.pem").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"own\.pem"):
        anchors_from_file(tmp_path / "own.pem")


def test_a_policy_names_its_sources_in_order(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "root.der").write_bytes(well_known().root_der)
    names = '["stapled", "./bundle", "https://pccs.example:8081", "pcs"]'
    text = f'[trust]\nendorsements = {names}\n[policy]\nmrenclave = "{"aa" * 32}"'
    sources = resolve_sources(Policy.from_toml(text, base=tmp_path).trust)
    assert len(sources) == 3
    assert "bundle" in sources[0].name
    assert [source.name for source in sources[1:]] == [
        "PCS https://pccs.example:8081", "PCS https://api.trustedservices.intel.com",
    ]  # fmt: skip


def test_the_simulated_root_is_known_so_that_it_is_refused_by_name() -> None:
    anchors = resolve_anchors(Policy.genuine_only().trust).intel
    assert [anchor.simulated for anchor in anchors] == [False, True]


# --- certificates -----------------------------------------------------------------------------------------------------


def certificate(
    vendor: Vendor, *, report_data: Callable[[bytes], bytes] | None = None, stapled: Endorsements | None = None,
    not_before: datetime = AT - timedelta(hours=1), not_after: datetime = AT + timedelta(hours=1),
    claimed: bytes | None = None, attested: bool = True,
) -> bytes:  # fmt: skip
    """A self-signed RA-TLS certificate; each argument is one way for it to be wrong."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    claims = ratls.pubkey_claims(claimed or spki)
    data = (report_data or (lambda claims: hashlib.sha256(claims).digest() + bytes(32)))(claims)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    builder = x509.CertificateBuilder(
        issuer_name=name, subject_name=name, public_key=key.public_key(), serial_number=7,
        not_valid_before=not_before.replace(tzinfo=None), not_valid_after=not_after.replace(tzinfo=None),
    )  # fmt: skip
    if attested:
        tagged = ratls.tagged_evidence(vendor.quote_sgx(data, MRENCLAVE), claims)
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(TAGGED), tagged), critical=False
        )
    if stapled is not None:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(ENDORSED), tagged_endorsements(stapled))
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_certificate_with_everything_stapled_is_verified(vendor: Vendor) -> None:
    der = certificate(vendor, stapled=collateral(vendor))
    appraisal = Verifier(policy(), sources=[]).appraise_certificate(der, AT)
    assert appraisal.result.verdict is Verdict.VERIFIED, appraisal.result.error
    assert appraisal.result.simulated


def test_certificate_freshness_says_what_it_leaves_open(vendor: Vendor) -> None:
    der = certificate(vendor, stapled=collateral(vendor))
    result = Verifier(policy('freshness = "certificate"'), sources=[]).appraise_certificate(der, AT).result
    assert result.verdict is Verdict.VERIFIED
    assert any(sentence.startswith("this connection") for sentence in result.not_proven)


@pytest.mark.parametrize(
    ("trust", "not_before", "not_after"),
    [
        ("", AT - timedelta(hours=2), AT - timedelta(seconds=1)),
        ("", AT + timedelta(seconds=1), AT + timedelta(hours=2)),
        ('freshness = "certificate"', AT - timedelta(hours=25), AT + timedelta(hours=2)),
        ('max_certificate_age = "10m"', AT - timedelta(minutes=11), AT + timedelta(hours=2)),
    ],
)
def test_a_stale_certificate_is_refused_before_anything_is_fetched(
    vendor: Vendor, trust: str, not_before: datetime, not_after: datetime
) -> None:
    source = Source(collateral(vendor))
    der = certificate(vendor, not_before=not_before, not_after=not_after)
    result = Verifier(policy(trust), sources=[source]).appraise_certificate(der, AT).result
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.code == "stale_evidence"
    assert source.asked == []


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda vendor: certificate(vendor, report_data=lambda claims: bytes(64)), "channel_binding_mismatch"),
        (
            lambda vendor: certificate(vendor, report_data=lambda c: hashlib.sha256(c).digest() + bytes(31) + b"\1"),
            "channel_binding_mismatch",
        ),
        (lambda vendor: certificate(vendor, claimed=b"another key"), "channel_binding_mismatch"),
        (lambda vendor: b"", "malformed_evidence"),
        (lambda vendor: certificate(vendor)[:-1], "malformed_evidence"),
        (lambda vendor: b"\x30" * 500, "malformed_evidence"),
    ],
)
def test_a_bad_certificate_is_a_refusal_and_fetches_nothing(
    vendor: Vendor, make: Callable[[Vendor], bytes], code: str
) -> None:
    source = Source(collateral(vendor))
    appraisal = Verifier(policy(), sources=[source]).appraise_certificate(make(vendor), AT)
    assert appraisal.result.verdict is Verdict.REFUSED
    assert appraisal.verified is None
    assert source.asked == []
    if code != "malformed_evidence":  # readers have codes of their own for each way to be malformed
        assert appraisal.result.error is not None
        assert appraisal.result.error.code == code


def test_an_ordinary_certificate_is_unavailable_and_fetches_nothing(vendor: Vendor) -> None:
    source = Source(collateral(vendor))
    result = Verifier(policy(), sources=[source]).appraise_certificate(certificate(vendor, attested=False), AT).result
    assert result.verdict is Verdict.UNAVAILABLE
    assert result.error is not None
    assert result.error.code == "attestation_unavailable"
    assert source.asked == []


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_told_by_its_content_and_proves_no_connection(vendor: Vendor) -> None:
    verifier = Verifier(policy(), sources=[Source(collateral(vendor))])
    for data in (quote(vendor).body, quote(vendor).body.hex().encode(), certificate(vendor)):
        result = verifier.appraise_source(data, AT).result
        assert result.verdict is Verdict.VERIFIED, result.error
        assert any("connection" in sentence for sentence in result.not_proven)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 5000, b"\x03\x00" + b"\xff" * 1000])
def test_a_file_of_something_else_is_a_refusal(data: bytes) -> None:
    result = Verifier(policy(), sources=[]).appraise_source(data, AT).result
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.message


def test_a_truncated_quote_is_a_refusal_at_every_length(vendor: Vendor) -> None:
    body = quote(vendor).body
    verifier = Verifier(policy(), sources=[])
    for length in range(0, len(body) - 1, 97):
        result = verifier.appraise_source(body[:length], AT).result
        assert result.verdict is Verdict.REFUSED
        assert result.error is not None


# --- older collateral -------------------------------------------------------------------------------------------------


def numbered(vendor: Vendor, number: int) -> Endorsements:
    return collateral(vendor, Collateral(tcb_info=TcbInfo(evaluation_number=number)))


def test_a_refused_peer_moves_no_mark(vendor: Vendor) -> None:
    verifier = Verifier(policy(), sources=[])
    other = evidence(vendor.quote_sgx(bytes(64), bytes(32)))
    assert verifier.appraise_evidence(other, stapled=numbered(vendor, 30), at=AT).result.verdict is Verdict.REFUSED
    assert (
        verifier.appraise_evidence(quote(vendor), stapled=numbered(vendor, 17), at=AT).result.verdict
        is Verdict.VERIFIED
    )


def test_marks_may_be_shared_and_are_kept_apart_by_platform(vendor: Vendor) -> None:
    first = Verifier(policy(), sources=[])
    first.appraise_evidence(quote(vendor), stapled=numbered(vendor, 20), at=AT)
    second = Vendor(platform=replace(vendor.platform, fmspc=bytes.fromhex("515000000001")))
    ok = first.appraise_evidence(
        evidence(second.quote_sgx(bytes(64), MRENCLAVE)), stapled=numbered(second, 17), at=AT
    ).result  # fmt: skip
    assert ok.verdict is Verdict.VERIFIED


def test_a_damaged_piece_of_ones_own_is_named_in_every_result(vendor: Vendor) -> None:
    """Whether the verdict came about without it, or for want of it."""
    whole = vendor.collateral(at=AT)
    left = Endorsements(left_out=("collateral/tcb.json: not JSON",))
    enough = Verifier(policy(), sources=[Source(whole + left)]).appraise_evidence(quote(vendor), at=AT).result
    assert enough.verdict is Verdict.VERIFIED
    (finding,) = [item for item in enough.findings if item.check == "endorsements.left_out"]
    assert (finding.outcome, finding.seen) == (Outcome.SKIP, "collateral/tcb.json: not JSON")
    short = replace(whole, documents=whole.documents[1:]) + left
    missing = Verifier(policy(), sources=[Source(short)]).appraise_evidence(quote(vendor), at=AT).result
    assert missing.verdict is Verdict.UNAVAILABLE
    assert missing.error is not None
    assert "left out as damaged: collateral/tcb.json: not JSON" in missing.error.message
