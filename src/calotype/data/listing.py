"""What lies in a folder: images, captions and metadata to use, and what is passed over, counted.

Folders that calotype itself wrote (runs, cascades, stores of embeddings) are not looked into: the
sheets of images in them are no data. Hidden files and folders are not counted.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from calotype.data.images import SUFFIXES
from calotype.data.metadata import METADATA_NAMES
from calotype.data.source import Found

CAPTION_SUFFIX = ".txt"
_SHARDS = MappingProxyType({".tar": "tar", ".parquet": "Parquet file"})
STORE_NAME = "embeddings"
"""Folder of the data in which `train` looks for their captions' embeddings."""

_STORE = "embedding store"
_RUN_TRACES = frozenset({"log.jsonl", "checkpoints", "grids"})


@dataclass
class Listing:
    """What lies in a folder and all below it; names are relative to it, with forward slashes.

    Args:
        images: names, sorted.
        metadata: metadata files, sorted.
        tars: those in the folder itself, sorted.
        captions: names of caption files by image, where they are not simply the image's with
            `.txt`.
        ignored: what is passed over, by kind.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[Path] = field(default_factory=list)
    tars: list[str] = field(default_factory=list)
    captions: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, Found] = field(default_factory=dict)

    def ignore(self, kind: str, name: str) -> None:
        """Count something that is passed over."""
        self.ignored.setdefault(kind, Found()).add(name)


def list_folder(root: Path) -> Listing:
    """Look through a folder; files are not opened."""
    listing = Listing()

    def unreadable(error: OSError) -> None:
        listing.ignore("unreadable folder", os.path.relpath(error.filename, root))

    for place, folders, files in os.walk(root, onerror=unreadable):
        folder = Path(place)
        within = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"
        kind = _own_kind(folders, files) if within else None
        if kind is not None:
            if not (kind == _STORE and within.startswith(f"{STORE_NAME}/")):  # that one is used
                listing.ignore(kind, within[:-1])
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in folders:
            if (folder / name).is_symlink():  # os.walk does not follow: it could go in circles
                listing.ignore("linked folder", within + name)
        _list_files(listing, folder, within, sorted(n for n in files if not n.startswith(".")))
    listing.images.sort()
    listing.metadata.sort()
    return listing


def _list_files(listing: Listing, folder: Path, within: str, names: Sequence[str]) -> None:
    """Sort the files of one folder into what they are."""
    captions: dict[str, str] = {}
    images: list[tuple[str, str]] = []
    for name in names:
        stem, suffix = os.path.splitext(name)
        kind = suffix.lower()
        if kind in SUFFIXES:
            images.append((stem, name))
        elif kind == CAPTION_SUFFIX:  # sorted: `.txt` comes after `.TXT`, and is taken
            captions[stem] = name
        elif name in METADATA_NAMES:
            listing.metadata.append(folder / name)
        elif kind == ".tar" and not within:
            listing.tars.append(name)
        else:
            listing.ignore(_SHARDS.get(kind, "unknown file"), _shown(within, name, kind))
    for stem, name in images:
        listing.images.append(within + name)
        if captions.get(stem, stem + CAPTION_SUFFIX) != stem + CAPTION_SUFFIX:
            listing.captions[within + name] = within + captions[stem]
    for stem in captions.keys() - {stem for stem, _ in images}:
        listing.ignore("unused caption", within + captions[stem])


def _shown(within: str, name: str, kind: str) -> str:
    """Of files of unknown kinds, the ending is enough to know them by."""
    return within + name if kind in _SHARDS or not kind else os.path.splitext(name)[1]


def _own_kind(folders: Sequence[str], files: Sequence[str]) -> str | None:
    """What of ours a folder with these is; None = none of ours.

    A recipe alone makes no run: people keep theirs beside their images.
    """
    if "cascade.json" in files:
        return "cascade"
    if "encoder.json" in files:
        return _STORE
    if "recipe.json" in files and not _RUN_TRACES.isdisjoint([*folders, *files]):
        return "run"
    return None
