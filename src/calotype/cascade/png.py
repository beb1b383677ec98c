"""PNG files that carry how they were made, and the recipes of images in any format of ours.

The full recipe is JSON in a text chunk named "calotype"; the chunk named "parameters" and the XMP
packet are what other programs read; see `provenance`.
"""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from calotype.cascade.provenance import (
    MOST_RECIPE_BYTES,
    parameters_text,
    recipe_in_xmp,
    recipe_json,
    xmp_packet,
)
from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import write_file
from calotype.storage.reading import open_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEY = "calotype"
_MOST_FILE_BYTES = 2**28  # of a JPEG or WebP, which Pillow may read whole


def write_png(
    path: Path, pixels: np.ndarray, recipe: Mapping[str, Any] | None = None, *, replace: bool = True
) -> None:
    """Write `pixels`, (H, W, 3 or 4) uint8, with the recipe, if any, all or nothing.

    Raises:
        CalotypeError: the file cannot be written.
        FileExistsError: something is there and may not be replaced.
    """
    write_file(path, encode_png(pixels, recipe), replace=replace)


def encode_png(pixels: np.ndarray, recipe: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a PNG of `pixels`, (H, W, 3 or 4) uint8, with the recipe of a single image."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if recipe is not None:
        info.add_text(_KEY, recipe_json(recipe))
        info.add_itxt("XML:com.adobe.xmp", xmp_packet(recipe).decode())
        text = parameters_text(recipe)
        if text.isascii():
            info.add_text("parameters", text)
        else:
            info.add_itxt("parameters", text)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", pnginfo=info, compress_level=4)
    return buffer.getvalue()


def read_recipe(path: Path) -> dict[str, Any]:
    """The recipe an image carries.

    Raises:
        UsageError: the file cannot be read, is no PNG, JPEG or WebP, or carries no recipe.
        CalotypeError: the file is damaged.
    """
    try:
        with open_regular(path) as file:
            return recipe_in(file, str(path))
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name an image of calotype") from error


def recipe_in(file: BinaryIO, name: str) -> dict[str, Any]:
    """As `read_recipe`, of an open file that messages call `name`."""
    start = file.read(12)
    if start.startswith(_SIGNATURE):
        file.seek(len(_SIGNATURE))
        for body in _text_chunks(file, name):
            key, _, text = body.partition(b"\0")
            if key == _KEY.encode():
                return _parse(text, name)
    elif start.startswith(b"\xff\xd8\xff") or (start[:4], start[8:]) == (b"RIFF", b"WEBP"):
        if (noted := recipe_in_xmp(_xmp_in(file, name))) is not None:
            return _parse(noted.encode("utf-8", "replace"), name)
    else:
        raise UsageError(f"{name} is not a PNG, JPEG or WebP; expected an image made by calotype")
    raise UsageError(f"{name} carries no recipe; expected an image as calotype wrote it")


def _xmp_in(file: BinaryIO, name: str) -> bytes:
    """The XMP packet of a JPEG or WebP; empty = none."""
    from PIL import Image

    if file.seek(0, os.SEEK_END) > _MOST_FILE_BYTES:
        raise UsageError(f"{name} has more than {_MOST_FILE_BYTES:,} bytes; expected a smaller one")
    file.seek(0)
    try:
        with warnings.catch_warnings():  # of sizes: no pixel is decoded here
            warnings.simplefilter("ignore")
            with Image.open(file, formats=("JPEG", "WEBP")) as image:
                packet = image.info.get("xmp", b"")
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        raise CalotypeError(f"{name} is damaged ({error}); use another copy") from error
    return packet if isinstance(packet, bytes) else b""


def noted(path: Path, what: str) -> str:
    """The "caption" or "class" in an image that calotype sampled; "" = none, as in any other."""
    try:
        text = read_recipe(path).get(what, "")
    except CalotypeError:
        return ""
    return text if isinstance(text, str) else ""


def _parse(text: bytes, name: str) -> dict[str, Any]:
    try:
        recipe = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise CalotypeError(f"the recipe in {name} is damaged; use another copy")
    return cast(dict[str, Any], recipe)


def _text_chunks(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The bodies of a PNG's tEXt chunks; what else it holds is passed over, however large."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind != b"tEXt":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        body = file.read(length) if length <= MOST_RECIPE_BYTES + 2**10 else b""
        if len(body) < length or zlib.crc32(kind + body) != int.from_bytes(file.read(4), "big"):
            raise CalotypeError(f"{name} is damaged (chunk {kind!r}); use another copy")
        yield body
