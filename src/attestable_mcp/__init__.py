"""Prove which code runs behind an MCP server before you send it one byte.

    async with attested_client("https://mcp.example:8443/mcp", policy="policy.toml") as client:
        print(client.attestation.verdict)
        await client.call_tool("add", {"a": 1, "b": 2})

The names below are the public interface; everything else may change. They load on first use, so that importing the
package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy
    from attestable_mcp.errors import (
        AppraisalRefused,
        AttestationError,
        AttestationUnavailable,
        BindingError,
        ConfigurationError,
    )
    from attestable_mcp.mcp.caller import attestation_of
    from attestable_mcp.mcp.client import AttestedClient, attested_client, fastmcp_client_factory
    from attestable_mcp.mcp.serve import RunningServer, serve
    from attestable_mcp.rats import AttestationResult, Caller, Evidence, Verdict
    from attestable_mcp.tls.client import attested_http_client
    from attestable_mcp.tls.pins import Pins
    from attestable_mcp.verifier import Verifier

    __version__: str

__all__ = [
    "AppraisalRefused",
    "AttestationError",
    "AttestationResult",
    "AttestationUnavailable",
    "AttestedClient",
    "BindingError",
    "Caller",
    "ConfigurationError",
    "Evidence",
    "Pins",
    "Policy",
    "RunningServer",
    "Verdict",
    "Verifier",
    "__version__",
    "attestation_of",
    "attested_client",
    "attested_http_client",
    "fastmcp_client_factory",
    "serve",
]

_HOMES = {
    "AppraisalRefused": "errors",
    "AttestationError": "errors",
    "AttestationResult": "rats",
    "AttestationUnavailable": "errors",
    "AttestedClient": "mcp.client",
    "BindingError": "errors",
    "Caller": "rats",
    "ConfigurationError": "errors",
    "Evidence": "rats",
    "Pins": "tls.pins",
    "Policy": "appraise.policy",
    "RunningServer": "mcp.serve",
    "Verdict": "rats",
    "Verifier": "verifier",
    "attestation_of": "mcp.caller",
    "attested_client": "mcp.client",
    "attested_http_client": "tls.client",
    "fastmcp_client_factory": "mcp.client",
    "serve": "mcp.serve",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        return _version()
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    metadata = import_module("importlib.metadata")
    version: str = metadata.version("attestable-mcp")
    globals()["__version__"] = version
    return version
