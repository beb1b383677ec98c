"""An image on its way through the queue and an engine, and what the engine is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from calotype.serving.front.engine import Engine
from calotype.serving.front.jobs import Job, JobImage


@dataclass(eq=False)
class Unit:
    """An image on its way, and the engine that has it; None = it waits."""

    job: Job
    image: JobImage
    engine: Engine | None = None

    def start(self) -> dict[str, Any]:
        """The head of the frame that starts it; one that was in an engine's end is alone."""
        asked, image = self.job.submission, self.image
        source, mask = asked.source, asked.mask
        size = asked.preview_size
        if asked.previews == "partial" and asked.preview_side is None and size is None:
            size = self.job.plan.get("size")
        return {
            "op": "start",
            "id": image.id,
            "request": asked.request.model_dump(mode="json"),
            "seed": image.seed,
            "source": None if source is None else [source.width, source.height],
            "mask": None if mask is None else [mask.width, mask.height],
            "source_sha256": None if source is None else source.sha256,
            "mask_sha256": None if mask is None else mask.sha256,
            "previews": asked.previews,
            "preview_size": size,
            "preview_side": asked.preview_side,
            "preview_format": asked.preview_format,
            "alone": bool(image.deaths) or asked.request.exact,
        }

    def blobs(self) -> list[bytes]:
        """What goes behind it."""
        source, mask = self.job.submission.source, self.job.submission.mask
        return ([] if source is None else [source.rgba]) + ([] if mask is None else [mask.values])
