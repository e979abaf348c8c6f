"""The dozen TPM 2.0 commands that an Attester needs, written and read by ourselves.

Each function is one command of TCG TPM 2.0 Library Part 3, in the encoding of Part 1 §16 (headers, handles, sessions)
and Part 2 (structures). All integers are big-endian. Authorisation is the empty password: what the commands give out
is either public (PCRs, certificates) or signed by the TPM (quotes), so there is no secret to keep on the way to it.
A response is read strictly: every byte has to be accounted for.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from attestable_mcp.attest.tpm_link import HEADER, Link
from attestable_mcp.errors import AttesterError

_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_PASSWORD = struct.pack(">IHBH", 0x40000009, 0, 0, 0)
"""TPMS_AUTH_COMMAND with TPM_RS_PW, no nonce, no attributes, no password (Part 1 §19.4)."""
RH_OWNER, RH_ENDORSEMENT = 0x40000001, 0x4000000B
ALG_NULL = 0x0010
BANKS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
_NAMES = {number: name for name, number in BANKS.items()}
_CAP_HANDLES, _CAP_PCRS, _CAP_PROPERTIES = 1, 5, 6
PT_NV_BUFFER_MAX = 0x12C
_PCR_BYTES = 3
_PCR_READ_MOST = 8
"""TPML_DIGEST holds eight."""
_RETRIES = 6
_FIRST_PAUSE_SECONDS = 0.02

_AGAIN = (0x922, 0x908, 0x90A, 0x920)
"""TPM_RC_RETRY, _YIELDED, _TESTING, _NV_RATE: ask again in a moment (Part 2 §6.6.3)."""
_RC_NAMES = {
    0x100: "TPM_RC_INITIALIZE", 0x101: "TPM_RC_FAILURE", 0x120: "TPM_RC_DISABLED", 0x143: "TPM_RC_COMMAND_CODE",
    0x12F: "TPM_RC_AUTH_UNAVAILABLE", 0x084: "TPM_RC_VALUE", 0x085: "TPM_RC_HIERARCHY", 0x08B: "TPM_RC_HANDLE",
    0x08E: "TPM_RC_AUTH_FAIL", 0x09F: "TPM_RC_INTEGRITY", 0x0A2: "TPM_RC_BAD_AUTH", 0x148: "TPM_RC_NV_RANGE",
    0x149: "TPM_RC_NV_AUTHORIZATION", 0x14A: "TPM_RC_NV_UNINITIALIZED", 0x902: "TPM_RC_OBJECT_MEMORY",
    0x910: "TPM_RC_REFERENCE_H0", 0x921: "TPM_RC_LOCKOUT", 0x922: "TPM_RC_RETRY",
}  # fmt: skip
_RC_HINTS = {
    0x100: "the TPM was not started: firmware does that, and swtpm with --flags startup-clear",
    0x08E: "the hierarchy or index has a password: let the owner certify a persistent key, and name its handle",
    0x0A2: "the hierarchy or index has a password: let the owner certify a persistent key, and name its handle",
    0x120: "the endorsement hierarchy is turned off in the firmware",
    0x085: "the endorsement hierarchy is turned off in the firmware",
    0x902: "other programs fill the TPM's memory: use /dev/tpmrm0, which keeps them apart, or flush their objects",
    0x921: "the TPM is in lockout after wrong passwords: wait, or let the owner clear it",
}


class TpmRefused(AttesterError):
    """The TPM answered with a response code other than success. `rc` is that code, without handle and session bits."""

    def __init__(self, where: str, name: str, rc: int) -> None:
        base = base_code(rc)
        known = _RC_NAMES.get(base, "response code")
        super().__init__(f"{where}: {name} refused with {known} (0x{rc:03x})", hint=_RC_HINTS.get(base, ""))
        self.rc = base


def base_code(rc: int) -> int:
    """The code of a response without the bits that say which parameter, handle or session (Part 1 §39.4)."""
    return rc & 0x0BF if rc & 0x080 else rc


class Reader:
    """Fields of one response, in order."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self._what = what

    def take(self, size: int) -> bytes:
        """The next bytes. Raises: AttesterError where they are not there."""
        if size > len(self.data) - self.at:
            raise AttesterError(f"{self._what}: wanted {size} more bytes of response, seen {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        """An unsigned integer."""
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """A TPM2B: u16 length and as many bytes."""
        return self.take(self.number(2))

    def end(self) -> None:
        """Raises: AttesterError where bytes are left."""
        if self.at != len(self.data):
            raise AttesterError(f"{self._what}: {len(self.data) - self.at} bytes too many in the response")


def sized(data: bytes) -> bytes:
    """A TPM2B."""
    return len(data).to_bytes(2, "big") + data


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command before its encoding: `handles` without authorisation follow those `authorised`."""

    name: str
    code: int
    authorised: tuple[int, ...] = ()
    handles: tuple[int, ...] = ()
    parameters: bytes = b""
    answers_handle: bool = False

    def encode(self) -> bytes:
        """Header, handles, authorisation area, parameters."""
        body = b"".join(handle.to_bytes(4, "big") for handle in self.authorised + self.handles)
        if self.authorised:
            area = _PASSWORD * len(self.authorised)
            body += len(area).to_bytes(4, "big") + area
        tag = _SESSIONS if self.authorised else _NO_SESSIONS
        body += self.parameters
        return struct.pack(">HII", tag, HEADER + len(body), self.code) + body


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A key that is loaded: its handle and its TPMT_PUBLIC."""

    handle: int
    public: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What TPM2_Quote gives: TPMS_ATTEST and TPMT_SIGNATURE, each as it stands on the wire."""

    quote: bytes
    signature: bytes


class Tpm:
    """Commands over one link. A refusal of the TPM is a `TpmRefused`, anything else an `AttesterError`.

    As a context manager it flushes at the end what was loaded, which swtpm does not do by itself, and closes the link.
    """

    def __init__(self, link: Link, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._link = link
        self._sleep = sleep
        self._loaded: list[int] = []

    def __enter__(self) -> Tpm:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            while self._loaded:
                self.flush(self._loaded.pop())
        except AttesterError:
            pass  # a link that broke holds nothing that could be flushed through it
        finally:
            self._link.close()

    def run(self, command: Command) -> tuple[int, Reader]:
        """Send one command, wait while the TPM says so (bounded), and open its response: handle (or 0), parameters.

        Raises: TpmRefused, AttesterError.
        """
        encoded = command.encode()
        pause = _FIRST_PAUSE_SECONDS
        for _ in range(_RETRIES):
            response = self._link.exchange(encoded)
            what = f"{self._link.name}: {command.name}"
            rc = self._response_code(response, what)
            if rc not in _AGAIN:
                break
            self._sleep(pause)
            pause *= 2
        if rc:
            raise TpmRefused(self._link.name, command.name, rc)
        return self._open(command, response, what)

    @staticmethod
    def _response_code(response: bytes, what: str) -> int:
        if len(response) < HEADER or int.from_bytes(response[2:6], "big") != len(response):
            raise AttesterError(f"{what}: wanted a whole response, seen {len(response)} bytes")
        return int.from_bytes(response[6:10], "big")

    @staticmethod
    def _open(command: Command, response: bytes, what: str) -> tuple[int, Reader]:
        wanted = _SESSIONS if command.authorised else _NO_SESSIONS
        if int.from_bytes(response[:2], "big") != wanted:
            raise AttesterError(f"{what}: wanted response tag {wanted:04x}, seen {response[:2].hex()}")
        body = Reader(response[HEADER:], what)
        handle = body.number(4) if command.answers_handle else 0
        if not command.authorised:
            return handle, Reader(body.data[body.at :], what)
        parameters = body.take(body.number(4))
        return handle, Reader(parameters, what)

    def create_primary(self, hierarchy: int, template: bytes) -> Loaded:
        """A primary key of `template` (TPMT_PUBLIC): the same template gives the same key for ever (Part 1 §27.2)."""
        sensitive = sized(struct.pack(">HH", 0, 0))
        parameters = sensitive + sized(template) + sized(b"") + bytes(4)
        handle, reader = self.run(
            Command(
                name="CreatePrimary", code=0x131, authorised=(hierarchy,), parameters=parameters, answers_handle=True
            )
        )
        self._loaded.append(handle)
        public = reader.sized()
        reader.sized()
        reader.sized()
        reader.take(6)
        reader.sized()
        reader.sized()
        reader.end()
        return Loaded(handle=handle, public=public)

    def read_public(self, handle: int) -> bytes:
        """The TPMT_PUBLIC of a loaded or persistent key."""
        _, reader = self.run(Command(name="ReadPublic", code=0x173, handles=(handle,)))
        public = reader.sized()
        reader.sized()
        reader.sized()
        reader.end()
        return public

    def save(self, handle: int) -> bytes:
        """The context of a loaded key, encrypted by the TPM for itself, good until it is reset."""
        _, reader = self.run(Command(name="ContextSave", code=0x162, handles=(handle,)))
        return reader.take(len(reader.data))

    def load(self, context: bytes) -> int:
        """Load what `save` gave; the handle."""
        handle, reader = self.run(Command(name="ContextLoad", code=0x161, parameters=context, answers_handle=True))
        self._loaded.append(handle)
        reader.end()
        return handle

    def flush(self, handle: int) -> None:
        """Forget a loaded key."""
        _, reader = self.run(Command(name="FlushContext", code=0x165, parameters=handle.to_bytes(4, "big")))
        reader.end()

    def quote(self, key: int, qualifying: bytes, bank: str, pcrs: Sequence[int]) -> Quoted:
        """A quote over PCRs of one bank, signed by the scheme of the key itself."""
        parameters = sized(qualifying) + ALG_NULL.to_bytes(2, "big") + _selection(bank, pcrs)
        _, reader = self.run(Command(name="Quote", code=0x158, authorised=(key,), parameters=parameters))
        quote = reader.sized()
        return Quoted(quote=quote, signature=reader.take(len(reader.data) - reader.at))

    def pcrs(self, bank: str, wanted: Sequence[int]) -> Mapping[int, bytes]:
        """Values of PCRs, read in as few commands as it takes."""
        found: dict[int, bytes] = {}
        left = sorted(wanted)
        while left:
            values = self._read_pcrs(bank, left[:_PCR_READ_MOST])
            if not values:
                raise AttesterError(f"{self._link.name}: PCR_Read gives no value of {bank} PCR {left[0]}")
            found |= values
            left = [number for number in left if number not in values]
        return found

    def _read_pcrs(self, bank: str, wanted: Sequence[int]) -> dict[int, bytes]:
        _, reader = self.run(Command(name="PCR_Read", code=0x17E, parameters=_selection(bank, wanted)))
        reader.number(4)
        numbers = [number for name, selected in read_selections(reader) if name == bank for number in selected]
        values = [reader.sized() for _ in range(min(reader.number(4), _PCR_READ_MOST))]
        reader.end()
        if len(numbers) != len(values):
            raise AttesterError(f"{self._link.name}: PCR_Read names {len(numbers)} PCRs and gives {len(values)} values")
        return dict(zip(numbers, values, strict=True))

    def banks(self) -> Mapping[str, tuple[int, ...]]:
        """The PCR banks that are turned on, with their PCRs."""
        reader = self._capability(_CAP_PCRS, 0, 1)
        found = {name: selected for name, selected in read_selections(reader) if selected}
        reader.end()
        return found

    def property(self, number: int) -> int:
        """One TPM property (Part 2 §6.13), 0 where the TPM does not state it."""
        reader = self._capability(_CAP_PROPERTIES, number, 1)
        pairs = {reader.number(4): reader.number(4) for _ in range(min(reader.number(4), 1))}
        reader.end()
        return pairs.get(number, 0)

    def has_handle(self, handle: int) -> bool:
        """Is there a persistent key or an NV index of this number?"""
        reader = self._capability(_CAP_HANDLES, handle, 1)
        found = [reader.number(4) for _ in range(min(reader.number(4), 1))]
        reader.end()
        return handle in found

    def _capability(self, capability: int, what: int, count: int) -> Reader:
        parameters = struct.pack(">III", capability, what, count)
        _, reader = self.run(Command(name="GetCapability", code=0x17A, parameters=parameters))
        reader.number(1)
        if (seen := reader.number(4)) != capability:
            raise AttesterError(f"{self._link.name}: GetCapability wanted {capability}, seen {seen}")
        return reader

    def read_index(self, index: int, most: int) -> bytes:
        """The whole content of an NV index of up to `most` bytes, read as the index or as the owner."""
        size, attributes = self._index_public(index)
        if size > most:
            raise AttesterError(f"{self._link.name}: NV index {index:08x} holds {size} bytes, at most {most} are read")
        reader_of = index if attributes >> 18 & 1 else RH_OWNER
        block = min(self.property(PT_NV_BUFFER_MAX) or 512, 1024)
        content = b""
        while len(content) < size:
            content += self._read_index(reader_of, index, min(block, size - len(content)), len(content))
        return content

    def _index_public(self, index: int) -> tuple[int, int]:
        _, reader = self.run(Command(name="NV_ReadPublic", code=0x169, handles=(index,)))
        public = Reader(reader.sized(), f"{self._link.name}: NV_ReadPublic")
        reader.sized()
        reader.end()
        public.number(4)
        public.number(2)
        attributes = public.number(4)
        public.sized()
        return public.number(2), attributes

    def _read_index(self, reader_of: int, index: int, size: int, offset: int) -> bytes:
        parameters = struct.pack(">HH", size, offset)
        command = Command(
            name="NV_Read", code=0x14E, authorised=(reader_of,), handles=(index,), parameters=parameters
        )  # fmt: skip
        _, reader = self.run(command)
        block = reader.sized()
        reader.end()
        if len(block) != size:
            raise AttesterError(f"{self._link.name}: NV_Read wanted {size} bytes, seen {len(block)}")
        return block


def _selection(bank: str, pcrs: Sequence[int]) -> bytes:
    """TPML_PCR_SELECTION of one bank."""
    bits = sum(1 << number for number in pcrs)
    return struct.pack(">IHB", 1, BANKS[bank], _PCR_BYTES) + bits.to_bytes(_PCR_BYTES, "little")


def read_selections(reader: Reader) -> list[tuple[str, tuple[int, ...]]]:
    """TPML_PCR_SELECTION; banks of hashes that we do not know are called by their number."""
    found = []
    for _ in range(min(reader.number(4), 16)):
        algorithm = reader.number(2)
        bits = int.from_bytes(reader.take(reader.number(1)), "little")
        selected = tuple(number for number in range(bits.bit_length()) if bits >> number & 1)
        found.append((_NAMES.get(algorithm, f"{algorithm:04x}"), selected))
    return found
