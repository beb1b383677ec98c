"""One line that says which files a source was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from calotype.data.captions import CAPTIONS_VERSION


def files_fingerprint(root: Path, files: Iterable[Path], *, parts: bool = False) -> str:
    """SHA-256 over the sorted relative names and sizes of files; -1 for one that is gone.

    Contents are not read: a data set of a terabyte must open at once.

    Args:
        root: that names are relative to.
        files: of the source.
        parts: captions are made of parts, so how they are made counts as well.
    """
    digest = hashlib.sha256(f"captions {CAPTIONS_VERSION}\n".encode() if parts else b"")
    for file in sorted(files):
        try:
            size = file.stat().st_size
        except OSError:
            size = -1
        name = file.relative_to(root).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
