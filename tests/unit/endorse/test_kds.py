"""KdsSource against a double that rations certificates as AMD's service does."""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestable_mcp.endorse.kds import AMD_KDS, KdsSource
from attestable_mcp.endorse.throttle import LONGEST, Throttle
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable
from attestable_mcp.rats import EndorsementQuery, Evidence, EvidenceKind, Tee
from attestable_mcp.simulator import amd
from attestable_mcp.simulator.amd_options import Product
from attestable_mcp.verify import table
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TrustAnchor
from attestable_mcp.verify.memory import Memory

CHIP = bytes(range(1, 65))
TCB = bytes((3, 0, 0, 0, 0, 0, 20, 209))
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ARK-Test")])
KEY = ec.generate_private_key(ec.SECP384R1())


def query(**changed: str) -> EndorsementQuery:
    known = {"signing_key": "VCEK", "product": "Genoa", "chip_id": CHIP.hex(), "reported_tcb": TCB.hex()}
    return EndorsementQuery(tee=Tee.SEV_SNP, parameters=known | changed)


def certificate(serial: int = 7, days: int = 90) -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(NAME, NAME, KEY.public_key(), serial, now - timedelta(1), now + timedelta(days))
    return builder.sign(KEY, hashes.SHA384()).public_bytes(Encoding.DER)


def pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def crl() -> bytes:
    now = datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(NAME, now - timedelta(1), now + timedelta(90))
    return builder.sign(KEY, hashes.SHA384()).public_bytes(Encoding.DER)


VEK, ASK, ARK, CRL = certificate(1), certificate(2), certificate(3), crl()
GENOA = ("Genoa", CHIP.hex(), "blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209")


@pytest.fixture
def stocked(kds: Any) -> Any:
    kds.veks[GENOA] = VEK
    for product in ("Genoa", "Milan", "Turin"):
        kds.files |= {f"/vcek/v1/{product}/cert_chain": pem(ASK) + pem(ARK), f"/vcek/v1/{product}/crl": CRL}
        kds.files |= {f"/vlek/v1/{product}/cert_chain": pem(ASK) + pem(ARK), f"/vlek/v1/{product}/crl": CRL}
    return kds


def test_certificate_chain_and_list_come_from_the_real_addresses(stocked: Any, tmp_path: Path) -> None:
    found = stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    assert found.certificates == (VEK, ASK, ARK)
    assert found.crls == (CRL,)
    assert found.sources == (f"KDS {stocked.url}",)
    assert stocked.asked == [
        f"/vcek/v1/Genoa/{CHIP.hex()}?blSPL=03&teeSPL=00&snpSPL=20&ucodeSPL=209",
        "/vcek/v1/Genoa/cert_chain",
        "/vcek/v1/Genoa/crl",
    ]
    assert stocked.clock.slept == []


@pytest.mark.parametrize("product", list(Product))
def test_what_it_gives_proves_a_report_that_came_with_nothing(kds: Any, tmp_path: Path, product: Product) -> None:
    vendor = amd.well_known(product)
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=vendor.report(bytes(64), bytes(48)))
    kds.other = lambda target: vendor.kds_answer(target, at=datetime.now(UTC))
    anchor = TrustAnchor(name="SIMULATED", spki_sha256=vendor.root_spki_sha256, simulated=True)
    anchors, now = replace(SIMULATED_ROOTS, amd=(anchor,)), datetime.now(UTC)
    found = kds.source(tmp_path).fetch(table.query(evidence), deadline_seconds=60)
    verified = table.verify(evidence, found, anchors=anchors, at=now, memory=Memory())
    assert verified.claims.values["product"] == str(product)
    assert any(item.check == "snp.vek.revocation" for item in verified.findings)


def test_turin_has_a_short_chip_id_and_one_level_more(stocked: Any, tmp_path: Path) -> None:
    stocked.veks["Turin", CHIP[:8].hex(), "fmcSPL=01&blSPL=02&teeSPL=03&snpSPL=04&ucodeSPL=88"] = VEK
    levels = bytes((1, 2, 3, 4, 0, 0, 0, 88)).hex()
    found = stocked.source(tmp_path).fetch(
        query(product="Turin", chip_id=CHIP[:8].hex(), reported_tcb=levels), deadline_seconds=60
    )
    assert found.certificates[0] == VEK


def test_a_report_without_product_is_looked_up_as_genoa_then_as_milan(stocked: Any, tmp_path: Path) -> None:
    stocked.veks = {("Milan", *GENOA[1:]): VEK}
    found = stocked.source(tmp_path).fetch(query(product=""), deadline_seconds=60)
    assert found.certificates[0] == VEK
    assert [status for status in stocked.statuses if status in (404, 429)] == [404]  # the second asking waited
    assert sum(stocked.clock.slept) == pytest.approx(10, abs=0.1)


def test_a_leased_key_is_never_asked_for_but_its_chain_is(stocked: Any, tmp_path: Path) -> None:
    found = stocked.source(tmp_path).fetch(query(signing_key="VLEK", chip_id="00" * 64), deadline_seconds=60)
    assert (found.certificates, found.crls) == ((ASK, ARK), (CRL,))
    assert stocked.asked == ["/vlek/v1/Genoa/cert_chain", "/vlek/v1/Genoa/crl"]


def test_a_second_fetch_asks_nobody(stocked: Any, tmp_path: Path) -> None:
    first = stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    stocked.asked.clear()
    assert stocked.source(tmp_path).fetch(query(), deadline_seconds=0.001) == first
    assert stocked.asked == []


def test_six_chips_in_a_row_are_never_refused_for_haste(stocked: Any, tmp_path: Path) -> None:
    """The fifth verification in ten minutes is where others met 429."""
    source = stocked.source(tmp_path)
    for number in range(6):
        chip = bytes((number + 1, *CHIP[1:])).hex()
        stocked.veks["Genoa", chip, GENOA[2]] = VEK
        source.fetch(query(chip_id=chip), deadline_seconds=60)
    assert 429 not in stocked.statuses
    assert sum(stocked.clock.slept) == pytest.approx(50, abs=0.5)


@pytest.mark.parametrize("named", [True, False])
def test_who_is_told_to_wait_waits_as_long_as_it_was_told(stocked: Any, tmp_path: Path, named: bool) -> None:
    stocked.retry_after = named
    stocked.last = stocked.clock.now() - 3  # somebody else behind the same address was just served
    stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    assert stocked.statuses.count(429) == (1 if named else 2)
    assert sum(stocked.clock.slept) == pytest.approx(8 if named else 15, abs=0.1)


def test_a_wait_past_the_deadline_is_said_at_once(stocked: Any, tmp_path: Path) -> None:
    stocked.last = stocked.clock.now()
    source = stocked.source(tmp_path)
    with pytest.raises(EndorsementUnavailable, match="429: too many requests, asks to wait 11 seconds"):
        source.fetch(query(), deadline_seconds=5)
    with pytest.raises(EndorsementUnavailable, match="the next request may go in 11 seconds"):
        source.fetch(query(), deadline_seconds=5)
    assert len(stocked.asked) == 1  # the second one did not knock
    assert stocked.clock.slept == []


def test_a_passing_fault_is_tried_again_and_a_lasting_one_reported(stocked: Any, tmp_path: Path) -> None:
    stocked.faults = [503, 502]
    stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    assert stocked.clock.slept == [pytest.approx(5), pytest.approx(10)]
    stocked.faults = [503] * 9
    with pytest.raises(EndorsementUnavailable, match="wanted status 200, seen 503"):
        stocked.source(tmp_path / "other").fetch(query(), deadline_seconds=60)


def test_an_unknown_chip_is_told_as_such(stocked: Any, tmp_path: Path) -> None:
    with pytest.raises(EndorsementUnavailable, match="status 404: the service knows no such platform"):
        stocked.source(tmp_path).fetch(query(chip_id="ab" * 64), deadline_seconds=60)


def test_a_missing_list_is_left_to_the_policy(stocked: Any, tmp_path: Path) -> None:
    del stocked.files["/vcek/v1/Genoa/crl"]
    assert stocked.source(tmp_path).fetch(query(), deadline_seconds=60).crls == ()


def test_a_list_of_an_unknown_version_is_none(stocked: Any, tmp_path: Path) -> None:
    stocked.files["/vcek/v1/Genoa/crl"] = CRL.replace(b"\x02\x01\x01", b"\x02\x01\x05", 1)
    assert stocked.source(tmp_path).fetch(query(), deadline_seconds=60).crls == ()


@pytest.mark.parametrize(
    ("what", "body"), [("vek", b"<html>"), ("chain", b""), ("chain", b"-----BEGIN CERTIFICATE-----")]
)
def test_an_answer_that_cannot_be_read_is_none_and_is_not_kept(
    stocked: Any, tmp_path: Path, what: str, body: bytes
) -> None:
    good = (dict(stocked.veks), dict(stocked.files))
    if what == "vek":
        stocked.veks[GENOA] = body
    else:
        stocked.files["/vcek/v1/Genoa/cert_chain"] = body
    with pytest.raises(EndorsementUnavailable):
        stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    stocked.veks, stocked.files = good
    stocked.last = float("-inf")
    stocked.source(tmp_path).fetch(query(), deadline_seconds=60)


@pytest.mark.parametrize(
    "bad",
    [
        {"chip_id": "../../etc"},
        {"chip_id": "AB" * 64},
        {"chip_id": "ab" * 63},
        {"chip_id": "00" * 64},
        {"reported_tcb": "0"},
        {"reported_tcb": "zz" * 8},
        {"product": "Genoa/../x"},
        {"product": "Naples"},
    ],
)
def test_nothing_of_a_hostile_report_enters_an_address(stocked: Any, tmp_path: Path, bad: dict[str, str]) -> None:
    with pytest.raises(EndorsementUnavailable):
        stocked.source(tmp_path).fetch(query(**bad), deadline_seconds=60)
    assert stocked.asked == []


def test_intel_is_not_asked_for_here(stocked: Any, tmp_path: Path) -> None:
    with pytest.raises(EndorsementUnavailable, match="AMD endorses no tdx"):
        stocked.source(tmp_path).fetch(EndorsementQuery(tee=Tee.TDX, parameters={}), deadline_seconds=1)


def test_a_person_is_told_of_a_long_wait(stocked: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stocked.last = stocked.clock.now()
    with caplog.at_level(logging.INFO, "attestable_mcp"):
        stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    assert "waiting 11 seconds for our turn" in caplog.text


def test_threads_are_served_one_by_one(stocked: Any, tmp_path: Path) -> None:
    stocked.hold = lambda: time.sleep(0.02)
    failures: list[BaseException] = []

    def one(number: int) -> None:
        try:
            chip = bytes((number + 1, *CHIP[1:])).hex()
            stocked.veks["Genoa", chip, GENOA[2]] = VEK
            stocked.source(tmp_path).fetch(query(chip_id=chip), deadline_seconds=600)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert stocked.most_running == 1
    assert 429 not in stocked.statuses


def test_another_process_has_its_turn_first(tmp_path: Path) -> None:
    path = tmp_path / "turn.sqlite"
    program = textwrap.dedent("""
        import sys, pathlib
        from attestable_mcp.endorse.throttle import Throttle
        with Throttle("KDS", pathlib.Path(sys.argv[1])).turn("vek", 5) as turn:
            turn.put_off(4)
            print("held", flush=True)
            sys.stdin.read()
    """)
    other = subprocess.Popen([sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(EndorsementUnavailable, match="other processes asked it"):
            with Throttle("KDS", path).turn("vek", 0.1):
                pass
        other.stdin.close()
        assert other.wait(10) == 0
        with Throttle("KDS", path).turn("vek", 1) as turn:
            assert 2 < turn.not_before - time.time() <= 4
            with pytest.raises(EndorsementUnavailable, match="may go in"):
                turn.wait()
    finally:
        other.kill()
        other.wait()


def test_a_turn_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "turn.sqlite"
    with pytest.raises(ZeroDivisionError):
        with Throttle("KDS", path).turn("vek", 1):
            raise ZeroDivisionError
    with Throttle("KDS", path).turn("vek", 0.5):
        pass


def _damaged(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 400)


def _far_ahead(path: Path) -> None:
    with Throttle("KDS", path).turn("vek", 1) as turn:
        turn.put_off(10 * LONGEST)


@pytest.mark.parametrize("spoil", [_damaged, _far_ahead])
def test_a_spoilt_mark_never_blocks(stocked: Any, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "turn.sqlite")
    stocked.source(tmp_path).fetch(query(), deadline_seconds=60)
    assert stocked.clock.slept == []
    with sqlite3.connect(tmp_path / "turn.sqlite") as check:
        assert check.execute("SELECT count(*) FROM turn").fetchone()[0] >= 1


def test_a_disk_that_refuses_costs_the_sharing_and_nothing_else(stocked: Any, tmp_path: Path) -> None:
    """A read-only container has no place for a cache or a queue; within the process the ration holds all the same."""
    (tmp_path / "file").write_text("no folder")
    source = stocked.source(tmp_path / "file")
    assert source.fetch(query(), deadline_seconds=60).certificates[0] == VEK
    stocked.veks["Genoa", "ab" * 64, GENOA[2]] = VEK
    source.fetch(query(chip_id="ab" * 64), deadline_seconds=60)
    assert 429 not in stocked.statuses
    assert sum(stocked.clock.slept) == pytest.approx(10, abs=0.1)


def test_the_default_is_amds_own_service(tmp_path: Path) -> None:
    assert KdsSource(cache_dir=tmp_path).base_url == AMD_KDS
    with pytest.raises(ConfigurationError, match="key service"):
        KdsSource("ftp://kds.example", tmp_path)
