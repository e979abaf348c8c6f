"""Spans and histograms by OpenTelemetry's API, for whoever has set an SDK up; without one nothing is made at all.

Only the API is used here, and only where this process has imported it already: the check that it is off costs about a
microsecond. Neither arguments nor results go into attributes. Names and units follow the semantic conventions for MCP
(open-telemetry/semantic-conventions-genai); `attestation.*` are our own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any

NAME = "attestable-mcp"
FIELDS = ("traceparent", "tracestate")
"""What of W3C Trace Context is carried along (baggage is the application's own)."""
BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_PARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_DESCRIPTIONS = {
    "mcp.client.operation.duration": "The duration of the MCP request as observed by the sender.",
    "mcp.server.operation.duration": "The duration of the MCP request as observed by the receiver.",
    "attestation.duration": "From a connected socket to the verdict on the server.",
}
_histograms: dict[str, Any] = {}


def enabled() -> bool:
    """Has anybody set up an SDK for traces or metrics?"""
    trace, metrics = sys.modules.get("opentelemetry.trace"), sys.modules.get("opentelemetry.metrics")
    if trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return True
    return metrics is not None and type(metrics.get_meter_provider()).__name__ != "_ProxyMeterProvider"


def begin(name: str, *, kind: str = "internal", attributes: Mapping[str, Any], parent: Any = None) -> Any:
    """A span that has begun, made current for nobody. `kind` is client, server or internal; `parent` a Context."""
    from opentelemetry import trace

    tracer = trace.get_tracer(NAME)
    return tracer.start_span(
        name, context=parent, kind=trace.SpanKind[kind.upper()], attributes={k: v for k, v in attributes.items() if v}
    )


def failed(span: Any, kind: str) -> None:
    """Mark a span as failed; `kind` is a code or a class name, never a sentence."""
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))


def context_of(span: Any) -> Any:
    """A Context whose current span is this one."""
    from opentelemetry import trace

    return trace.set_span_in_context(span)


def context_from(*carriers: Mapping[str, Any]) -> Any:
    """The Context that the first of the carriers with a valid `traceparent` names; None where none does."""
    from opentelemetry import propagate

    for carrier in carriers:
        if has_parent(carrier):
            return propagate.extract({key: carrier[key] for key in FIELDS if isinstance(carrier.get(key), str)})
    return None


def has_parent(carrier: Mapping[str, Any]) -> bool:
    """Does the carrier hold a valid `traceparent` (W3C Trace Context §3.2)?"""
    value = carrier.get("traceparent")
    return isinstance(value, str) and _PARENT.fullmatch(value) is not None


def inject(carrier: MutableMapping[str, Any], span: Any = None) -> None:
    """Write `traceparent` and `tracestate` of the span, or of the current one, where they are not there yet."""
    from opentelemetry import propagate

    if not has_parent(carrier):
        found: dict[str, str] = {}
        propagate.inject(found, context=context_of(span) if span is not None else None)
        carrier.update({key: value for key, value in found.items() if key in FIELDS})


def record(name: str, seconds: float, attributes: Mapping[str, Any]) -> None:
    """One measurement of a duration."""
    from opentelemetry import metrics

    if name not in _histograms:
        _histograms[name] = metrics.get_meter(NAME).create_histogram(
            name, unit="s", description=_DESCRIPTIONS[name], explicit_bucket_boundaries_advisory=BUCKETS
        )
    _histograms[name].record(seconds, {key: value for key, value in attributes.items() if value})
