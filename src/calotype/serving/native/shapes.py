"""Jobs, images and events as the JSON of this API."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from calotype.serving.front.jobs import Event, Job, JobImage

ROOT = "/api/v1"


def seed_fields(seed: int) -> dict[str, Any]:
    """A seed as a number, and as text: JavaScript rounds numbers beyond 2^53."""
    return {"seed": seed, "seed_text": str(seed)}


def image_links(image_id: str) -> dict[str, str]:
    """Where an image's file, thumbnail and recipe are."""
    at = f"{ROOT}/images/{image_id}"
    return {"url": f"{at}/file", "thumbnail": f"{at}/thumbnail", "recipe_url": f"{at}/recipe"}


def time_text(seconds: float | None) -> str | None:
    """A time since 1970 as ISO 8601."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def job_fields(job: Job) -> dict[str, Any]:
    """A job as it is now."""
    request = job.request
    first = job.images[0].seed
    asked = request.model_dump(mode="json", exclude_none=True)
    return {
        "id": job.id,
        "state": job.state,
        "position": job.position,
        "eta_seconds": job.eta_seconds,
        "created": time_text(job.created),
        "ended": time_text(job.ended),
        "api": job.api,
        "plan": dict(job.plan),
        "request": {**asked, **seed_fields(first)},
        "images": [_image_fields(image) for image in job.images],
    }


def _image_fields(image: JobImage) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": image.id,
        "index": image.index,
        **seed_fields(image.seed),
        "state": image.state,
        "progress": image.fraction,
    }
    if image.state == "done":
        found |= {"width": image.width, "height": image.height, **image_links(image.id)}
    if image.error is not None:
        found["error"] = {"message": image.error[0], "kind": image.error[1]}
    return found


def event_fields(event: Event) -> dict[str, Any]:
    """The data of an event; a preview carries its file, an image says where it is."""
    data = dict(event.data)
    if event.kind == "preview" and event.blob is not None:
        text = base64.b64encode(event.blob).decode()
        data["src"] = f"data:image/{data.pop('format')};base64,{text}"
    elif event.kind == "image":
        data |= {**seed_fields(data["seed"]), **image_links(data["id"])}
    return data
