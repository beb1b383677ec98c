"""What a kill leaves in the store, mended: files without a row, rows without a file.

A file has its name from its image's id, so an image that was begun again never becomes two.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError
from calotype.serving.front.recall import request_of_recipe
from calotype.serving.front.rows import Rows
from calotype.storage.files import remove_leftovers

_ENDINGS = {"png": "png", "jpeg": "jpg", "webp": "webp"}
_FORMATS = {ending: kind for kind, ending in _ENDINGS.items()}
_ID = re.compile(r"[A-Za-z0-9_-]{22}")


def file_of(folder: Path, image_id: str, kind: str) -> Path:
    """Where an image's file lies in the store's folder."""
    return folder / "images" / _branch(image_id) / f"{image_id}.{_ENDINGS[kind]}"


def mend(rows: Rows, folder: Path) -> None:
    """Make files and rows agree; what a full disk does not take is left to the next server."""
    expected = rows.files()
    for path in _files(folder):
        if expected.pop(path.stem, None) is None:
            with suppress(sqlite3.OperationalError):
                _adopt(rows, path)
    for image_id in expected:  # their files are gone
        with suppress(sqlite3.OperationalError):
            rows.remove(image_id)


def _files(folder: Path) -> Iterator[Path]:
    """All files of images; what killed writers left is removed."""
    images = folder / "images"
    for branch in sorted(images.iterdir()) if images.is_dir() else ():
        remove_leftovers(branch, lambda name: True, stale_seconds=0)
        for path in sorted(branch.iterdir()):
            kind = _FORMATS.get(path.suffix[1:])
            if kind and _ID.fullmatch(path.stem) and path == file_of(folder, path.stem, kind):
                yield path


def _adopt(rows: Rows, path: Path) -> None:
    """Give a file its row: the one that waited for it, or one that its recipe tells."""
    read = _read(path)
    if read is None:
        return
    recipe, width, height = read
    values: dict[str, Any] = {"state": "done", "width": width, "height": height}
    values |= {"bytes": path.stat().st_size, "created": path.stat().st_mtime}
    values["recipe"] = None if recipe is None else json.dumps(recipe)
    if rows.image(path.stem) is not None:
        rows.change_image(path.stem, **values)
        return
    told = {} if recipe is None else request_of_recipe(recipe).fields
    if recipe is not None and {"prompt", "seed"} <= told.keys():
        model = recipe.get("model")
        name = model.get("name") if isinstance(model, dict) else None
        values |= {"model": name if isinstance(name, str) else None, "kind": told.get("kind")}
        values |= {"prompt": told["prompt"], "seed": told["seed"]}
        kind = _FORMATS[path.suffix[1:]]
        rows.add_image({"id": path.stem, "place": 0, "format": kind, **values})


def _read(path: Path) -> tuple[dict[str, Any] | None, int, int] | None:
    """Recipe, width and height of a file; None = it is no image."""
    from PIL import Image

    from calotype.cascade.png import read_recipe

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    try:
        return read_recipe(path), width, height
    except CalotypeError:
        return None, width, height


def _branch(image_id: str) -> str:
    """A folder for some of the images: two hexadecimal digits, the same on all file systems."""
    return f"{sum(image_id.encode()) % 256:02x}"
