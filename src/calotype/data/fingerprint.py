"""One line that says which files a source was made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def files_fingerprint(root: Path, files: Iterable[Path], *, captions: int | None = None) -> str:
    """SHA-256 over the sorted relative names and sizes of files; -1 for one that is gone.

    Contents are not read: a data set of a terabyte must open at once.

    Args:
        root: that names are relative to.
        files: of the source.
        captions: version of what makes the captions, where a grammar does.
    """
    digest = hashlib.sha256(b"" if captions is None else f"captions {captions}\n".encode())
    for file in sorted(files):
        try:
            size = file.stat().st_size
        except OSError:
            size = -1
        name = file.relative_to(root).as_posix()
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
