"""Answers: images as JSON or as events of a stream, with every field that OpenAI's clients know."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.sse import format_sse_event

from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import JobImage
from calotype.serving.openai.meaning import Meaning

DONE = format_sse_event(data_str="[DONE]")
USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
"""Nothing is counted in tokens here, and nothing costs anything."""


@dataclass(frozen=True)
class Shape:
    """How the images of a request are answered.

    Attributes:
        meaning: of the request.
        event: what its events begin with: "image_generation" or "image_edit".
        as_links: links to the images, not their files.
    """

    meaning: Meaning
    event: str = "image_generation"
    as_links: bool = False

    @property
    def _about(self) -> dict[str, Any]:
        request = self.meaning.request
        quality = self.meaning.quality
        return {"background": "opaque", "output_format": request.format, "quality": quality}

    def body(
        self, images: Sequence[JobImage], data: Sequence[bytes], errors: Sequence[Any] = ()
    ) -> bytes:
        """The answer without a stream.

        Args:
            images: that are finished.
            data: an entry of each, as JSON: all at once would hold up everybody else.
            errors: of those that are not.
        """
        fields = {
            "created": int(time.time()),
            **self._about,
            "size": f"{images[0].width}x{images[0].height}",
            "usage": USAGE,
            **({"errors": errors} if errors else {}),
        }
        rest = json.dumps(fields).encode()
        return b'{"data": [' + b", ".join(data) + b"], " + rest[1:]

    def partial(self, data: Mapping[str, Any], blob: bytes) -> bytes:
        """The event of a preview."""
        size = data["width"], data["height"]
        more = {"partial_image_index": data["index"], "image_index": data["image"]}
        return self._event("partial_image", blob, size, more)

    def completed(self, image: JobImage, blob: bytes) -> bytes:
        """The event of a finished image."""
        more = {"usage": USAGE, "image_index": image.index, "seed": str(image.seed)}
        return self._event("completed", blob, (image.width, image.height), more)

    def _event(
        self, name: str, blob: bytes, size: tuple[int, int], more: Mapping[str, Any]
    ) -> bytes:
        kind = f"{self.event}.{name}"
        fields = {
            "type": kind,
            "b64_json": text_of(blob),
            "created_at": int(time.time()),
            **self._about,
            "size": f"{size[0]}x{size[1]}",
            **more,
        }
        return _event(kind, fields)


def text_of(blob: bytes) -> str:
    """A file as base64."""
    return base64.b64encode(blob).decode()


def error_event(error: ApiError) -> bytes:
    """An error where the answer has begun already."""
    return _event("error", error.body())


def _event(kind: str, fields: Mapping[str, Any]) -> bytes:
    event: bytes = format_sse_event(event=kind, data_str=json.dumps(fields))
    return event
