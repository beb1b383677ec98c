"""What every metric asks of its features: enough rows, of one width, with finite numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from calotype.errors import UsageError

AT_ONCE = 1024
"""Rows of a tile; two tiles and their kernel take 42 MB at 2048 dimensions in float64."""


class Features(Protocol):
    """Rows of numbers, (N, D), an image each: a tensor, or what reads them from a file."""

    def __len__(self) -> int:
        """N."""

    @property
    def ndim(self) -> int:
        """2."""

    @property
    def shape(self) -> torch.Size:
        """N and D."""

    def __getitem__(self, rows: slice | Tensor, /) -> Tensor:
        """Some of the rows, (n, D), by numbers or by a mask."""


def check_rows(features: Features, name: str, *, least: int = 2) -> None:
    """Refuse features that no metric can take.

    Args:
        features: (N, D).
        name: which set they are of, for the message.
        least: how many rows it takes.

    Raises:
        UsageError: they are not (N, D), there are too few rows, or one is not finite.
    """
    if features.ndim != 2 or features.shape[1] == 0:
        raise UsageError(
            f"got {name} features of shape {tuple(features.shape)}; expected (N, D), an image a row"
        )
    if len(features) < least:
        raise UsageError(f"got {len(features)} {name} images; expected at least {least}")
    for start in range(0, len(features), AT_ONCE):
        bad = (~features[start : start + AT_ONCE].isfinite().all(1)).nonzero()
        if len(bad):
            row = start + int(bad[0])
            raise UsageError(
                f"row {row} of the {name} features holds NaN or infinity; expected finite numbers: "
                f"look at image {row} and at the extractor"
            )


def check_sets(reference: Features, sampled: Features, *, least: int = 2) -> None:
    """Refuse two sets of features, (M, D) and (N, D), that cannot be compared.

    Raises:
        UsageError: one is wrong by itself, or their widths differ.
    """
    check_rows(reference, "reference", least=least)
    check_rows(sampled, "sampled", least=least)
    if reference.shape[1] != sampled.shape[1]:
        raise UsageError(
            f"got features of {reference.shape[1]} and {sampled.shape[1]} numbers an image; "
            "expected both of one extractor"
        )


def tiles(count: int, blocks: Tensor | None = None) -> Iterator[tuple[int, Tensor]]:
    """Row numbers of at most `AT_ONCE` rows at a time, each tile within one block.

    Args:
        count: of rows.
        blocks: the block of each row, (count,) from 0; None = all in block 0.
    """
    if blocks is None:
        blocks = torch.zeros(count, dtype=torch.long)
    for block in range(int(blocks.max()) + 1):
        for rows in torch.split((blocks == block).nonzero()[:, 0], AT_ONCE):
            yield block, rows


def take(features: Features, rows: Tensor) -> Tensor:
    """Rows of features, as float64 in memory."""
    if bool((rows.diff() == 1).all()):  # a run: read at once, and of a tensor not copied
        return features[int(rows[0]) : int(rows[-1]) + 1].double()
    return features[rows].double()


def take_unit(features: Features, rows: Tensor) -> Tensor:
    """Rows of features scaled to length 1, as float64 in memory.

    Raises:
        UsageError: one is zero.
    """
    x = take(features, rows)
    lengths = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    if bool((lengths == 0).any()):
        row = int(rows[lengths[:, 0].argmin()])
        raise UsageError(f"row {row} of the embeddings is zero; expected ones with a direction")
    unit: Tensor = x / lengths
    return unit
