"""What the front orders: one image of a job, with its source and mask as plain pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from calotype.errors import CalotypeError
from calotype.serving.job import Format, JobRequest
from calotype.serving.wire import Message

Previews = Literal["none", "steps", "partial"]
_PREVIEW_SIDE = 256


@dataclass(frozen=True)
class Looks:
    """Which previews of an image are shown, and how.

    Args:
        when: at every step, at the few that `partial_images` of OpenAI's API means, or never.
        size: height and width, enlarged if need be; None = as large as it is, up to `side`.
        side: most pixels of the longer side.
        format: of the files.
    """

    when: Previews = "none"
    size: tuple[int, int] | None = None
    side: int = _PREVIEW_SIDE
    format: Format = "png"


@dataclass(frozen=True)
class Order:
    """One image.

    Args:
        id: what both sides call it.
        request: of its job.
        seed: its own.
        source: what is edited or enlarged, (H, W, 4) uint8.
        mask: 255 = change here, (H, W) uint8.
        source_sha256: of the file.
        mask_sha256: of the file.
        looks: previews.
        alone: never joined with others; also where the request says `exact`.
    """

    id: Any
    request: JobRequest
    seed: int
    source: np.ndarray | None = None
    mask: np.ndarray | None = None
    source_sha256: str = ""
    mask_sha256: str = ""
    looks: Looks = Looks()
    alone: bool = False


def read_order(message: Message) -> Order:
    """The image that a `start` frame orders.

    Raises:
        CalotypeError: the frame is not as the protocol says.
        ValueError: so is the request.
    """
    head, blobs = message.head, list(message.blobs)
    source = _pixels(head.get("source"), blobs, channels=4)
    mask = _pixels(head.get("mask"), blobs, channels=1)
    if source is None and mask is not None:
        raise CalotypeError("got a mask without a source; expected both")
    request = JobRequest.model_validate(head["request"])
    size = head.get("preview_size")
    side = head.get("preview_side")
    looks = Looks(
        when=cast(Previews, head.get("previews", "none")),
        size=None if size is None else (int(size[1]), int(size[0])),
        side=_PREVIEW_SIDE if side is None else int(side),
        format=head.get("preview_format") or "png",
    )
    return Order(
        id=head["id"],
        request=request,
        seed=int(head["seed"]),
        source=source,
        mask=mask,
        source_sha256=head.get("source_sha256") or "",
        mask_sha256=head.get("mask_sha256") or "",
        looks=looks,
        alone=bool(head.get("alone")) or request.exact,
    )


def _pixels(size: Any, blobs: list[bytes], *, channels: int) -> np.ndarray | None:
    if size is None:
        return None
    width, height = size
    blob = blobs.pop(0) if blobs else b""
    if len(blob) != width * height * channels:
        raise CalotypeError(
            f"got {len(blob):,} bytes for {width}x{height} pixels of {channels} bytes each"
        )
    pixels = np.frombuffer(blob, np.uint8)
    return pixels.reshape((height, width) if channels == 1 else (height, width, channels))
