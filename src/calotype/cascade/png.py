"""PNG files that carry how they were made.

The full recipe is JSON in a text chunk named "calotype"; the chunk named "parameters" holds the
text that other tools read (the format of AUTOMATIC1111's web UI).
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import write_file
from calotype.storage.reading import open_regular

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEY = "calotype"
# Readers such as Pillow refuse files with more than 64 MiB of text.
_MAX_RECIPE_BYTES = 48 * 2**20
_MAX_PARAMETERS_CHARACTERS = 100_000
_KEPT_CHARACTERS = 1_000_000


def write_png(
    path: Path, pixels: np.ndarray, recipe: Mapping[str, Any] | None = None, *, replace: bool = True
) -> None:
    """Write `pixels`, (H, W, 3) uint8, with the recipe, if any, all or nothing.

    Raises:
        CalotypeError: the file cannot be written.
        FileExistsError: something is there and may not be replaced.
    """
    write_file(path, encode_png(pixels, recipe), replace=replace)


def encode_png(pixels: np.ndarray, recipe: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a PNG of `pixels`, (H, W, 3) uint8, with the recipe of a single image."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    if recipe is not None:
        info.add_text(_KEY, _recipe_json(recipe))
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
        UsageError: the file cannot be read, is no PNG, or carries no recipe.
        CalotypeError: the file is damaged.
    """
    try:
        with open_regular(path) as file:
            if file.read(len(_SIGNATURE)) != _SIGNATURE:
                raise UsageError(f"{path} is not a PNG; expected an image made by calotype")
            for body in _text_chunks(file, path):
                key, _, text = body.partition(b"\0")
                if key == _KEY.encode():
                    return _parse(text, path)
    except UsageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"cannot read {path}: {reason}; name an image of calotype") from error
    raise UsageError(f"{path} carries no recipe; expected a PNG as calotype wrote it")


def noted_caption(path: Path) -> str:
    """The caption in an image that calotype sampled; else the null caption."""
    try:
        caption = read_recipe(path).get("caption", "")
    except CalotypeError:
        return ""
    return caption if isinstance(caption, str) else ""


def _parse(text: bytes, path: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(text.decode("ascii"))
    except (ValueError, RecursionError):
        recipe = None
    if not isinstance(recipe, dict):
        raise CalotypeError(f"the recipe in {path} is damaged; use another copy")
    return cast(dict[str, Any], recipe)


def _text_chunks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    """The bodies of a PNG's tEXt chunks; what else it holds is passed over, however large."""
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind != b"tEXt":
            file.seek(length + 4, os.SEEK_CUR)
            continue
        body = file.read(length) if length <= _MAX_RECIPE_BYTES + 2**10 else b""
        if len(body) < length or zlib.crc32(kind + body) != int.from_bytes(file.read(4), "big"):
            raise CalotypeError(f"{path} is damaged (chunk {kind!r}); use another copy")
        yield body


def _recipe_json(recipe: Mapping[str, Any]) -> str:
    # ASCII escapes keep NUL bytes and lone surrogates exactly.
    text = json.dumps(recipe, separators=(",", ":"))
    if len(text) <= _MAX_RECIPE_BYTES:
        return text
    cut = {k: v[:_KEPT_CHARACTERS] if isinstance(v, str) else v for k, v in recipe.items()}
    return json.dumps({**cut, "captions_cut": True}, separators=(",", ":"))


def parameters_text(recipe: Mapping[str, Any]) -> str:
    """The recipe of one image as `parameters` text: prompt, negative prompt, settings.

    Steps, sampler and guidance are those of the first stage.
    """
    stages = recipe.get("stages") or [{}]
    sampling = stages[0].get("sampling", {})
    model = recipe.get("model", {})
    settings = {
        "Steps": sampling.get("steps"),
        "Sampler": sampling.get("sampler"),
        "CFG scale": sampling.get("guidance_weight"),
        "Seed": recipe.get("seed"),
        "Size": f"{stages[-1].get('width')}x{stages[-1].get('height')}",
        "Model hash": str(model.get("weights", ""))[:10],
        "Model": model.get("name"),
        "Version": f"calotype {recipe.get('version')}",
    }
    lines = [_printable(str(recipe.get("caption", "")))]
    negative = _printable(str(recipe.get("negative_caption") or ""))
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{k}: {v}" for k, v in settings.items()))
    return "\n".join(lines)


def _printable(text: str) -> str:
    text = text[:_MAX_PARAMETERS_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", errors="replace").decode("utf-8")
