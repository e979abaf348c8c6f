"""Where grants are kept: the system's keyring, or a file for its owner only. One grant for each server address.

A lock of the operating system's keeps two bridges from renewing one refresh token at once, which servers take for theft
(RFC 9700 §4.14.2), and from opening two sign-in pages.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import anyio
import filelock

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.files import CANNOT_LOCK, PRIVATE, replace_file, user_folder
from attestable_mcp.mcp.oauth.model import Grant, failure

SERVICE = "attestable-mcp"
_CAP = 256 * 1024
_KEYRING_SECONDS = 60.0
"""A locked keyring asks its owner for a password."""


class Store(Protocol):
    """Keeps one text for each server. Blocking: called in a thread."""

    name: str

    def load(self, server: str) -> str | None:
        """What was saved. Raises: ConfigurationError."""

    def save(self, server: str, text: str) -> None:
        """Keep it. Raises: ConfigurationError."""

    def forget(self, server: str) -> bool:
        """Drop it; False where there was nothing. Raises: ConfigurationError."""


def folder() -> Path:
    """Of files and locks, inside the user's own data folder."""
    return user_folder("data") / "oauth"


def key(server: str) -> str:
    """The name of a server's file."""
    return hashlib.sha256(server.encode()).hexdigest()[:40]


class FileStore:
    """One file for each server, readable by its owner only, replaced whole."""

    def __init__(self, path: Path | None = None) -> None:
        self._folder = path or folder()
        self.name = f"files in {self._folder}"

    def load(self, server: str) -> str | None:
        """The file's text; refused where others may read it."""
        path = self._path(server)
        try:
            with open(path, "rb") as stream:
                mode = os.fstat(stream.fileno()).st_mode
                data = stream.read(_CAP)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        if os.name == "posix" and mode & 0o077:
            raise _unusable(
                path, f"wanted mode 600, seen {mode & 0o777:o}", hint=f"log out and in again, or: rm {path}"
            )
        return data.decode("utf-8", "replace")

    def save(self, server: str, text: str) -> None:
        """Write beside and rename: a reader sees the old text or the new one."""
        path = self._path(server)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(path, text.encode())
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error

    def forget(self, server: str) -> bool:
        """Remove the file."""
        try:
            self._path(server).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(self._path(server), error.strerror or str(error)) from error
        return True

    def _path(self, server: str) -> Path:
        return self._folder / f"{key(server)}.json"


class KeyringStore:
    """The system's keyring through the package `keyring` (the extra of that name)."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.name = f"the system keyring ({type(backend).__module__.rpartition('.')[2]})"

    def load(self, server: str) -> str | None:
        """The password of that name."""
        found = self._call("get_password", SERVICE, server)
        return found if isinstance(found, str) else None

    def save(self, server: str, text: str) -> None:
        """Set it."""
        self._call("set_password", SERVICE, server, text)

    def forget(self, server: str) -> bool:
        """Delete it."""
        if self.load(server) is None:
            return False
        self._call("delete_password", SERVICE, server)
        return True

    def _call(self, name: str, *arguments: str) -> object:
        try:
            found: object = getattr(self._backend, name)(*arguments)
        except Exception as error:
            # Each backend raises what its system raises.
            raise ConfigurationError(
                f"{self.name}: {type(error).__name__}",
                code="keyring",
                hint="unlock it, or keep tokens in a file with --oauth-store file",
            ) from error
        return found


def open_store(wanted: str) -> Store:
    """`keyring`, `file`, or `auto`: the keyring where the package and a real keyring are there, else files.

    Raises: ConfigurationError where `keyring` is wanted and there is none.
    """
    backend = None if wanted == "file" else _backend()
    if backend is not None:
        return KeyringStore(backend)
    if wanted == "keyring":
        raise ConfigurationError(
            "no system keyring is at hand", code="keyring", hint="install attestable-mcp[keyring], or use a file"
        )
    return FileStore()


def _backend() -> Any:
    try:
        import keyring

        backend = keyring.get_keyring()
        return backend if backend.priority >= 1 else None
    except Exception:  # noqa: BLE001 - a keyring that cannot be opened is none
        return None


class Kept:
    """One server's grant in a store, loaded and saved without blocking the loop."""

    def __init__(self, store: Store, server: str) -> None:
        self._store = store
        self._server = server

    async def load(self) -> Grant | None:
        """What is kept now, perhaps by another process. Raises: AttestationError."""
        text = await self._in_thread(self._store.load, self._server)
        grant = Grant.from_json(text) if isinstance(text, str) else None
        return grant if grant is not None and grant.server == self._server else None

    async def save(self, grant: Grant) -> None:
        """Keep it. Raises: AttestationError."""
        await self._in_thread(self._store.save, self._server, grant.to_json())

    async def forget(self) -> bool:
        """Drop it. Raises: AttestationError."""
        return bool(await self._in_thread(self._store.forget, self._server))

    async def _in_thread(self, call: Any, *arguments: str) -> object:
        try:
            with anyio.fail_after(_KEYRING_SECONDS):
                found: object = await anyio.to_thread.run_sync(call, *arguments, abandon_on_cancel=True)
        except TimeoutError as error:
            raise failure(f"{self._store.name} does not answer", hint="unlock it, or use --oauth-store file") from error
        return found

    @asynccontextmanager
    async def alone(self, seconds: float) -> AsyncIterator[None]:
        """No other bridge works on this server's grant meanwhile. Raises: ConversationError after `seconds`."""
        path = folder() / f"{key(self._server)}.lock"
        lock = filelock.FileLock(path, mode=PRIVATE, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with anyio.move_on_after(seconds) as scope:
                while not _taken(lock):  # noqa: ASYNC110 - another process's, so there is no event
                    await anyio.sleep(0.1)
        except CANNOT_LOCK as error:
            raise _unusable(path, getattr(error, "strerror", None) or str(error)) from error
        if scope.cancelled_caught:
            raise failure("another bridge has been signing in for long", hint="finish it in the browser")
        try:
            yield
        finally:
            lock.release()


def _taken(lock: filelock.BaseFileLock) -> bool:
    """Take it if nobody holds it; the system gives it back when the process dies."""
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        return False
    return True


def _unusable(path: Path, reason: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(f"token store {path}: {reason}", code="unreadable", hint=hint)
