"""Every error that leaves this package.

AttestationError                code, exit_code, hint
├── ConfigurationError          our own file, flag or path
├── EvidenceError               the peer's bytes
│   ├── MalformedEvidence       (field, offset)
│   └── UnsupportedEvidence
│       └── UnreadEvidence      a certificate whose only evidence is of a form that we do not read
├── VerificationError           proof failed; carries the findings made so far
│   ├── SignatureInvalid
│   ├── ChainInvalid
│   ├── Revoked
│   └── EndorsementStale
├── EndorsementUnavailable      network or vendor; trying again may help
├── AppraisalRefused            proof held, policy said no; carries the whole result
├── BindingError                good evidence, wrong connection
│   ├── ChannelMismatch
│   ├── NotFresh
│   └── WrongDeployment        the right code, but not the copy of the owner that was asked for
├── ConversationError           the peer's TLS or HTTP behaviour: stalled, flooded, spoke garbage, redirected
├── ToolRefused                 what the server lists is not what was promised; nothing was sent
├── ReceiptError                an answer without the receipt that it has to carry
└── AttesterError               no permission, driver fault
    └── AttesterAbsent          no such device

A message says what, where, wanted, seen; the hint says what to do next. `code` is a stable lower_snake_case word that
programs may match on; it appears in JSON output and in test names. This module imports nothing but the table of hints.
"""

from __future__ import annotations

from attestable_mcp.hints import hint_for

EXIT_VERIFIED = 0
EXIT_USAGE = 1
EXIT_REFUSED = 2
EXIT_UNAVAILABLE = 3
EXIT_PARTIAL = 4


class AttestationError(Exception):
    """Base of the family. `code` is stable, `exit_code` is what the command line ends with, `hint` says what to do."""

    code: str = "attestation_error"
    exit_code: int = EXIT_REFUSED
    hint: str = ""

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.hint = hint or self.hint or hint_for(self.code)

    @property
    def message(self) -> str:
        """The sentence without code or hint."""
        return str(self.args[0]) if self.args else self.code


class ConfigurationError(AttestationError):
    """Our own file, flag or path is wrong."""

    code = "configuration"
    exit_code = EXIT_USAGE


class EvidenceError(AttestationError):
    """The peer's bytes are not evidence that we can read."""

    code = "evidence"


class MalformedEvidence(EvidenceError):
    """Bytes break their format. `field` names the part, `offset` is in bytes from the start of the outermost input."""

    code = "malformed_evidence"

    def __init__(
        self,
        message: str,
        *,
        field: str = "",
        offset: int | None = None,
        code: str | None = None,
        hint: str | None = None,
    ) -> None:
        where = f" (field {field})" if field else ""
        at = f" at byte {offset}" if offset is not None else ""
        super().__init__(f"{message}{where}{at}", code=code, hint=hint)
        self.field = field
        self.offset = offset


class UnsupportedEvidence(EvidenceError):
    """Well-formed, but of a kind or version that we do not verify."""

    code = "unsupported_evidence"


class UnreadEvidence(UnsupportedEvidence):
    """A certificate speaks of attestation only in forms that are not read here: nothing was judged, nothing proven."""

    code = "unsupported_certificate_evidence"
    exit_code = EXIT_UNAVAILABLE


class VerificationError(AttestationError):
    """A proof failed. `findings` holds every check made so far, the failing one last."""

    code = "verification_failed"

    def __init__(
        self, message: str, *, findings: tuple[object, ...] = (), code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.findings = findings


class SignatureInvalid(VerificationError):
    """A signature does not verify over the bytes that were received."""

    code = "signature_invalid"


class ChainInvalid(VerificationError):
    """A certificate chain does not lead to a trust anchor, or one of its links does not hold."""

    code = "chain_invalid"


class Revoked(VerificationError):
    """A certificate or a TCB level is revoked. No policy can override this."""

    code = "revoked"


class EndorsementStale(VerificationError):
    """Collateral is outside its validity, or older than one seen before."""

    code = "endorsement_stale"


class EndorsementUnavailable(AttestationError):
    """Collateral that the verdict needs could not be had. Trying again may help."""

    code = "endorsement_unavailable"
    exit_code = EXIT_UNAVAILABLE


class AppraisalRefused(AttestationError):
    """Proof held, policy said no. `result` is the whole AttestationResult with every finding."""

    code = "appraisal_refused"

    def __init__(
        self, message: str, *, result: object = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.result = result


class BindingError(AttestationError):
    """Good evidence that belongs to another key or another connection."""

    code = "binding"


class ChannelMismatch(BindingError):
    """The evidence commits to another TLS connection or another key than this one's."""

    code = "channel_binding_mismatch"


class NotFresh(BindingError):
    """The evidence answers another challenge, or its certificate is outside its validity or age limit."""

    code = "stale_evidence"


class WrongDeployment(BindingError):
    """The right code, run by somebody else: no owner's grant, another owner's, or one that does not fit its holder."""

    code = "wrong_deployment"


class ConversationError(AttestationError):
    """The peer stalled, flooded, closed half-way, redirected or spoke something other than the protocol."""

    code = "conversation"


class AttestationUnavailable(ConversationError):
    """The peer offers no attestation at all. Never a reason to go on without it."""

    code = "attestation_unavailable"
    exit_code = EXIT_UNAVAILABLE


class ToolRefused(AttestationError):
    """The server lists something else than was promised; the call was not sent. `difference` tells it in JSON."""

    code = "tool_refused"

    def __init__(
        self, message: str, *, difference: object = None, code: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.difference = difference


class ReceiptError(AttestationError):
    """An answer came without the receipt that it has to carry, or with one that does not hold: do not rely on it."""

    code = "receipt"


class AttesterError(AttestationError):
    """This machine's attestation device is absent, forbidden or faulty."""

    code = "attester"
    exit_code = EXIT_UNAVAILABLE


class AttesterAbsent(AttesterError):
    """This machine has no such attestation device at all; detection goes on to the next kind."""

    code = "attester_absent"
