"""Traces: where the time of an image went, below the request that asked for it."""

from itertools import pairwise

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.requests import Request
from starlette.testclient import TestClient

from calotype.errors import MissingExtra
from calotype.serving.front.app import build_app
from calotype.serving.front.context import hub_of, owner_of
from calotype.serving.front.observer import Observer
from calotype.serving.front.tracing import Tracing, export_traces


def test_a_request_its_wait_its_stages_and_its_encoding(fake, submission) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = build_app(fake(), None, Observer(tracing=Tracing(provider)))

    @app.get("/test/make")
    async def make(request: Request):
        hub = hub_of(request)
        asked = submission("a fox", request={"size": (256, 256)}, owner=owner_of(request))
        job = await hub.submit(asked)
        return [event.kind async for event in hub.events(job)][-1]

    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with TestClient(app) as client:
        client.get("/healthz")  # nobody traces these
        client.get("/test/make", headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert set(spans) == {"GET /test/make", "wait", "stage 64", "stage 256", "encoding"}
    request = spans.pop("GET /test/make")
    assert f"{request.context.trace_id:032x}" == trace
    assert request.attributes["http.response.status_code"] == 200
    for span in spans.values():
        assert span.parent.span_id == request.context.span_id
    ordered = [spans[name] for name in ("wait", "stage 64", "stage 256", "encoding")]
    for one, after in pairwise(ordered):
        assert one.start_time <= one.end_time == after.start_time


def test_a_missing_exporter_is_named(monkeypatch) -> None:
    import sys

    import pytest

    export_traces()  # nobody asks for it: nothing is needed
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(MissingExtra, match=r"calotype\[otel\]"):
        export_traces()
