"""The Nitro attester against a double of `/dev/nsm`: an ioctl over two iovecs, CBOR both ways."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import cbor2
import pytest

from attestable_mcp.attest.nitro import IOCTL_NUMBER, Message, NitroAttester
from attestable_mcp.errors import AttesterError
from attestable_mcp.rats import Endorsements, EvidenceKind
from attestable_mcp.simulator.aws import Document, well_known
from attestable_mcp.wire.nitro import read_document

AT = datetime(2026, 6, 1, tzinfo=UTC)
AWS = well_known()


class SecureModule:
    """Reads the request out of the caller's memory and writes the response there, as the driver does."""

    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.requests: list[bytes] = []
        self.answer = answer or self._document

    def __call__(self, descriptor: int, number: int, message: Message) -> int:
        os.fstat(descriptor)
        assert number == 3 << 30 | ctypes.sizeof(Message) << 16 | 0x0A << 8 == IOCTL_NUMBER
        request = ctypes.string_at(message.request.base, message.request.length)
        self.requests.append(request)
        response = self.answer(request)
        room = message.response.length
        ctypes.memmove(message.response.base, response, min(len(response), room))
        message.response.length = len(response)
        return 0

    @staticmethod
    def _document(request: bytes) -> bytes:
        asked = cbor2.loads(request)["Attestation"]
        return cbor2.dumps({"Attestation": {"document": AWS.document(asked["user_data"], at=AT)}})


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path / "nsm"
    path.touch()
    return path


def test_documents_carry_the_data(device: Path) -> None:
    module = SecureModule()
    attester = NitroAttester(device, ioctl=module)
    evidence = attester.attest(b"\x09" * 64)
    assert evidence.kind is EvidenceKind.NITRO_DOCUMENT
    assert read_document(evidence.body).user_data == b"\x09" * 64
    assert cbor2.loads(module.requests[0]) == {
        "Attestation": {"user_data": b"\x09" * 64, "nonce": None, "public_key": None}
    }
    assert attester.endorsements() == Endorsements()
    assert (attester.tee, attester.simulated) == ("nitro", False)


def test_a_document_of_indefinite_length_is_taken(device: Path) -> None:
    def answer(request: bytes) -> bytes:
        data = cbor2.loads(request)["Attestation"]["user_data"]
        return cbor2.dumps(
            {"Attestation": {"document": AWS.document(data, at=AT, options=Document(indefinite=True, pcr_count=17))}}
        )

    assert NitroAttester(device, ioctl=SecureModule(answer)).attest(bytes(64)).body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda _: b"", "wanted 1 to 12288 bytes, seen 0"),
        (lambda _: bytes(20000), "seen 20000"),
        (lambda _: b"\xff", "wanted a CBOR response"),
        (lambda _: cbor2.dumps({"Error": "InputTooLarge"}), "refuses: InputTooLarge"),
        (lambda _: cbor2.dumps({"Attestation": {}}), "wanted a document"),
        (lambda _: cbor2.dumps(["Attestation"]), "wanted a document"),
        (lambda _: cbor2.dumps({"Attestation": {"document": b"none"}}), "of kind nitro-document"),
        (
            lambda _: cbor2.dumps({"Attestation": {"document": AWS.document(b"other", at=AT)}}),
            "the report data just given",
        ),
    ],
)
def test_wrong_answers_are_faults(device: Path, answer: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(AttesterError, match=message):
        NitroAttester(device, ioctl=SecureModule(answer)).attest(bytes(64))


def test_a_driver_fault_is_named(device: Path) -> None:
    def broken(descriptor: int, number: int, message: Message) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(AttesterError, match="nsm: Input/output error"):
        NitroAttester(device, ioctl=broken).attest(bytes(64))


def test_outside_an_enclave_there_is_no_device(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="No such file") as caught:
        NitroAttester(tmp_path / "nsm")
    assert "Nitro enclave" in caught.value.hint


def test_another_device_answers_no_such_ioctl(device: Path) -> None:
    """The real ioctl of this system, on a file that is no secure module."""
    with pytest.raises(AttesterError, match=r"nsm: |wanted Linux"):
        NitroAttester(device).attest(bytes(64))
