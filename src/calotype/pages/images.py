"""Images inside a page, as data URIs, scaled down where they are large."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class PageImage:
    """An image of a page: its data URI and its size in pixels."""

    uri: str
    width: int
    height: int


def data_uri(data: bytes, kind: str) -> str:
    """The bytes of an image file in an address; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def page_image(data: bytes, *, kept_bytes: int, side: int) -> PageImage | None:
    """An image as it is where its file is small, else a smaller JPEG of it.

    Args:
        data: a PNG or JPEG file.
        kept_bytes: files of at most so many bytes are kept as they are.
        side: the longer side of a smaller one in pixels, at most.

    Returns:
        None if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            kind, size = str(image.format).lower(), image.size
            if len(data) <= kept_bytes:
                image.verify()
            else:
                small = image.convert("RGB")
                small.thumbnail((side, side), Image.Resampling.LANCZOS)
                stream = io.BytesIO()
                small.save(stream, "JPEG", quality=85)
                kind, data, size = "jpeg", stream.getvalue(), small.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return PageImage(data_uri(data, kind), *size)
