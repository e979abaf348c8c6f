"""Stored receipts, verified offline: the chain, and the evidence that vouches for the key that signed it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.audit import Audit
from attestable_mcp.bind.live import Answer, QuoteProof
from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import AttestationResult, ErrorReport, Verdict
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.replay import replay
from attestable_mcp.wire.bundle import LiveSubject, read_bundle

NO_PROOF: Final = "whose key signed the receipts: no evidence is kept beside them"
NO_HEAD: Final = "that no later receipt was taken away: no tree head covers them"
SHORT_HEAD: Final = "that no later receipt was taken away: the newest tree head covers {covered} of {receipts}"
SET_BACK: Final = "when the calls were made: the server's clock went back {times} times between them"
LATER: Final = "what was called after the newest tree head"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What holds of one chain. `proof` is the verdict on the evidence behind its key, replayed; None without any."""

    name: str
    origin: str
    key: str
    audit: Audit
    proof: AttestationResult | None

    @property
    def verdict(self) -> Verdict:
        """VERIFIED: chain and key hold. PARTIAL: the chain holds, the key's evidence leaves something open."""
        if not self.audit.whole or (self.proof is not None and self.proof.verdict is Verdict.REFUSED):
            return Verdict.REFUSED
        if self.proof is None or self.proof.verdict is not Verdict.VERIFIED:
            return Verdict.PARTIAL
        return Verdict.VERIFIED

    @property
    def not_proven(self) -> tuple[str, ...]:
        """What stays open."""
        covered, receipts = self.audit.covered, self.audit.receipts
        end = LATER if covered == receipts else SHORT_HEAD.format(covered=covered, receipts=receipts)
        proof = self.proof.not_proven if self.proof is not None else (NO_PROOF,)
        times = (SET_BACK.format(times=self.audit.set_back),) if self.audit.set_back else ()
        return (*proof, end if covered else NO_HEAD, *times)

    def to_json(self) -> dict[str, Any]:
        """The public shape."""
        return {
            "chain": self.name,
            "origin": self.origin,
            "key": self.key,
            "verdict": str(self.verdict),
            "audit": self.audit.to_json(),
            "not_proven": list(self.not_proven),
            "proof": self.proof.to_json() if self.proof is not None else None,
        }


def judge_key(
    bundle: bytes | None, public: bytes, policy: Policy | None, at: datetime | None, *, origin: str
) -> AttestationResult | None:
    """The verdict on the evidence that vouches for `public`, by `policy` or the bundle's own, as of `at` or its making.

    A bundle that cannot be read, that vouches for another key, or that was met at another `origin` than the receipts
    are said to be of, is refused.
    """
    if bundle is None:
        return None
    try:
        found = read_bundle(bundle)
        moment = at or found.made_at
        answer = Answer.decode(found.subject.answer) if isinstance(found.subject, LiveSubject) else None
        elsewhere = isinstance(found.subject, LiveSubject) and str(origin_of(found.subject.url)) != origin
        result = replay(found, moment, policy)
    except AttestationError as error:
        return _refused(at or datetime.fromtimestamp(0).astimezone(), error.code, error.message)
    if answer is None or not isinstance(answer.proof, QuoteProof) or answer.binding_key != public:
        return replace(_refused(moment, "other_key", "the evidence vouches for another key"), findings=result.findings)
    if elsewhere:
        text = "the evidence is of another address than the receipts are said to be of"
        return replace(_refused(moment, "other_address", text), findings=result.findings)
    return result


def _refused(at: datetime, code: str, message: str) -> AttestationResult:
    return AttestationResult(verdict=Verdict.REFUSED, at=at, error=ErrorReport(code=code, message=message))
