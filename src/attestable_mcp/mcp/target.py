"""What `serve` is given, resolved to one of five kinds.

| given | kind |
| --- | --- |
| `mcp.server.MCPServer`, `mcp.server.Server` | SdkServer |
| an object with `http_app` (FastMCP) | FastMcpServer |
| an ASGI application | AsgiApp |
| `"module:object"`, `"file.py:object"`, `"module"` | whichever of the above the object is |
| `"http://127.0.0.1:8000/mcp"` | Upstream |
| a list of words, or a Command | StdioServer |
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import ipaddress
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from mcp.server import MCPServer, Server

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.child import Command
from attestable_mcp.tls.address import in_url

_USUAL_NAMES = ("mcp", "server", "app")


class HttpAppServer(Protocol):
    """What we need of a FastMCP object."""

    def http_app(self, **options: Any) -> asgi.App:
        """An ASGI application."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SdkServer:
    """A server object of the MCP SDK."""

    server: MCPServer | Server[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FastMcpServer:
    """A server object of FastMCP 4."""

    server: HttpAppServer


@dataclass(frozen=True, slots=True, kw_only=True)
class AsgiApp:
    """Any ASGI application."""

    app: asgi.App


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """A local HTTP server: its origin, and the path of its MCP endpoint."""

    origin: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioServer:
    """A command that speaks MCP on stdin and stdout."""

    command: Command


Target = SdkServer | FastMcpServer | AsgiApp | Upstream | StdioServer


def resolve(target: object, *, danger_remote_upstream: bool = False) -> Target:
    """The kind of `target`. Importing `module:object` runs that module.

    `danger_remote_upstream` lets an http(s) URL name another machine: what runs there, and the way to it, is then not
    covered by any proof.

    Raises: ConfigurationError.
    """
    if isinstance(target, (SdkServer, FastMcpServer, AsgiApp, Upstream, StdioServer)):
        return target
    if isinstance(target, str):
        if target.lower().startswith(("http://", "https://")):
            return _upstream(target, remote=danger_remote_upstream)
        return _of_object(_load(target), target)
    if isinstance(target, Command):
        return StdioServer(command=target)
    if isinstance(target, (list, tuple)):
        if not all(isinstance(word, str) for word in target):
            raise _fault("wanted a command as a list of strings")
        return StdioServer(command=Command(argv=tuple(target)))
    return _of_object(target, type(target).__name__)


def _of_object(found: object, name: str) -> Target:
    if isinstance(found, (MCPServer, Server)):
        return SdkServer(server=found)
    if callable(getattr(found, "http_app", None)):
        return FastMcpServer(server=cast(HttpAppServer, found))
    if _is_asgi(found):
        return AsgiApp(app=cast(asgi.App, found))
    raise _fault(
        f"{name}: wanted an MCP server object, a FastMCP object or an ASGI application, seen {type(found).__name__}"
    )


def _is_asgi(found: object) -> bool:
    """ASGI 3: one asynchronous callable of three arguments."""
    if isinstance(found, type) or not callable(found):
        return False
    function = found if inspect.isroutine(found) else getattr(found, "__call__", found)  # noqa: B004 - its signature
    with suppress(TypeError, ValueError):
        signature = inspect.signature(function)
        signature.bind({}, None, None)
        return inspect.iscoroutinefunction(function)
    return False


# --- module:object --------------------------------------------------------------------------------------------------


def _load(text: str) -> object:
    name, colon, attribute = text.rpartition(":")
    if not colon or (len(name) == 1 and attribute.startswith(("\\", "/"))):
        name, attribute = text, ""
    if not name or (colon and not attribute):
        raise _fault(f"{text!r}: wanted module:object")
    module = _import(name)
    return _attribute(module, attribute, text) if attribute else _usual(module, text)


def _import(name: str) -> ModuleType:
    try:
        return _import_file(Path(name)) if name.endswith(".py") else _import_module(name)
    except ConfigurationError:
        raise
    except ModuleNotFoundError as error:
        raise _fault(f"module {name!r}: wanted an importable module, seen {error}") from error
    except Exception as error:
        # A module of the user's may fail in any way; whichever it is, it is the target that is wrong.
        raise _fault(f"module {name!r}: it raises {type(error).__name__} while imported: {error}") from error


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise _fault(f"{name!r}: wanted a dotted module name")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file as a script's neighbours see it: its folder is on the path, its name is the module's."""
    if not path.is_file():
        raise _fault(f"{path}: wanted a Python file, seen none")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise _fault(f"{path}: wanted a Python file that can be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(path.stem, None)
        raise
    return module


def _attribute(module: ModuleType, dotted: str, text: str) -> object:
    found: object = module
    for part in dotted.split("."):
        if not hasattr(found, part):
            raise _fault(f"{text!r}: wanted {dotted!r} in module {module.__name__!r}, seen no such name")
        found = getattr(found, part)
    return found


def _usual(module: ModuleType, text: str) -> object:
    for name in _USUAL_NAMES:
        found = getattr(module, name, None)
        if found is not None and not isinstance(found, ModuleType):
            return found
    raise _fault(f"{text!r}: wanted module:object, or a module that holds one of {', '.join(_USUAL_NAMES)}")


# --- http URL -------------------------------------------------------------------------------------------------------


def _upstream(text: str, *, remote: bool) -> Upstream:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise _fault(f"{text!r}: wanted an http URL, seen {error}") from error
    if not host or parts.username or parts.password or parts.fragment or parts.query:
        raise _fault(f"URL of host {host!r}: wanted scheme, host, port and path, and nothing else")
    if not remote and not is_loopback(host):
        raise _fault(
            f"URL of host {host!r}: wanted a server on this machine (127.0.0.1, ::1, localhost)",
            hint="attestation here says nothing of another machine: run `serve` on that machine, inside its TEE",
        )
    return Upstream(origin=f"{parts.scheme}://{in_url(host)}{f':{port}' if port else ''}", path=parts.path or "/mcp")


def is_loopback(host: str) -> bool:
    """Does this name or address mean this machine, whatever a resolver says?"""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host.lower() == "localhost"


def _fault(message: str, hint: str | None = None) -> ConfigurationError:
    usual = "a target is module:object, an http URL of this machine, or a command after --"
    return ConfigurationError(f"target: {message}", code="target", hint=hint or usual)
