"""Rows of numbers in a mapped file, of which no more stays in memory than was asked for last."""

from __future__ import annotations

import mmap
from typing import IO

import numpy as np
import torch
from torch import Tensor

_AT_ONCE = 256  # Linux may bring 16 pages for each row that is looked at


class MappedRows:
    """Float32 numbers, (N, D), that a file holds and nothing else; what is read of them is a copy.

    A page of a mapped file that was looked at once would be resident until somebody else needs the
    memory, so that reading all rows a few at a time would end with all of them there.

    Args:
        file: written to its end; it may be closed and gone afterwards.
        dimension: D.
    """

    ndim = 2

    def __init__(self, file: IO[bytes], dimension: int) -> None:
        file.flush()
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, np.float32).reshape(-1, dimension)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def shape(self) -> torch.Size:
        """N and D."""
        return torch.Size(self._rows.shape)

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Some rows, (n, D), by numbers or by a mask."""
        places = np.arange(len(self))[rows if isinstance(rows, slice) else rows.numpy()]
        found = np.empty((len(places), self._rows.shape[1]), np.float32)
        for start in range(0, len(places), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = self._rows[places[part]]
            if hasattr(mmap, "MADV_DONTNEED"):
                self._map.madvise(mmap.MADV_DONTNEED)
        return torch.from_numpy(found)
