"""Features computed once and kept: a chunk of images is a file, found again by what is in it.

A file is named by a hash over the hashes of its images, the side they were resized to and the
extractor's fingerprint, so nothing stale is ever found and any number of processes may write to one
folder: they write the same. It is an ordinary `.npy`, float32 (N, D), with the SHA-256 of all that
behind its end, where readers of `.npy` do not look; a damaged one is computed again.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calotype.data.prefetch import prefetched
from calotype.errors import CalotypeError, NotFiniteError, UsageError
from calotype.evaluation.features.batches import images_at_once
from calotype.evaluation.features.extractor import CaptionExtractor, Extractor, ExtractorSpec
from calotype.evaluation.features.mapped import MappedRows
from calotype.storage.files import make_folder, remove_leftovers, write_error, write_file
from calotype.storage.places import cache_folder
from calotype.storage.reading import open_regular
from calotype.text.encoder import digest

CHUNK = 256
"""Images or captions kept in one file: what a kill costs at most."""
_FOLDER, _SUFFIX = "features", ".npy"
_DIGEST_BYTES = 32
_SHOWN = 16  # digits of a fingerprint in the name of a folder


@dataclass(frozen=True, kw_only=True)
class ImageChunk:
    """Images whose features are computed and kept together; small, to be sent to whoever works.

    Args:
        names: of the images, for messages.
        hashes: of each image's encoded bytes, SHA-256.
        side: pixels that `load` resizes to; None = as they are. It is part of what features are of.
        load: uint8 (n, 3, H, W), all of one size, of a range of them; can be pickled, as a function
            of a module, or a method of a record.
    """

    names: Sequence[str]
    hashes: Sequence[str]
    side: int | None
    load: Callable[[range], Tensor]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.hashes) or not self.hashes:
            raise ValueError(
                f"got {len(self.names)} names and {len(self.hashes)} hashes of images; expected as "
                "many of both, and at least one"
            )

    def key(self, fingerprint: str) -> str:
        """What its features by an extractor are kept under."""
        return digest([fingerprint, str(self.side), *self.hashes])


@dataclass(frozen=True)
class StoredFeatures:
    """Features in files, in order; iterating reads one file after the other, memory-mapped.

    Args:
        paths: of the files.
        dimension: D.
    """

    paths: tuple[Path, ...]
    dimension: int

    def __iter__(self) -> Iterator[Tensor]:
        """Blocks (n, D), float32; changes to them stay in memory.

        Raises:
            CalotypeError: a file is missing or damaged.
        """
        for path in self.paths:
            found = _read(path)
            if found is None or found.shape[1] != self.dimension:
                raise CalotypeError(f"{path} is missing or damaged; run the command again")
            yield torch.from_numpy(found)

    def rows(self) -> MappedRows:
        """All of them, (N, D), float32, in a file without a name: any number of them fits.

        Raises:
            CalotypeError: a file is missing or damaged, or the disk is full.
        """
        folder = self.paths[0].parent
        place = folder if os.access(folder, os.W_OK) else None
        try:
            with tempfile.TemporaryFile(dir=place) as file:
                for part in self:
                    file.write(part.numpy().data)
                return MappedRows(file, self.dimension)
        except OSError as error:
            raise write_error(folder, error) from error


def features_of(
    chunks: Iterable[ImageChunk], extractor: Extractor, root: Path | None = None
) -> StoredFeatures:
    """Features of chunks of images: those that are kept are read, the others computed here.

    Args:
        chunks: of the images.
        extractor: computes what is missing.
        root: folder of features; None = that in the user's cache.

    Raises:
        NotFiniteError: a feature is NaN or infinite; names the image.
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    root = default_root() if root is None else root
    remove_leftovers(_folder(root, extractor), lambda name: name.endswith(_SUFFIX))
    paths = tuple(compute_chunk(chunk, extractor, root) for chunk in chunks)
    return StoredFeatures(paths, extractor.dimension)


def compute_chunk(chunk: ImageChunk, extractor: Extractor | ExtractorSpec, root: Path) -> Path:
    """Compute the features of a chunk unless they are kept; the file.

    Any process may be given any chunk (with a spec in place of the extractor, which it then loads
    once): a killed one leaves nothing half-written. Raises as `features_of`.
    """
    one = extractor.load() if isinstance(extractor, ExtractorSpec) else extractor
    path = _folder(root, one) / f"{chunk.key(one.fingerprint)}{_SUFFIX}"
    return _kept(path, (len(chunk.hashes), one.dimension), lambda: _compute(chunk, one))


def caption_features(
    captions: Sequence[str], extractor: CaptionExtractor, root: Path | None = None
) -> StoredFeatures:
    """Features of captions, (N, D), kept likewise; raises as `features_of`."""
    root = default_root() if root is None else root
    paths = []
    for start in range(0, len(captions), CHUNK):
        part = captions[start : start + CHUNK]
        key = digest([extractor.captions_fingerprint, *part])

        def compute(part: Sequence[str] = part) -> Tensor:
            found = extractor.embed_captions(part)
            _check_finite(found, part, extractor.name)
            return found

        path = _folder(root, extractor) / f"captions-{key}{_SUFFIX}"
        paths.append(_kept(path, (len(part), extractor.dimension), compute))
    return StoredFeatures(tuple(paths), extractor.dimension)


def default_root() -> Path:
    """The folder of features in the user's cache.

    Raises:
        UsageError: the user has no home.
    """
    cache = cache_folder()
    if cache is None:
        raise UsageError("got no home folder to keep features in; set XDG_CACHE_HOME to a folder")
    return cache / _FOLDER


def _folder(root: Path, extractor: Extractor) -> Path:
    return root / f"{extractor.name}-{extractor.fingerprint[:_SHOWN]}"


def _compute(chunk: ImageChunk, extractor: Extractor) -> Tensor:
    """Features of a chunk; the next images are decoded while these are worked on."""
    size = images_at_once(extractor.device)
    rows = range(len(chunk.hashes))
    loaded = prefetched((chunk.load(rows[i : i + size]) for i in rows[::size]), ahead=1)
    found = torch.cat([extractor(images) for images in loaded])
    _check_finite(found, chunk.names, extractor.name)
    return found


def _check_finite(features: Tensor, names: Sequence[str], extractor: str) -> None:
    broken = (~features.isfinite().all(1)).nonzero().flatten().tolist()
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        raise NotFiniteError(
            f"got features that are not finite from {extractor} of {names[broken[0]]!r:.200}"
            f"{more}; expected numbers: look at the image, and get the extractor's weights again"
        )


def _kept(path: Path, shape: tuple[int, int], compute: Callable[[], Tensor]) -> Path:
    """The file, written if it is not there and whole."""
    found = _read(path)
    if found is not None and found.shape == shape:
        return path
    features = compute()
    if features.shape != shape:
        raise ValueError(f"got features of shape {tuple(features.shape)}; expected {shape}")
    file = io.BytesIO()
    np.save(file, features.to(torch.float32).numpy(), allow_pickle=False)
    data = file.getvalue()
    make_folder(path.parent)
    write_file(path, data + hashlib.sha256(data).digest())
    return path


def _read(path: Path) -> NDArray[np.float32] | None:
    """What a file holds, memory-mapped; None where it is missing, damaged or not ours."""
    try:
        if not _is_whole(path):
            return None
        found = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, RecursionError):
        return None
    fits = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype == np.float32
    return found if fits and found.flags.c_contiguous else None


def _is_whole(path: Path) -> bool:
    """Whether the hash behind its end is that of what stands before."""
    with open_regular(path) as file:
        data = file.read()
    return len(data) > _DIGEST_BYTES and (
        hashlib.sha256(data[:-_DIGEST_BYTES]).digest() == data[-_DIGEST_BYTES:]
    )
