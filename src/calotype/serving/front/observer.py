"""What is to be seen of a running server: numbers for Prometheus, and a log."""

from __future__ import annotations

import time
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from calotype.serving.front.engine import Engine
from calotype.serving.front.jobs import Job, JobImage
from calotype.serving.front.logs import make_log
from calotype.serving.front.tracing import Tracing

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_CALL = ("model", "resolution")


class Observer:
    """Counts and tells what happens; nothing depends on it.

    Args:
        log: of structlog; None = nobody reads it.
        log_prompts: captions may be in the log.
        tracing: of requests and images; None = for the process's own provider.

    Attributes:
        registry: what `/metrics` shows; each server has its own.
        log: where events are told.
        tracing: told of the same events.
    """

    def __init__(
        self, log: Any = None, *, log_prompts: bool = False, tracing: Tracing | None = None
    ) -> None:
        self.registry = CollectorRegistry()
        self.log = make_log(None) if log is None else log
        self.tracing = Tracing() if tracing is None else tracing
        self._log_prompts = log_prompts
        self._define_numbers()
        ProcessCollector(namespace="calotype_front", registry=self.registry)

    def _define_numbers(self) -> None:
        own = {"registry": self.registry, "namespace": "calotype"}
        self._requests = Counter(
            "requests", "Requests that were answered.", ("method", "route", "status"), **own
        )
        self._request_seconds = Histogram(
            "request_seconds", "From a request to its answer's end.", ("route",), **own,
            buckets=_SECONDS,
        )  # fmt: skip
        self._wait_seconds = Histogram(
            "wait_seconds", "From a job's coming to its images' start.", **own, buckets=_SECONDS
        )
        self._step_seconds = Histogram(
            "step_seconds", "Of network calls.", _CALL, **own, buckets=_SECONDS
        )
        self._rows = Histogram("batch_rows", "Of network calls.", _CALL, **own, buckets=_ROWS)
        self._images = Counter("images", "Images that are over.", ("api", "outcome"), **own)
        self._restarts = Counter("engine_restarts", "Engines that ended.", **own)
        self._engine_bytes = Gauge(
            "engine_resident_memory_bytes", "Of an engine.", ("engine",), **own
        )
        self._waiting = Gauge("images_waiting", "Images that no engine has.", **own)
        self._active = Gauge("images_active", "Images that engines have.", **own)
        self._keeping = Gauge("keeping", "1 = the disk takes images.", **own)
        self._keeping.set(1)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)
        self.log.info(
            "request", method=method, route=route, status=status, seconds=round(seconds, 4)
        )

    def queued(self, job: Job) -> None:
        """A job was taken."""
        self.tracing.queued(job)
        asked = job.request
        told = {"kind": asked.kind, "n": asked.n, "model": job.plan.get("model"), "api": job.api}
        if self._log_prompts:
            told |= {"prompt": asked.prompt, "negative_prompt": asked.negative_prompt}
        self._tell("queued", job, size=job.plan.get("size"), **told)

    def started(self, job: Job, image: JobImage) -> None:
        """An engine got an image."""
        self.tracing.started(job, image)
        if image.starts == 1:
            self._wait_seconds.observe(max(time.time() - job.created, 0.0))

    def image_over(self, job: Job, image: JobImage) -> None:
        """An image is done, failed, cancelled or interrupted."""
        self.tracing.image_over(job, image)
        self._images.labels(job.api, image.state).inc()
        if image.error is not None:
            message, kind = image.error
            self._tell("image failed", job, image=image.index, kind=kind, message=message)

    def job_over(self, job: Job) -> None:
        """All images of a job are over."""
        self.tracing.job_over(job)
        seconds = (job.ended or time.time()) - job.created
        self._tell("over", job, state=job.state, seconds=round(seconds, 3))

    def call(self, head: dict[str, Any]) -> None:
        """A network call was made."""
        labels = head["model"], str(head["resolution"])
        self._step_seconds.labels(*labels).observe(head["seconds"])
        self._rows.labels(*labels).observe(head["rows"])

    def stats(self, engine: Engine, head: dict[str, Any]) -> None:
        """What an engine says of itself."""
        self._engine_bytes.labels(engine.name).set(head["rss"])

    def engine_ready(self, engine: Engine) -> None:
        """It can be given work."""
        self.log.info("engine ready", engine=engine.name, pid=engine.pid)

    def engine_died(self, engine: Engine, reason: str, images: int) -> None:
        """It ended, with so many images in it."""
        self._restarts.inc()
        self._engine_bytes.labels(engine.name).set(0)
        self.log.warning("engine ended", engine=engine.name, reason=reason, images=images)

    def load(self, waiting: int, active: int) -> None:
        """Images in the queue, and in engines."""
        self._waiting.set(waiting)
        self._active.set(active)

    def keeping(self, is_keeping: bool, why_not: str) -> None:
        """Whether the disk takes what is given to it; told when it changes."""
        self._keeping.set(int(is_keeping))
        if is_keeping:
            self.log.info("keeping images again")
        else:
            self.log.warning("images are not kept", reason=why_not)

    def not_written(self, job: Job, error: Exception) -> None:
        """Something of a job could not be noted down, for a reason that is no disk's."""
        self.log.error(
            "not written", job=job.id, request_id=job.submission.request_id, exc_info=error
        )

    def _tell(self, event: str, job: Job, **facts: Any) -> None:
        self.log.info(event, job=job.id, request_id=job.submission.request_id, **facts)
