"""The TPM attester against swtpm, a real TPM 2.0 in software, and against links that misbehave."""

from __future__ import annotations

import hashlib
import os
import random
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from attestable_mcp.attest import tpm_link
from attestable_mcp.attest.detect import choose
from attestable_mcp.attest.tpm import TpmAttester, event_log_of
from attestable_mcp.attest.tpm_commands import (
    RH_ENDORSEMENT,
    RH_OWNER,
    Command,
    Tpm,
    TpmRefused,
    base_code,
    sized,
)
from attestable_mcp.attest.tpm_key import AZURE, GCE_ECC, OWN, KeyPlace, own_template, spki
from attestable_mcp.attest.tpm_link import DeviceLink, Link, SocketLink, open_link
from attestable_mcp.errors import AttesterError, ConfigurationError
from attestable_mcp.rats import Endorsements, EvidenceKind, Tee, Verified
from attestable_mcp.simulator.eventlog import SEPARATOR, Event, write_log
from attestable_mcp.verify import tpm as verify_tpm
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.tpm import read_evidence

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Start = Callable[[], str]


def check(attester: TpmAttester, report_data: bytes, anchor: str, endorsements: Endorsements) -> Verified:
    anchors = TrustAnchors(tpm=(TrustAnchor(name="ours", spki_sha256=anchor),))
    evidence = attester.attest(report_data)
    assert evidence.kind is EvidenceKind.TPM_QUOTE
    return verify_tpm.verify(evidence, endorsements, anchors=anchors, at=NOW, memory=Memory())


def pinned(attester: TpmAttester) -> str:
    return hashlib.sha256(attester.ak).hexdigest()


def define_index(where: str, index: int, content: bytes) -> None:
    """TPM2_NV_DefineSpace by the owner, readable with the index's own empty password, and NV_Write in blocks."""
    attributes = 1 << 2 | 1 << 1 | 1 << 18 | 1 << 17 | 1 << 25
    public = struct.pack(">IHI", index, 0x000B, attributes) + sized(b"") + len(content).to_bytes(2, "big")
    with Tpm(open_link(where)) as tpm:
        define = Command(
            name="NV_DefineSpace", code=0x12A, authorised=(RH_OWNER,), parameters=sized(b"") + sized(public)
        )
        tpm.run(define)
        for offset in range(0, len(content), 512):
            block = sized(content[offset : offset + 512]) + offset.to_bytes(2, "big")
            write = Command(name="NV_Write", code=0x137, authorised=(RH_OWNER,), handles=(index,), parameters=block)
            tpm.run(write)


def persist(where: str, handle: int, template: bytes) -> bytes:
    """CreatePrimary and TPM2_EvictControl by the owner; the key's SPKI."""
    with Tpm(open_link(where)) as tpm:
        loaded = tpm.create_primary(RH_OWNER, template)
        parameters = handle.to_bytes(4, "big")
        evict = Command(
            name="EvictControl", code=0x120, authorised=(RH_OWNER,), handles=(loaded.handle,), parameters=parameters
        )
        tpm.run(evict)
        return spki(loaded.public)


def certificate(public: bytes, authority: ec.EllipticCurvePrivateKey) -> tuple[bytes, bytes]:
    """A CA and its certificate for a key that speaks for itself through SPKI bytes: (leaf, root), DER."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "our TPM CA")])
    leaf = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "AK")])
    built = []
    for subject, key, is_ca in ((leaf, load_der_public_key(public), False), (name, authority.public_key(), True)):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key)  # type: ignore[arg-type]
        builder = builder.serial_number(7).not_valid_before(NOW - timedelta(days=1))
        builder = builder.not_valid_after(NOW + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        built.append(builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.DER))
    return built[0], built[1]


# swtpm


def test_a_quote_of_swtpm_verifies_and_carries_the_hash_of_the_report_data(swtpm: Start) -> None:
    attester = TpmAttester(swtpm(), event_log=None)
    verified = check(attester, b"\x07" * 64, pinned(attester), Endorsements())
    assert verified.claims.report_data == hashlib.sha256(b"\x07" * 64).digest()
    assert verified.claims.tee is Tee.TPM
    assert attester.tee == "tpm"
    assert not attester.simulated
    assert attester.key is OWN
    assert sorted(read_evidence(attester.attest(bytes(64)).body).pcrs["sha256"]) == list(range(16))


def test_an_extended_pcr_shows_in_the_next_quote(swtpm: Start, extend: Callable[[str, int, bytes], None]) -> None:
    where = swtpm()
    attester = TpmAttester(where, event_log=None)
    before = check(attester, bytes(64), pinned(attester), Endorsements()).claims.values["pcr11"]
    extend(where, 11, b"kernel")
    after = check(attester, bytes(64), pinned(attester), Endorsements()).claims.values["pcr11"]
    assert before == "00" * 32
    assert after == hashlib.sha256(bytes(32) + hashlib.sha256(b"kernel").digest()).hexdigest()


def test_the_key_is_the_same_for_every_attester_and_another_on_another_tpm(swtpm: Start) -> None:
    here, there = swtpm(), swtpm()
    assert TpmAttester(here).ak == TpmAttester(here).ak
    assert TpmAttester(here).ak != TpmAttester(there).ak


def test_no_object_is_left_in_the_tpm(swtpm: Start) -> None:
    where = swtpm()
    for _ in range(5):  # a TPM holds three transient objects
        TpmAttester(where, event_log=None).attest(bytes(64))
    with Tpm(open_link(where)) as tpm:
        assert not tpm.has_handle(0x80000000)


def test_threads_share_one_attester(swtpm: Start) -> None:
    attester = TpmAttester(swtpm(), event_log=None)
    digests = [bytes([number]) * 64 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        quotes = list(pool.map(attester.attest, digests))
    seen = [verify_tpm.read_quote(read_evidence(quote.body).quote).extra_data for quote in quotes]
    assert seen == [hashlib.sha256(digest).digest() for digest in digests]


def test_a_certified_key_of_azure_layout_is_found_with_its_certificate(swtpm: Start) -> None:
    where = swtpm()
    public = persist(where, AZURE.handle, own_template())
    authority = ec.generate_private_key(ec.SECP256R1())
    leaf, root = certificate(public, authority)
    define_index(where, AZURE.certificate, leaf.ljust(2048, b"\0"))  # Azure pads to 4096, swtpm holds 2048
    attester = TpmAttester(where, event_log=None)
    assert attester.key is AZURE
    assert attester.ak == public
    assert read_evidence(attester.attest(bytes(64)).body).ak_certificates == (leaf,)
    anchor = hashlib.sha256(
        authority.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ).hexdigest()
    verified = check(attester, bytes(64), anchor, Endorsements(certificates=(root,)))
    assert verified.anchor_name == "ours"


def test_a_certified_template_of_google_layout_is_found(swtpm: Start) -> None:
    where = swtpm()
    define_index(where, GCE_ECC.template, own_template())
    with Tpm(open_link(where)) as tpm:
        public = spki(tpm.create_primary(RH_ENDORSEMENT, own_template()).public)
    leaf, _ = certificate(public, ec.generate_private_key(ec.SECP256R1()))
    define_index(where, GCE_ECC.certificate, leaf)
    attester = TpmAttester(where, event_log=None)
    assert attester.key is GCE_ECC
    assert attester.ak == public
    assert read_evidence(attester.attest(bytes(64)).body).ak_certificates == (leaf,)


def test_an_index_that_holds_no_certificate_is_an_error(swtpm: Start) -> None:
    where = swtpm()
    persist(where, AZURE.handle, own_template())
    define_index(where, AZURE.certificate, b"\xff" * 16)
    with pytest.raises(AttesterError, match="01c101d0 holds no certificate"):
        TpmAttester(where)


def test_a_key_that_may_sign_anything_is_refused(swtpm: Start) -> None:
    """Whoever holds it could sign a TPMS_ATTEST of his own making."""
    where = swtpm()
    free = bytearray(own_template())
    free[4:8] = (int.from_bytes(free[4:8], "big") & ~(1 << 16)).to_bytes(4, "big")
    persist(where, 0x81000009, bytes(free))
    with pytest.raises(AttesterError, match="wanted a restricted signing key"):
        TpmAttester(where, key=KeyPlace(name="mine", handle=0x81000009))


def test_a_key_that_is_not_there_is_named(swtpm: Start) -> None:
    with pytest.raises(TpmRefused, match=r"ReadPublic refused with TPM_RC_HANDLE \(0x18b\)"):
        TpmAttester(swtpm(), key=KeyPlace(name="mine", handle=0x81000009))


def test_a_hierarchy_with_a_password_is_named_with_what_to_do(swtpm: Start) -> None:
    where = swtpm()
    with Tpm(open_link(where)) as tpm:
        secret = sized(b"secret")
        change = Command(
            name="HierarchyChangeAuth", code=0x129, authorised=(RH_ENDORSEMENT,), parameters=secret
        )  # fmt: skip
        tpm.run(change)
    with pytest.raises(TpmRefused, match="CreatePrimary refused") as caught:
        TpmAttester(where)
    assert "name its handle" in caught.value.hint


def test_the_event_log_travels_where_verifiers_would_take_it(
    swtpm: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where, log = swtpm(), tmp_path / "log"
    good = write_log((Event(pcr=0, data=b"firmware"),), "sha256")
    log.write_bytes(good)
    attester = TpmAttester(where, event_log=log)
    assert read_evidence(attester.attest(bytes(64)).body).event_log == good
    lie = Event(pcr=0, data=b"\0\0\0\0", kind=SEPARATOR, digest_of=b"another")
    long = tuple(Event(pcr=0, data=bytes(1000)) for _ in range(100))
    for events, reason in (((lie,), "not the hash of"), ((Event(pcr=24, data=b"x"),), "PCR 24"), (long, "at most")):
        log.write_bytes(write_log(events, "sha256"))
        caplog.clear()
        assert read_evidence(attester.attest(bytes(64)).body).event_log == b""
        assert reason in caplog.text
    log.unlink()
    assert read_evidence(attester.attest(bytes(64)).body).event_log == b""


def test_the_log_is_that_of_the_same_tpm() -> None:
    """A socket's TPM is none of this machine's firmware: its log would be noise beside the quote."""
    assert event_log_of("/dev/tpmrm0") == Path("/sys/kernel/security/tpm0/binary_bios_measurements")
    assert event_log_of("/dev/tpmrm1") == Path("/sys/kernel/security/tpm1/binary_bios_measurements")
    for other in ("/run/swtpm.sock", "127.0.0.1:2321", "/dev/tpm0"):
        assert event_log_of(other) is None


def test_chosen_pcrs_are_quoted_and_the_log_explains_them(
    swtpm: Start, extend: Callable[[str, int, bytes], None], tmp_path: Path
) -> None:
    where, log = swtpm(), tmp_path / "boot.log"
    extend(where, 4, b"loader")
    extend(where, 10, b"IMA")
    log.write_bytes(write_log((Event(pcr=4, data=b"loader"),), "sha256"))
    attester = choose(f"tpm:{where},pcrs=0-9+14,log={log}")
    assert isinstance(attester, TpmAttester)
    verified = check(attester, bytes(64), pinned(attester), Endorsements())
    quoted = sorted(read_evidence(attester.attest(bytes(64)).body).pcrs["sha256"])
    assert quoted == [*range(10), 14]
    assert verified.claims.values["event_log_explains"] == "all"
    assert "pcr10" not in verified.claims.values
    everything = check(choose(f"tpm:{where},log={log}"), bytes(64), pinned(attester), Endorsements())
    assert everything.claims.values["event_log_explains"] == "not sha256 PCR 10"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("pcrs=24", "wanted 0 to 23"),
        ("pcrs=9-0", "wanted 0 to 23"),
        ("pcrs=0,1", "wanted of options pcrs=VALUE, log=VALUE, each once, seen '1'"),
        ("pcrs=x", "wanted 0 to 23"),
        ("pcrs=٣", "wanted 0 to 23"),
        ("pcrs=16+23", "can be reset by anybody"),
        ("pcrs=", "each once, seen 'pcrs='"),
        ("pcrs=0,pcrs=1", "each once, seen 'pcrs=1'"),
        ("bank=sha1", "each once, seen 'bank=sha1'"),
        ("log=/nonexistent/log", "cannot be read"),
    ],
)
def test_options_that_make_no_sense_are_named(options: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        choose(f"tpm:/nonexistent/tpm,{options}")


def test_devices_without_options_take_none() -> None:
    with pytest.raises(ConfigurationError, match="attester sgx: wanted of options none"):
        choose("sgx,pcrs=0")


class Meddler:
    """A link that changes answers on their way: `rules` maps a command code to a function of the whole response."""

    def __init__(self, inner: Link, rules: Mapping[int, Callable[[bytes], bytes]]) -> None:
        self.name = inner.name
        self._inner = inner
        self._rules = rules

    def exchange(self, command: bytes) -> bytes:
        response = self._inner.exchange(command)
        rule = self._rules.get(int.from_bytes(command[6:10], "big"))
        return response if rule is None else rule(response)

    def close(self) -> None:
        self._inner.close()


def meddled(where: str, rules: dict[int, Callable[[bytes], bytes]]) -> TpmAttester:
    return TpmAttester(where, event_log=None, connect=lambda name: Meddler(open_link(name), rules))


QUOTE, PCR_READ, CONTEXT_LOAD, CAPABILITY = 0x158, 0x17E, 0x161, 0x17A


def refusal(rc: int) -> bytes:
    return struct.pack(">HII", 0x8001, 10, rc)


def test_a_busy_tpm_is_asked_again(swtpm: Start) -> None:
    answers = iter([0x922, 0x908, 0x90A, 0x920])
    rules = {QUOTE: lambda response: refusal(rc) if (rc := next(answers, 0)) else response}
    meddled(swtpm(), rules).attest(bytes(64))
    assert next(answers, None) is None


def test_a_tpm_that_stays_busy_is_given_up(swtpm: Start) -> None:
    pauses: list[float] = []
    link = Meddler(open_link(swtpm()), {CAPABILITY: lambda _: refusal(0x922)})
    with Tpm(link, sleep=pauses.append) as tpm, pytest.raises(TpmRefused, match=r"GetCapability .* TPM_RC_RETRY"):
        tpm.banks()
    assert len(pauses) == 6
    assert 0 < sum(pauses) < 2


def test_a_reset_tpm_gets_the_key_made_again(swtpm: Start) -> None:
    rules = {CONTEXT_LOAD: lambda _: refusal(0x1DF)}
    attester = meddled(swtpm(), rules)
    assert attester.attest(bytes(64)).body


@pytest.mark.parametrize(
    ("code", "rule", "message"),
    [
        (QUOTE, lambda r: r[:-1], "wanted a whole response"),
        (QUOTE, lambda r: b"\x80\x01" + r[2:], "wanted response tag 8002"),
        (QUOTE, lambda r: r.replace(b"\xffTCG", b"\xffTCH"), "wanted a quote over the PCRs"),
        (QUOTE, lambda r: r.replace(hashlib.sha256(bytes(64)).digest(), bytes(32)), "wanted the qualifying data"),
        (QUOTE, lambda _: refusal(0x101), r"TPM_RC_FAILURE"),
        (QUOTE, lambda _: b"", "seen 0 bytes"),
        (PCR_READ, lambda r: r[:-1] + bytes([r[-1] ^ 1]), "PCRs changed between reading and quoting, 4 times"),
        (PCR_READ, lambda r: refusal(0)[:2] + (14).to_bytes(4, "big") + r[6:14], "wanted 4 more bytes"),
    ],
    ids=["short", "tag", "magic", "qualifying", "failure", "empty", "pcr-flip", "pcr-short"],
)
def test_wrong_answers_are_attester_errors(
    swtpm: Start, code: int, rule: Callable[[bytes], bytes], message: str
) -> None:
    attester = meddled(swtpm(), {code: rule})
    with pytest.raises(AttesterError, match=message):
        attester.attest(bytes(64))


def test_a_tpm_without_sha2_banks_is_refused_with_what_to_do(swtpm: Start) -> None:
    def sha1_only(response: bytes) -> bytes:
        for bank in (b"\x0b", b"\x0c", b"\x0d"):
            response = response.replace(b"\x00" + bank + b"\x03\xff\xff\xff", b"\x00" + bank + b"\x03\x00\x00\x00")
        return response

    with pytest.raises(AttesterError, match=r"wanted a PCR bank of SHA-256, .* seen sha1") as caught:
        meddled(swtpm(), {CAPABILITY: sha1_only})
    assert "swtpm_setup" in caught.value.hint


class Recorder:
    """A link that keeps every response, or replays them with one damaged."""

    def __init__(self, inner: Link | None, responses: list[bytes], damage: tuple[int, bytes] | None = None) -> None:
        self.name = "recorded"
        self._inner = inner
        self._responses = responses
        self._damage = damage
        self._at = 0

    def exchange(self, command: bytes) -> bytes:
        if self._inner is not None:
            self._responses.append(self._inner.exchange(command))
            return self._responses[-1]
        number, self._at = self._at, self._at + 1
        if number >= len(self._responses):
            raise AttesterError("recorded: nothing more")
        return self._damage[1] if self._damage and self._damage[0] == number else self._responses[number]

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()


def test_no_damaged_response_leads_to_anything_but_an_attester_error(swtpm: Start) -> None:
    where, kept = swtpm(), list[bytes]()
    links = [Recorder(open_link(where), kept)]
    TpmAttester(where, event_log=None, connect=lambda _: links[0])
    luck, refused = random.Random(20), 0
    for _ in range(400):
        number = luck.randrange(len(kept))
        whole = bytearray(kept[number])
        for _ in range(luck.randrange(1, 4)):
            whole[luck.randrange(len(whole))] = luck.randrange(256)
        damaged = bytes(whole[: luck.choice((len(whole), luck.randrange(len(whole) + 1)))])
        damaged = damaged[:2] + len(damaged).to_bytes(4, "big") + damaged[6:] if luck.random() < 0.7 else damaged
        try:
            TpmAttester("x", event_log=None, connect=lambda _: Recorder(None, kept, (number, damaged)))  # noqa: B023
        except AttesterError:
            refused += 1
    assert refused > 200


@contextmanager
def device_file(where: str) -> Iterator[str]:
    """A character device that leads to a TPM, as `/dev/tpmrm0` does: a raw terminal with swtpm at its other end."""
    import tty  # not on Windows

    master, slave = os.openpty()
    tty.setraw(slave)
    link = open_link(where)

    def carry() -> None:
        while command := os.read(master, 4096):
            if command == b"end":
                return
            os.write(master, link.exchange(command))

    thread = threading.Thread(target=carry)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        os.write(slave, b"end")
        thread.join(10)
        link.close()
        os.close(master)
        os.close(slave)


def test_the_device_file_of_the_kernel_takes_one_command_and_gives_one_response(swtpm: Start) -> None:
    with device_file(swtpm()) as path:
        assert isinstance(open_link(path), DeviceLink)
        attester = TpmAttester(path, event_log=None)
        verified = check(attester, b"\x0d" * 64, pinned(attester), Endorsements())
    assert verified.claims.report_data == hashlib.sha256(b"\x0d" * 64).digest()


# links


def test_an_absent_device_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="No such file") as caught:
        TpmAttester(str(tmp_path / "tpmrm0"))
    assert "modprobe" in caught.value.hint


@pytest.mark.parametrize("where", ["", "tpm", "host:", ":2321", "host:0", "host:99999", "host:+1"])
def test_a_place_that_is_none(where: str) -> None:
    with pytest.raises(ConfigurationError, match="wanted a path or HOST:PORT"):
        open_link(where)


def test_an_ordinary_file_is_no_tpm(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match="wanted a device or a socket"):
        open_link(str(tmp_path / "file"))


@contextmanager
def answering(*blocks: bytes) -> Iterator[str]:
    """A TCP server that takes one client, sends the blocks, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                for block in blocks:
                    client.sendall(block)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


def test_a_response_in_pieces_is_put_together() -> None:
    whole = refusal(0x922)
    with answering(whole[:3], whole[3:]) as where:
        link = open_link(where)
        assert link.exchange(b"command") == whole
        link.close()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (b"\x80\x01", "closed in the middle"),
        (b"\x80\x01\xff\xff\xff\xff\0\0\0\0", "wanted a response of 10 to 4096 bytes, seen 4294967295"),
        (b"\x80\x01\0\0\0\x09\0\0\0\0", "seen 9"),
    ],
)
def test_a_socket_that_talks_nonsense(block: bytes, message: str) -> None:
    with answering(block) as where:
        link = open_link(where)
        with pytest.raises(AttesterError, match=message):
            link.exchange(b"command")
        link.close()


def test_a_silent_socket_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpm_link, "TIMEOUT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        link = SocketLink(socket.AF_INET, server.getsockname(), "here")
        with pytest.raises(AttesterError, match="no answer") as caught:
            link.exchange(b"command")
        link.close()
    assert "one client at a time" in caught.value.hint


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(AttesterError) as caught:
        open_link(f"127.0.0.1:{port}")
    assert "swtpm running" in caught.value.hint


@pytest.mark.parametrize(
    ("rc", "base"), [(0x9A2, 0x0A2), (0x1DF, 0x09F), (0x18B, 0x08B), (0x922, 0x922), (0x101, 0x101)]
)
def test_response_codes_lose_what_they_are_about(rc: int, base: int) -> None:
    assert base_code(rc) == base
