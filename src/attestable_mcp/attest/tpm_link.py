"""Ways to a TPM 2.0: the kernel's resource manager, or swtpm's socket. One command goes out, one response comes back.

Both carry the bare command bytes of TCG TPM 2.0 Library Part 3; swtpm's data channel adds no frame of its own. The
kernel's `/dev/tpmrm0` keeps the objects of each opener apart and flushes them at close, so two programs never meet;
`/dev/tpm0` does not, and is not used. A socket takes one client at a time: a link is held for one quote only.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import Protocol

from attestable_mcp.errors import AttesterAbsent, AttesterError, ConfigurationError

DEVICE = Path("/dev/tpmrm0")
RESPONSE_MAX = 4096
"""TPM_PT_MAX_RESPONSE_SIZE of every TPM that we know of."""
HEADER = 10
TIMEOUT_SECONDS = 20.0
"""A TPM may take seconds to make an RSA key, never this long."""


class Link(Protocol):
    """An open way to a TPM. Not shared between threads."""

    @property
    def name(self) -> str:
        """Where it leads, for messages."""
        ...

    def exchange(self, command: bytes) -> bytes:
        """Send one whole command, return one whole response.

        Raises:
            AttesterError: nobody answers, or not in time, or not with a whole response.
        """
        ...

    def close(self) -> None:
        """Let go of it. Never raises."""
        ...


def open_link(where: str = str(DEVICE)) -> Link:
    """A device file, a Unix socket's path, or `HOST:PORT`: a path is told from an address by its slash.

    Raises:
        AttesterError: it is absent, forbidden or silent. ConfigurationError: this is no place of a TPM.
    """
    if "/" in where or "\\" in where:
        return _open_path(Path(where))
    host, colon, port = where.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigurationError(f"TPM: wanted a path or HOST:PORT, seen {where!r:.80}", hint=f"such as {DEVICE}")
    return SocketLink(socket.AF_INET, (host, int(port)), where)


def _open_path(path: Path) -> Link:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise _absent(str(path), error) from error
    if stat.S_ISSOCK(mode):
        return SocketLink(socket.AF_UNIX, str(path), str(path))
    if not stat.S_ISCHR(mode):
        raise ConfigurationError(f"TPM {path}: wanted a device or a socket, seen a file of another kind")
    return DeviceLink(path)


class DeviceLink:
    """`/dev/tpmrm0`. The kernel works while the write blocks, and holds the response for one read."""

    def __init__(self, path: Path = DEVICE) -> None:
        self.name = str(path)
        try:
            self._descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise _absent(self.name, error) from error

    def exchange(self, command: bytes) -> bytes:
        """See Link."""
        try:
            taken = os.write(self._descriptor, command)
            response = os.read(self._descriptor, RESPONSE_MAX)
        except OSError as error:
            raise AttesterError(f"{self.name}: {error.strerror or error}") from error
        if taken != len(command):
            raise AttesterError(f"{self.name}: wanted {len(command)} bytes taken at once, seen {taken}")
        return response

    def close(self) -> None:
        """See Link."""
        try:
            os.close(self._descriptor)
        except OSError:
            pass


class SocketLink:
    """swtpm's data channel, on a Unix or TCP socket."""

    def __init__(self, family: int, address: str | tuple[str, int], name: str) -> None:
        self.name = name
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_SECONDS)
        try:
            self._socket.connect(address)
        except OSError as error:
            self.close()
            raise _absent(name, error) from error

    def exchange(self, command: bytes) -> bytes:
        """See Link."""
        until = time.monotonic() + TIMEOUT_SECONDS
        try:
            self._socket.settimeout(TIMEOUT_SECONDS)
            self._socket.sendall(command)
            head = self._take(HEADER, until)
            size = int.from_bytes(head[2:6], "big")
            if not HEADER <= size <= RESPONSE_MAX:
                raise AttesterError(f"{self.name}: wanted a response of 10 to {RESPONSE_MAX} bytes, seen {size}")
            return head + self._take(size - HEADER, until)
        except TimeoutError as error:
            raise AttesterError(
                f"{self.name}: no answer in {TIMEOUT_SECONDS:.0f} seconds",
                hint="swtpm serves one client at a time: another may hold it",
            ) from error
        except OSError as error:
            raise AttesterError(f"{self.name}: {error.strerror or error}") from error

    def _take(self, size: int, until: float) -> bytes:
        taken = b""
        while len(taken) < size:
            self._socket.settimeout(max(until - time.monotonic(), 0.001))
            block = self._socket.recv(size - len(taken))
            if not block:
                raise AttesterError(f"{self.name}: closed in the middle of a response")
            taken += block
        return taken

    def close(self) -> None:
        """See Link."""
        self._socket.close()


def _absent(name: str, error: OSError) -> AttesterError:
    hints: dict[type[OSError], str] = {
        FileNotFoundError: "no TPM there: load its driver (modprobe tpm_tis, tpm_crb or tpm_vtpm_proxy), turn the TPM"
        " on in the firmware or the VM's settings, or name another place",
        PermissionError: "the device belongs to group tss: add this user to it (usermod -aG tss USER), or run as root",
        ConnectionRefusedError: "nobody listens there: is swtpm running?",
    }
    hint = next((text for kind, text in hints.items() if isinstance(error, kind)), "")
    kind = AttesterAbsent if isinstance(error, FileNotFoundError) else AttesterError
    return kind(f"{name}: {error.strerror or error}", hint=hint)
