"""Nitro documents from `/dev/nsm`, the Nitro Secure Module of an AWS enclave.

Protocol (aws-nitro-enclaves-nsm-api): one ioctl, number `_IOWR(0x0A, 0, 32)`, over two iovecs: a CBOR request of up to
4 KiB and room for a CBOR response of up to 12 KiB, whose iovec's length becomes that of the response. The request is
`{"Attestation": {"user_data", "nonce", "public_key"}}`, the response `{"Attestation": {"document"}}` or `{"Error"}`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from attestable_mcp.attest.base import demand_carries, demand_report_data
from attestable_mcp.errors import AttesterAbsent, AttesterError, EvidenceError
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.wire import cbor
from attestable_mcp.wire.cose import read_lenient

DEVICE = Path("/dev/nsm")
IOCTL_NUMBER = 0xC0200A00
_RESPONSE_MOST = 0x3000
_HINT = "this device exists inside a Nitro enclave only: build the image with nitro-cli and run it there"


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """`struct nsm_message`: where the request lies, and where the response may."""

    _fields_ = (("request", _Iovec), ("response", _Iovec))


Ioctl = Callable[[int, int, Message], object]


def _ioctl(descriptor: int, number: int, message: Message) -> object:
    if sys.platform != "linux":
        raise AttesterError(f"{DEVICE}: wanted Linux", hint=_HINT)
    import fcntl

    return fcntl.ioctl(descriptor, number, message)


class NitroAttester:
    """The enclave that this process runs in. Safe to share between threads. `ioctl` is for doubles of the device.

    Raises:
        AttesterError: there is no such device, or it may not be opened.
    """

    tee = Tee.NITRO.value
    simulated = False

    def __init__(self, device: Path = DEVICE, *, ioctl: Ioctl = _ioctl) -> None:
        self._where = str(device)
        self._ioctl = ioctl
        self._lock = threading.Lock()
        os.close(self._open())

    def attest(self, report_data: bytes) -> Evidence:
        """A document whose `user_data` is the 64 bytes. A few milliseconds.

        Raises:
            AttesterError: the device refuses, or answers with something else.
        """
        request: cbor.Value = {
            "Attestation": {"user_data": demand_report_data(report_data), "nonce": None, "public_key": None}
        }
        with self._lock:
            response = self._exchange(cbor.encode(request))
        evidence = Evidence(kind=EvidenceKind.NITRO_DOCUMENT, body=self._document(response))
        demand_carries(evidence, report_data, self._where)
        return evidence

    def endorsements(self) -> Endorsements:
        """None are needed: a document brings its chain."""
        return Endorsements()

    def _open(self) -> int:
        try:
            return os.open(self._where, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError as error:
            raise AttesterAbsent(f"{self._where}: {error.strerror}", hint=_HINT) from error
        except OSError as error:
            raise AttesterError(f"{self._where}: {error.strerror or error}") from error

    def _exchange(self, request: bytes) -> bytes:
        sent = ctypes.create_string_buffer(request, len(request))
        room = ctypes.create_string_buffer(_RESPONSE_MOST)
        message = Message(
            _Iovec(ctypes.cast(sent, ctypes.c_void_p), len(request)),
            _Iovec(ctypes.cast(room, ctypes.c_void_p), _RESPONSE_MOST),
        )
        descriptor = self._open()
        try:
            self._ioctl(descriptor, IOCTL_NUMBER, message)
        except OSError as error:
            raise AttesterError(f"{self._where}: {error.strerror or error}") from error
        finally:
            os.close(descriptor)
        if not 0 < message.response.length <= _RESPONSE_MOST:
            raise AttesterError(f"{self._where}: wanted 1 to {_RESPONSE_MOST} bytes, seen {message.response.length}")
        return room.raw[: message.response.length]

    def _document(self, response: bytes) -> bytes:
        try:
            found = read_lenient(response, "response")
        except EvidenceError as error:
            raise AttesterError(f"{self._where}: wanted a CBOR response, seen {error.message}") from error
        match found:
            case {"Attestation": {"document": bytes() as document}}:
                return document
            case {"Error": str() as reason}:
                raise AttesterError(f"{self._where}: the secure module refuses: {reason:.80}")
        raise AttesterError(f"{self._where}: wanted a document, seen another response")
