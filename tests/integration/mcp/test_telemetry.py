"""OpenTelemetry with the in-memory exporter: spans and histograms of requests and of attestation, and none when off."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_state
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once

from attestable_mcp import Policy, serve, telemetry
from attestable_mcp.errors import AttestationError
from attestable_mcp.mcp import rpc, tracing
from attestable_mcp.mcp.bridge import Bridge
from attestable_mcp.mcp.gate import make_gate
from attestable_mcp.tls.client import attest_server, attested_transport

pytestmark = pytest.mark.anyio
MEASURED = bytes(range(32))
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}


class Observed:
    """What was exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()

    def spans(self, prefix: str = "", scope: str = "attestable-mcp") -> list[Any]:
        found = self.exporter.get_finished_spans()
        return [span for span in found if span.name.startswith(prefix) and span.instrumentation_scope.name == scope]

    def points(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def _reset() -> None:
    """The API takes one provider a process; tests take it back."""
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    metrics_state._METER_PROVIDER = None
    metrics_state._METER_PROVIDER_SET_ONCE = Once()
    telemetry._histograms.clear()


@pytest.fixture
def observed() -> Iterator[Observed]:
    found = Observed()
    tracer = TracerProvider(shutdown_on_exit=False)
    tracer.add_span_processor(SimpleSpanProcessor(found.exporter))
    trace.set_tracer_provider(tracer)
    metrics.set_meter_provider(MeterProvider([found.reader], shutdown_on_exit=False))
    yield found
    _reset()


def policy(measured: bytes = MEASURED) -> Policy:
    text = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{}"\n'
    return Policy.from_toml(text.format(measured.hex()))


def call(request_id: object, tool: str, arguments: dict[str, Any], **meta: str) -> bytes:
    params = {"name": tool, "arguments": arguments, "_meta": META | meta}
    return rpc.dump({"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params})


async def bridged(url: str, *lines: bytes) -> list[Any]:
    """What the bridge answers to a host's lines, traced as `connect` traces it."""
    answers: list[Any] = []
    host = tracing.host_trace()

    async def write(line: bytes) -> None:
        host.seen(line)
        answers.append(json.loads(line))

    async def spoken() -> AsyncIterator[bytes | None]:
        for line in lines:
            yield line

    transport = tracing.carrying(attested_transport(make_gate(policy()), url))
    async with httpx2.AsyncClient(transport=transport) as http:
        bridge = Bridge(url, http, write=write, say=lambda _: None)
        with anyio.fail_after(20):
            await bridge.run(host.watch(spoken()))
        host.close()
    return answers


class Echo:
    """A stateless-era server of one tool that says which trace reached it."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.metas: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = json.loads((await receive())["body"])
        if message["method"] == "tools/call":
            self.headers.append({key.decode(): value.decode() for key, value in scope["headers"]})
            self.metas.append(message["params"]["_meta"])
        name = message["params"].get("name")
        result: dict[str, Any] = {"content": [], "resultType": "complete"}
        body = {"jsonrpc": "2.0", "id": message["id"], "result": result | {"isError": name == "broken"}}
        if name == "absent":
            body = {"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "CANARY"}}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def test_a_request_is_a_client_span_and_a_measurement(observed: Observed) -> None:
    echo = Echo()
    async with serve(echo, attester="simulated", measured=MEASURED) as server:
        lines = [call(7, "add", {"a": "CANARY"}), call(8, "broken", {}), call("nine", "absent", {})]
        answers = await bridged(server.url, *lines)
    assert len(answers) == 3
    by_id = {span.attributes["jsonrpc.request.id"]: span for span in observed.spans("tools/call")}
    good, broken, absent = by_id["7"], by_id["8"], by_id["nine"]
    assert good.name == "tools/call add"
    assert good.kind is trace.SpanKind.CLIENT
    assert dict(good.attributes) == {
        "mcp.method.name": "tools/call", "jsonrpc.request.id": "7", "mcp.protocol.version": "2026-07-28",
        "gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "add",
    }  # fmt: skip
    assert good.status.is_ok
    assert (broken.attributes["error.type"], absent.attributes["error.type"]) == ("tool_error", "-32602")
    assert not broken.status.is_ok
    points = observed.points("mcp.client.operation.duration")
    assert sum(point.count for point in points) == 3
    assert {point.attributes.get("error.type") for point in points} == {None, "tool_error", "-32602"}
    assert "CANARY" not in "".join(span.to_json() for span in observed.exporter.get_finished_spans())


async def test_a_hosts_trace_goes_on_and_its_own_words_stay(observed: Observed) -> None:
    echo = Echo()
    async with serve(echo, attester="simulated", measured=MEASURED) as server:
        await bridged(server.url, call(1, "add", {}, traceparent=PARENT), call(2, "mul", {}))
    inside, alone = (next(iter(observed.spans(f"tools/call {name}"))) for name in ("add", "mul"))
    metas = {meta["traceparent"] == PARENT: meta for meta in echo.metas}
    assert f"{inside.context.trace_id:032x}" == PARENT[3:35]
    assert f"{inside.parent.span_id:016x}" == PARENT[36:52]
    assert metas[True]["traceparent"] == PARENT
    assert metas[False]["traceparent"][36:52] == f"{alone.context.span_id:016x}"
    headers = {found["traceparent"][36:52] for found in echo.headers}
    assert headers == {f"{span.context.span_id:016x}" for span in (inside, alone)}


async def test_attestation_is_a_span_with_its_phases_and_verdict(observed: Observed) -> None:
    async with serve(Echo(), attester="simulated", measured=MEASURED) as server:
        await attest_server(policy(), server.url)
        with pytest.raises(AttestationError):
            await attest_server(policy(b"\1" * 32), server.url)
    good, bad = [span for span in observed.spans() if span.name == "attestation"]
    phases = {span.name for span in observed.spans() if span.parent and span.parent.span_id == good.context.span_id}
    assert phases == {"attestation.handshake", "attestation.evidence", "attestation.verification"}
    assert good.attributes["attestation.verdict"] == "verified"
    assert good.attributes["attestation.tee"] == "sgx"
    assert good.attributes["attestation.simulated"] is True
    assert [event.name for event in good.events] == ["attestation.verdict"]
    assert bad.attributes["attestation.verdict"] == "refused"
    assert bad.attributes["error.type"] == "measurement_mismatch"
    verdicts = {point.attributes["attestation.verdict"] for point in observed.points("attestation.duration")}
    assert verdicts == {"verified", "refused"}


async def test_the_attestation_of_a_call_is_part_of_its_trace(observed: Observed) -> None:
    async with serve(Echo(), attester="simulated", measured=MEASURED) as server:
        await bridged(server.url, call(1, "add", {}))
    request = observed.spans("tools/call add")[0]
    whole = next(span for span in observed.spans() if span.name == "attestation")
    assert whole.context.trace_id == request.context.trace_id


@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_a_stdio_server_is_a_server_span(observed: Observed, wrapped: Any, plain_command: Any, era: str) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if era == "legacy":
            opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
            body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening}
            answer = await http.post(url, json=body, headers=headers | {"traceparent": PARENT})
            assert answer.status_code == 200
            span = observed.spans("initialize")[0]
        else:
            more = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "nothing"}
            sent = headers | more | {"traceparent": PARENT}
            answer = await http.post(url, content=call(1, "nothing", {}), headers=sent)
            span = observed.spans("tools/call nothing")[0]
    assert span.kind is trace.SpanKind.SERVER
    assert f"{span.context.trace_id:032x}" == PARENT[3:35]
    assert sum(point.count for point in observed.points("mcp.server.operation.duration")) == 1


async def test_strangers_name_no_spans(observed: Observed) -> None:
    message = {"jsonrpc": "2.0", "id": "x" * 5000, "method": "made/up", "params": {}}
    operation = tracing.Operation("server", message, None)
    operation.finish()
    operation.finish()
    (span,) = observed.spans()
    assert span.name == "_OTHER"
    assert len(span.attributes["jsonrpc.request.id"]) == 256


def test_headers_of_a_trace_reach_a_process_on_stdio_also_without_telemetry() -> None:
    assert not telemetry.enabled()
    message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    scope = {"headers": [(b"traceparent", PARENT.encode()), (b"tracestate", b"a=b")]}
    assert tracing.joined(message, scope)["params"]["_meta"] == {"traceparent": PARENT, "tracestate": "a=b"}
    own = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "ping",
        "params": {"_meta": {"traceparent": PARENT.replace("b7", "c7")}},
    }
    assert tracing.joined(own, scope) is own
    for wrong in (b"nonsense", b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", PARENT.upper().encode()):
        assert tracing.joined(message, {"headers": [(b"traceparent", wrong)]}) is message


def test_off_is_off() -> None:
    program = (
        "import sys, attestable_mcp.telemetry as t, attestable_mcp.cli.connect, attestable_mcp.tls.spans\n"
        "assert not t.enabled()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')], 'imported'\n"
        "steps = iter(())\n"
        "assert attestable_mcp.tls.spans.traced(steps, None) is steps\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
    assert isinstance(tracing.host_trace(), tracing.NoTrace)
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200))
    assert tracing.carrying(transport) is transport
