"""The process in which an upload is decoded: it may die of one, and nothing else does.

`python -m calotype.serving.front.decoding` reads a file from standard input to its end and answers
with one frame of `wire`: the pixels, and what is written in the file; or what is wrong with it.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from typing import Any

from PIL import Image, ImageCms, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin

from calotype.cascade.image_files import rgba_of
from calotype.cascade.png import recipe_in
from calotype.cascade.provenance import parameters_in
from calotype.errors import CalotypeError
from calotype.serving import wire

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 16 * 2**20
MOST_MEMORY = 640 * 2**20
"""Bytes of data; the largest images of any format take about two thirds of it."""
MOST_CPU_SECONDS = 20
_MOST_TEXT = 4 * 2**20  # bytes of a recipe or a text, as JSON
# What is to be imported before the limits hold.
_ = (ImageCms, JpegImagePlugin, MpoImagePlugin, PngImagePlugin, WebPImagePlugin)


def limit() -> None:
    """Bound what this process may use, for good: it writes no file, and starts none but as root."""
    for what, most in (
        (resource.RLIMIT_DATA, MOST_MEMORY),
        (resource.RLIMIT_CPU, MOST_CPU_SECONDS),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(what, (most, most))


def decoded(data: bytes, role: str) -> tuple[dict[str, Any], bytes]:
    """A file's size, recipe and `parameters` text, and its pixels as RGBA, upright.

    Colours become sRGB, but those of a mask, which are numbers.

    Raises:
        UsageError: it is no such image, or has too many pixels.
    """
    name = f"the {role}"
    pixels = rgba_of(
        data,
        name,
        most_pixels=MOST_PIXELS,
        still=True,
        to_srgb=role != "mask",
        formats=FORMATS,
    )
    height, width = pixels.shape[:2]
    head = {"width": width, "height": height, **_told(data, name)}
    return head, pixels.tobytes()


def _told(data: bytes, name: str) -> dict[str, Any]:
    """What the file says of how it was made; what is damaged or absurdly long is not passed on."""
    found: dict[str, Any] = {"recipe": None, "parameters": None}
    try:
        found["recipe"] = recipe_in(io.BytesIO(data), name)
    except (CalotypeError, ValueError):
        pass
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            found["parameters"] = parameters_in(image)
    except Exception:  # decoders raise nearly anything on hostile bytes
        pass
    return {key: _clean(one) for key, one in found.items()}


def _clean(value: Any) -> Any:
    """The value if it is short and JSON that any program reads; lone surrogates become "?"."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        return json.loads(text) if len(text) <= _MOST_TEXT else None
    except (ValueError, RecursionError):
        return None


def main() -> None:
    """Answer for the file on standard input; the first argument is its role."""
    limit()
    role = sys.argv[1]
    try:
        head, pixels = decoded(sys.stdin.buffer.read(), role)
        answer = wire.encode({"op": "decoded", **head}, [pixels])
    except CalotypeError as error:
        answer = wire.encode({"op": "refused", "message": str(error)})
    except MemoryError:
        answer = wire.encode({"op": "refused", "message": f"the {role} takes too much memory"})
    for piece in answer:
        sys.stdout.buffer.write(piece)
    sys.stdout.flush()
    os._exit(0)  # nothing is left to be done that is worth waiting for


if __name__ == "__main__":
    main()
