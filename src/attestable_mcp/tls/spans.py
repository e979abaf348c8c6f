"""Attestation as spans: one for the whole, one for each of its phases, the verdict as attributes and an event.

The phases are those that `Gate` gives deadlines to. No evidence, no key and no message is in them.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from attestable_mcp import telemetry
from attestable_mcp.errors import AppraisalRefused, AttestationError
from attestable_mcp.rats import AttestationResult

if TYPE_CHECKING:
    from attestable_mcp.tls.admission import AttestedPeer, Origin

_PHASES = (
    ("TLS handshake", "attestation.handshake"),
    ("live challenge", "attestation.evidence"),
    ("verification", "attestation.verification"),
    ("our own", "attestation.own_evidence"),
    ("pins", "attestation.pins"),
)


def traced(steps: Generator[Any, Any, AttestedPeer], origin: Origin) -> Generator[Any, Any, AttestedPeer]:
    """The same steps; observed only where somebody has set up telemetry."""
    return _observed(steps, origin) if telemetry.enabled() else steps


def _observed(steps: Generator[Any, Any, AttestedPeer], origin: Origin) -> Generator[Any, Any, AttestedPeer]:
    whole = _Whole(origin)
    value: Any = None
    try:
        while True:
            step = steps.send(value)
            whole.at(getattr(step, "what", ""))
            value = yield step
    except StopIteration as stop:
        peer: AttestedPeer = stop.value
        whole.finish(peer.result, "")
        return peer
    except GeneratorExit:  # whoever drove the steps gave up: a stall, a broken connection, a cancelled request
        whole.finish(None, "abandoned")
        raise
    except AttestationError as error:
        result = error.result if isinstance(error, AppraisalRefused) else None
        whole.finish(result if isinstance(result, AttestationResult) else None, error.code)
        raise
    finally:
        steps.close()


class _Whole:
    """The outer span, and the phase that runs in it."""

    def __init__(self, origin: Origin) -> None:
        attributes = {"server.address": origin.host, "server.port": origin.port}
        self._since = time.monotonic()
        self._span = telemetry.begin("attestation", kind="client", attributes=attributes)
        self._phase: Any = None

    def at(self, what: str) -> None:
        """A step with a deadline begins a phase."""
        name = next((name for start, name in _PHASES if what.startswith(start)), "")
        if name:
            self._end_phase("")
            self._phase = telemetry.begin(name, attributes={}, parent=telemetry.context_of(self._span))

    def finish(self, result: AttestationResult | None, error: str) -> None:
        """The verdict, or what came in its place."""
        self._end_phase(error)
        verdict = str(result.verdict) if result is not None else "refused" if error else ""
        facts: dict[str, Any] = {"attestation.verdict": verdict}
        if result is not None:
            facts |= {"attestation.tee": str(result.tee), "attestation.tcb_status": result.tcb_status}
            facts |= {"attestation.simulated": result.simulated, "attestation.policy": result.policy}
        self._span.set_attributes(facts)
        self._span.add_event("attestation.verdict", {"attestation.verdict": verdict})
        if error:
            telemetry.failed(self._span, error)
        self._span.end()
        kept = {key: facts[key] for key in ("attestation.verdict", "attestation.tee") if key in facts}
        telemetry.record("attestation.duration", time.monotonic() - self._since, kept | {"error.type": error})

    def _end_phase(self, error: str) -> None:
        if self._phase is not None:
            if error:
                telemetry.failed(self._phase, error)
            self._phase.end()
            self._phase = None
