"""Files made small: thumbnails of images, and previews for those who want no large ones."""

from __future__ import annotations

import asyncio
import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import replace

from PIL import Image

from calotype.serving.front.jobs import Event

THUMBNAIL_SIDE = 256
_QUALITY = 80


def webp(data: bytes, side: int) -> tuple[bytes, int, int]:
    """An image as WebP whose longer side is at most `side`, with its width and height."""
    with Image.open(io.BytesIO(data)) as opened:
        opened.draft("RGB", (side, side))
        image = opened.convert("RGBA" if opened.has_transparency_data else "RGB")
    image.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY)
    return out.getvalue(), image.width, image.height


async def smaller(event: Event, side: int) -> Event:
    """A preview whose longer side is at most `side`; any other event as it is."""
    data, blob = event.data, event.blob
    if event.kind != "preview" or blob is None or max(data["width"], data["height"]) <= side:
        return event
    file, width, height = await asyncio.to_thread(webp, blob, side)
    size = {"width": width, "height": height, "format": "webp"}
    return replace(event, data={**data, **size}, blob=file)


class Thumbnails:
    """Thumbnails in memory; those that were looked at longest ago go.

    Args:
        most_bytes: of all.
        at_once: of those that are made.
    """

    def __init__(self, most_bytes: int = 64 * 2**20, at_once: int = 2) -> None:
        self._most = most_bytes
        self._size = 0
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._turns = asyncio.Semaphore(at_once)

    async def get(self, image_id: str, read: Callable[[], Awaitable[bytes]]) -> bytes:
        """The thumbnail of an image, made of what `read` returns where it is not there yet."""
        found = self._made.get(image_id)
        if found is None:
            async with self._turns:
                found = (await asyncio.to_thread(webp, await read(), THUMBNAIL_SIDE))[0]
            self._put(image_id, found)
        self._made.move_to_end(image_id)
        return found

    def _put(self, image_id: str, data: bytes) -> None:
        self._size += len(data) - len(self._made.pop(image_id, b""))
        self._made[image_id] = data
        while self._size > self._most and len(self._made) > 1:
            self._size -= len(self._made.popitem(last=False)[1])
