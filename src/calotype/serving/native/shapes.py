"""Jobs, images and events as the JSON of this API."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from calotype.serving.front.jobs import Event, Job, JobImage
from calotype.serving.front.rows import KeptImage

ROOT = "/api/v1"


class Json(Response):
    """Any JSON, as ASCII: what files of anybody say may hold characters that are none."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Numbers that are none, such as infinity, become null; so does what nests too deep."""
        try:
            finite = json.loads(json.dumps(content), parse_constant=lambda _: None)
        except RecursionError:
            finite = None
        return json.dumps(finite, separators=(",", ":")).encode()


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


def request_fields(request: dict[str, Any]) -> dict[str, Any]:
    """Fields of a request with its seed as text, too: they may be sent as they are."""
    return {**request, **(seed_fields(request["seed"]) if "seed" in request else {})}


def image_fields(image: KeptImage) -> dict[str, Any]:
    """An image of the library."""
    return {
        "id": image.id,
        "created": time_text(image.created),
        "prompt": image.prompt,
        **seed_fields(image.seed),
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "format": image.format,
        "model": image.model,
        "kind": image.kind,
        "favourite": image.favourite,
        "job": image.job,
        **image_links(image.id),
    }


def job_fields(job: Job) -> dict[str, Any]:
    """A job as it is now."""
    asked = job.request.model_dump(mode="json", exclude_none=True)
    return {
        "id": job.id,
        "state": job.state,
        "position": job.position,
        "eta_seconds": job.eta_seconds,
        "warning": job.warning,
        "created": time_text(job.created),
        "ended": time_text(job.ended),
        "api": job.api,
        "plan": dict(job.plan),
        "request": request_fields({**asked, "seed": job.images[0].seed}),
        "images": [_job_image(image) for image in job.images],
    }


def _job_image(image: JobImage) -> dict[str, Any]:
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
