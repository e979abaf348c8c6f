"""OpenTelemetry for the verbs that stay, set up by the standard OTEL_* variables; without them it is never imported."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attestable_mcp.cli import text_connect as words
from attestable_mcp.cli.logs import TALK

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_FLUSH_SECONDS = 1.0
"""What the end of a process waits for a collector, which may be gone."""


@contextmanager
def telemetry(service: str) -> Iterator[None]:
    """Traces and metrics while the block runs, as the environment asks. `service` names us unless it does."""
    wanted = {kind: _exporter(kind) for kind in ("traces", "metrics")}
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or set(wanted.values()) == {"none"}:
        yield
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", service)
    try:
        stops = [*_traces(wanted["traces"]), *_metrics(wanted["metrics"])]
    except ImportError:
        TALK.warning(words.NO_TELEMETRY)
        stops = []
    try:
        yield
    finally:
        _stop(stops)


def _exporter(kind: str) -> str:
    """`otlp`, `console` or `none`: what is named, or OTLP where an endpoint is."""
    named = os.environ.get(f"OTEL_{kind.upper()}_EXPORTER", "").strip().lower()
    endpoint = os.environ.get(f"OTEL_EXPORTER_OTLP_{kind.upper()}_ENDPOINT") or os.environ.get(_ENDPOINT)
    chosen = named or ("otlp" if endpoint else "none")
    if chosen not in ("otlp", "console", "none"):
        TALK.warning(words.unknown_exporter(kind, chosen))
        return "none"
    return chosen


def _traces(exporter: str) -> Iterator[Callable[[], object]]:
    if exporter == "none":
        return
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    provider = TracerProvider(shutdown_on_exit=False)
    chosen: Any = ConsoleSpanExporter(out=sys.stderr)
    if exporter == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        chosen = OTLPSpanExporter()
    provider.add_span_processor(BatchSpanProcessor(chosen))
    trace.set_tracer_provider(provider)
    yield provider.shutdown


def _metrics(exporter: str) -> Iterator[Callable[[], object]]:
    if exporter == "none":
        return
    from opentelemetry import metrics
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

    chosen: Any = ConsoleMetricExporter(out=sys.stderr)
    if exporter == "otlp":
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        chosen = OTLPMetricExporter()
    provider = MeterProvider([PeriodicExportingMetricReader(chosen)], shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    yield provider.shutdown


def _stop(stops: list[Callable[[], object]]) -> None:
    """Hand over what is left, all at once and not for long."""
    threads = [threading.Thread(target=stop, daemon=True) for stop in stops]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + _FLUSH_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
