"""Lists of COCO's captions: ours saved as a table, others' read in the forms they come in.

Others publish a file of image ids or files' names (one a line), of captions (one a line), or a
table with both.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from calotype.errors import UsageError
from calotype.evaluation.suites.contents import field_of, read_contents
from calotype.evaluation.suites.suite import Suite, id_hash
from calotype.storage.files import write_file

# Where there is an image_id, id is the caption's.
_IMAGE = (
    "image_id",
    "coco_id",
    "file_name",
    "image",
    "id",
)
_CAPTION = ("caption", "captions", "prompt", "text")
_FILE = re.compile(r"(?:COCO_\w+_)?0*(\d+)(?:\.jpe?g|\.png)?", re.IGNORECASE)


@dataclass(frozen=True)
class Listed:
    """A list of different images.

    Args:
        images: ids in the list's order.
        captions: by image id, where the list has them.
        how: what the list is, for `Suite.choices`.
    """

    images: tuple[str, ...]
    captions: Mapping[str, str]
    how: str


def save_list(suite: Suite, path: Path) -> None:
    """Write a suite of COCO's captions as a table that `read_list` reads.

    Raises:
        CalotypeError: it cannot be written.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("image_id", "file_name", "caption"))
    table.writerows((one.id, one.facts.get("image", ""), one.caption) for one in suite.prompts)
    write_file(path, text.getvalue().encode())


def read_list(path: Path, known: Mapping[str, Mapping[str, str]]) -> Listed:
    """Another's list.

    Args:
        path: of the list.
        known: COCO's captions by image id and caption id.

    Raises:
        UsageError: an image or a caption that COCO's annotations lack, or an image twice.
    """
    contents = read_contents(path)
    header = contents.text.partition("\n")[0].strip("\r")
    names = dict.fromkeys(next(csv.reader([header]), []))
    image, caption = field_of(names, _IMAGE), field_of(names, _CAPTION)
    captions: dict[str, str] = {}
    if image is not None:
        try:
            rows = list(csv.DictReader(io.StringIO(contents.text, newline=""), strict=True))
        except csv.Error as error:
            raise UsageError(f"{path} is no table: {error}") from error
        ids = [_image_id(row[image] or "", path) for row in rows]
        if caption is not None:
            captions = {i: (row[caption] or "").strip() for i, row in zip(ids, rows, strict=True)}
    else:
        lines = [line.strip() for line in contents.text.split("\n") if line.strip()]
        if lines and all(_FILE.fullmatch(line) for line in lines):
            ids = [_image_id(line, path) for line in lines]
        else:
            captions = _images_of(lines, known, path)
            ids = list(captions)
    _check(ids, known, path)
    return Listed(
        tuple(ids), captions, f"as listed in {path.name} (SHA-256 {contents.sha256[:16]})"
    )


def _image_id(text: str, path: Path) -> str:
    found = _FILE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{path}: got the image {text[:80]!r}; expected COCO's id or file's name")
    return found[1]


def _images_of(
    lines: Iterable[str], known: Mapping[str, Mapping[str, str]], path: Path
) -> dict[str, str]:
    """An image of its own for each caption: of several that have it, the first by hash."""
    images: dict[str, list[str]] = {}
    for image in sorted(known, key=id_hash, reverse=True):
        for caption in set(known[image].values()):
            images.setdefault(caption, []).append(image)
    found: dict[str, str] = {}
    for line in lines:
        left = images.get(line, [])
        while left and left[-1] in found:
            left.pop()
        if not left:
            raise UsageError(
                f"{path}: got the caption {line[:80]!r}, which no image that is left has; expected "
                "captions of different images, as COCO writes them"
            )
        found[left.pop()] = line
    return found


def _check(ids: list[str], known: Mapping[str, object], path: Path) -> None:
    if not ids:
        raise UsageError(f"{path} lists no images; expected COCO's ids, or captions")
    if len(set(ids)) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise UsageError(f"{path}: got image {twice} twice; expected different images")
    if missing := [one for one in ids if one not in known]:
        raise UsageError(
            f"{path}: got {len(missing):,} images without captions in the annotations, the first "
            f"is {missing[0]}; expected images of the same set"
        )
