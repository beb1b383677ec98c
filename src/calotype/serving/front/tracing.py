"""Traces by OpenTelemetry, where it is installed: a request, its images' wait, stages and encoding.

Spans are told to whatever tracer provider the process has; `export_traces` makes one that sends
them where the environment says (OTEL_EXPORTER_OTLP_ENDPOINT).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from calotype.errors import MissingExtra
from calotype.serving.front.jobs import Job, JobImage

_NAME = "calotype.serving"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def export_traces() -> None:
    """Send traces where the environment says; nothing where it says nothing.

    Raises:
        MissingExtra: it says so, but the packages are missing.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtra("otel", error.name or "opentelemetry") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "calotype"}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@dataclass
class _Traced:
    """Where the time of an image goes, in ns since 1970; spans are made when they end."""

    since: int
    place: tuple[int, int] | None = None
    last_step: int = 0


class Tracing:
    """Spans of requests and of their images.

    Args:
        provider: of tracers; None = the process's.
    """

    def __init__(self, provider: Any = None) -> None:
        self._trace: Any = None
        with suppress(ImportError):
            from opentelemetry import context, propagate, trace

            self._trace, self._context, self._propagate = trace, context, propagate
            self._tracer = trace.get_tracer(_NAME, tracer_provider=provider)
        self._jobs: dict[str, Any] = {}
        self._images: dict[str, _Traced] = {}

    @contextmanager
    def request(self, method: str, headers: dict[str, str]) -> Iterator[Any]:
        """A span round a request, within the client's trace; None where nobody traces."""
        if self._trace is None:
            yield None
            return
        theirs = self._propagate.extract(headers)
        server = self._trace.SpanKind.SERVER
        with self._tracer.start_as_current_span(method, context=theirs, kind=server) as span:
            span.set_attribute("http.request.method", method)
            yield span

    @staticmethod
    def answered(span: Any, method: str, route: str, status: int) -> None:
        """What came of a request."""
        if span is not None:
            span.update_name(f"{method} {route}")
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)

    def queued(self, job: Job) -> None:
        """A job was taken: what becomes of it belongs to the request that is being answered."""
        if self._trace is not None:
            self._jobs[job.id] = self._context.get_current()

    def started(self, job: Job, image: JobImage) -> None:
        """An engine got an image: its wait is over."""
        if job.id in self._jobs:
            now = time.time_ns()
            self._span(job, image, "wait", int(job.created * 1e9), now)
            self._images[image.id] = _Traced(now)

    def step(self, job: Job, image: JobImage, stage: int, resolution: int) -> None:
        """A step of an image was done."""
        traced = self._images.get(image.id)
        if traced is None:
            return
        place = stage, resolution
        if traced.place is not None and traced.place != place:
            self._end_stage(job, image, traced)
        traced.place = place
        traced.last_step = time.time_ns()

    def image_over(self, job: Job, image: JobImage) -> None:
        """An image is over; after its last step it was encoded."""
        traced = self._images.pop(image.id, None)
        if traced is None or traced.place is None:
            return
        self._end_stage(job, image, traced)
        if image.state == "done":
            self._span(job, image, "encoding", traced.since, time.time_ns())

    def job_over(self, job: Job) -> None:
        """Nothing more comes of a job."""
        self._jobs.pop(job.id, None)

    def _end_stage(self, job: Job, image: JobImage, traced: _Traced) -> None:
        assert traced.place is not None
        self._span(job, image, f"stage {traced.place[1]}", traced.since, traced.last_step)
        traced.since = traced.last_step

    def _span(self, job: Job, image: JobImage, name: str, start: int, end: int) -> None:
        span = self._tracer.start_span(name, context=self._jobs.get(job.id), start_time=start)
        span.set_attribute("calotype.job", job.id)
        span.set_attribute("calotype.image", image.index)
        span.end(end)
