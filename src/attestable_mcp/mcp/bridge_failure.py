"""What the host is told when a server is refused or cannot be reached: a JSON-RPC error that a person can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx2

from attestable_mcp.errors import (
    AppraisalRefused,
    AttestationError,
    AttestationUnavailable,
    AttesterError,
    ConfigurationError,
    ConversationError,
    ReceiptError,
    ToolRefused,
    VerificationError,
)
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.refusal import NO_RECEIPT, NOT_ADMITTED, NOT_CALLED, find_refusal
from attestable_mcp.rats import AttestationResult, Finding, Outcome

_OUR_WORD = frozenset(
    {
        "client_refused",
        "challenge_refused",
        "key_not_proven",
        "other_origin",
        "plaintext_refused",
        "redirect_refused",
        "tls_version",
    }
)
"""A conversation that did not break: one of the two ends would not have it, before anything was sent."""
_CHECKS = 32
_STATUS_HINTS = {401: "it wants authorization", 403: "it forbids this", 404: "check the path of the URL"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a message had no answer of the server's."""

    code: int
    message: str
    data: dict[str, Any]

    def answer(self, request_id: rpc.Id | None) -> bytes:
        """The JSON-RPC error for a request."""
        return rpc.error(request_id, self.code, self.message, self.data)


def failure_of(error: Exception, url: str) -> Failure:
    """A refusal with its checks, or a connection that failed; never the content of a message."""
    refusal = find_refusal(error)
    if refusal is None and isinstance(error, (httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL)):
        refusal = _lost(error)
    if refusal is None:
        refusal = ConversationError(f"the bridge met a fault: {type(error).__name__}", code="internal")
    return _told(refusal, url)


def plain(message: str, url: str, *, code: str, hint: str = "") -> Failure:
    """A failure that no exception stands for."""
    return _told(ConversationError(message, code=code, hint=hint), url)


def of_status(response: httpx2.Response, url: str) -> Failure:
    """An HTTP answer without a JSON-RPC message in it."""
    status = response.status_code
    hint = _STATUS_HINTS.get(status, "see the server's own log")
    if 300 <= status < 400 and response.headers.get("location"):
        hint = "use the address that the server redirects to, if it is the intended one"
    return plain(f"the server answered HTTP {status} without a response", url, code="http", hint=hint)


def _lost(error: Exception) -> ConversationError:
    reached = not isinstance(error, (httpx2.ConnectError, httpx2.ConnectTimeout))
    slow = isinstance(error, httpx2.TimeoutException)
    said = str(error) or type(error).__name__
    if not reached:
        return ConversationError(
            f"the server cannot be reached: {said}",
            code="unreachable",
            hint="check the address, and that the server runs; the next request tries again",
        )
    return ConversationError(
        f"the connection to the server {'stalled' if slow else 'broke'} before it answered: {said}",
        code="stalled" if slow else "connection_lost",
        hint="whether the request took effect is unknown; the next request opens a new connection",
    )


def _told(error: AttestationError, url: str) -> Failure:
    data: dict[str, Any] = {"code": error.code, "message": error.message, "hint": error.hint, "url": url}
    failed = _failed(error)
    if failed:
        data |= _shape(failed[0]) | {"checks": [_shape(finding) for finding in failed[:_CHECKS]]}
    result = error.result if isinstance(error, AppraisalRefused) else None
    if isinstance(result, AttestationResult):
        data["verdict"] = str(result.verdict)
    code = _code(error)
    return Failure(code=code, message=_lead(error, code) + _sentence(error), data=data)


def _code(error: AttestationError) -> int:
    """The JSON-RPC error code, by docs/errors.md."""
    if isinstance(error, ToolRefused):
        return NOT_CALLED
    if isinstance(error, ReceiptError):
        return NO_RECEIPT
    broke = isinstance(error, ConversationError) and not isinstance(error, AttestationUnavailable)
    return rpc.SERVER_ENDED if broke and error.code not in _OUR_WORD else NOT_ADMITTED


def _lead(error: AttestationError, code: int) -> str:
    """What a person reads first. A file of ours may turn out bad later on: then nothing is said of what was sent."""
    if code != NOT_ADMITTED:
        return ""
    ours = isinstance(error, (ConfigurationError, AttesterError))
    return "refused, for something on this side: " if ours else "attestation refused, nothing was sent: "


def _sentence(error: AttestationError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _failed(error: AttestationError) -> list[Finding]:
    found: object = ()
    if isinstance(error, AppraisalRefused) and isinstance(error.result, AttestationResult):
        found = error.result.findings
    elif isinstance(error, VerificationError):
        found = error.findings
    return [
        finding
        for finding in (found if isinstance(found, tuple) else ())
        if isinstance(finding, Finding) and finding.outcome is Outcome.FAIL
    ]


def _shape(finding: Finding) -> dict[str, str]:
    return {"check": finding.check, "wanted": finding.wanted, "seen": finding.seen, "reason": finding.reason}
