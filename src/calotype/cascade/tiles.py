"""Images larger than a network was made for, in overlapping tiles: a denoiser made of denoisers.

Every step's estimate is the mean of what is said of the tiles, in which a tile fades out over what
it shares with its neighbours. Noise, solver, thresholding and edits belong to the whole image.

Reference: MultiDiffusion, Bar-Tal et al. 2023, arXiv:2302.08113.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.config.stage import StageConfig
from calotype.diffusion import Denoiser, Estimate, Move, SamplerState, Step
from calotype.errors import UsageError

MAX_TILED_SIDE = 4096
"""Largest side of a square that is sampled in tiles, in under 2 GB; memory grows with the pixels,
and not with the number of tiles."""
_BAND_ROWS = 256

OnTile = Callable[[int, int], None]
"""Told how many tiles of an estimate are done, and how many it has."""


@dataclass(frozen=True)
class Tiling:
    """How an image is parted.

    Args:
        side: largest height and width of a tile, in pixels.
        overlap: pixels that neighbours share at least; half of `side` at most.

    Raises:
        UsageError: numbers out of range.
    """

    side: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 < 2 * self.overlap <= self.side:
            raise UsageError(
                f"got tiles of {self.side} pixels that share {self.overlap}; expected an overlap "
                "from 1 to half of the side"
            )

    @staticmethod
    def of_stage(config: StageConfig) -> Tiling:
        """Tiles of about the size that a stage was made for, whose neighbours share an eighth."""
        unit = config.network.divisor
        overlap = max(1, config.resolution // 8 // unit) * unit
        return Tiling(config.resolution + overlap, overlap)

    def tiles(self, size: Sequence[int], unit: int) -> list[Tile]:
        """The tiles of an image, row by row: as few as possible, all of one size; none for one.

        Args:
            size: height and width of the image, multiples of `unit`.
            unit: tiles begin and end at multiples of this many pixels.

        Raises:
            UsageError: tiles would be smaller than two units.
        """
        rows, columns = (self._spans(length, unit) for length in size[-2:])
        if len(rows) == len(columns) == 1:
            return []
        return [Tile(row, column) for row in rows for column in columns]

    def _spans(self, length: int, unit: int) -> list[Span]:
        overlap, largest = -(-self.overlap // unit), self.side // unit  # in units from here
        whole = length // unit
        if whole <= largest:
            return [Span(slice(0, length), torch.ones(length))]
        if largest < 2 * overlap:
            raise UsageError(
                f"got tiles of {self.side} pixels for a network that takes multiples of {unit}; "
                f"expected at least {2 * overlap * unit}"
            )
        count = -(-(whole - overlap) // (largest - overlap))
        side = -(-(whole + (count - 1) * overlap) // count)
        starts = [number * (whole - side) // (count - 1) * unit for number in range(count)]
        return _weighted(starts, side * unit, length, ramp=overlap * unit)


@dataclass(frozen=True)
class Span:
    """A tile along one axis: its pixels and how much each counts, (length,) in [0, 1]."""

    pixels: slice
    weight: Tensor


@dataclass(frozen=True)
class Tile:
    """A part of an image."""

    rows: Span
    columns: Span

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return self.rows.pixels, self.columns.pixels

    def of(self, images: Tensor) -> Tensor:
        """This part of images, (B, C, H, W), as a view."""
        rows, columns = self.slices
        return images[..., rows, columns]

    def add(self, part: Tensor, total: Tensor) -> None:
        """Add this part, weighted, to whole images."""
        weight = self.rows.weight[:, None] * self.columns.weight
        self.of(total).add_(part * weight.to(part))


def _weighted(starts: Sequence[int], side: int, length: int, *, ramp: int) -> list[Span]:
    """Spans that fade out linearly over `ramp` pixels at their ends; their weights sum to 1."""
    distance = torch.arange(side, dtype=torch.float64) + 0.5
    shape = torch.minimum(distance, distance.flip(0)).clamp(max=ramp)
    total = torch.zeros(length, dtype=torch.float64)
    spans = [slice(start, start + side) for start in starts]
    for span in spans:
        total[span] += shape
    return [Span(span, (shape / total[span]).float()) for span in spans]


def tiled(parts: Sequence[tuple[Tile, Denoiser]], on_tile: OnTile | None = None) -> Denoiser:
    """The denoiser of whole images that the denoisers of their tiles make, one after another."""

    def denoise(z: Tensor, logsnr: Tensor) -> Estimate:
        x_hat, variance = torch.zeros_like(z), None
        for number, (tile, part) in enumerate(parts, 1):
            estimate = part(tile.of(z), logsnr)
            tile.add(estimate.x_hat, x_hat)
            if estimate.variance_fraction is not None:
                variance = torch.zeros_like(z) if variance is None else variance
                tile.add(estimate.variance_fraction, variance)
            if on_tile is not None:
                on_tile(number, len(parts))
        return Estimate(x_hat, variance)

    return denoise


def in_bands(step: Step) -> Step:
    """A step that looks at each pixel alone, taken on some rows at a time: the same numbers.

    Without it a step's intermediate results would need more memory than all that is kept.
    """

    def banded(move: Move) -> Tensor:
        randn = functools.cache(move.randn)  # the whole image's noise, whatever is asked first
        z_next = torch.empty_like(move.state.z)
        for top in range(0, z_next.shape[2], _BAND_ROWS):
            rows = slice(top, top + _BAND_ROWS)
            previous = move.previous
            if previous is not None:
                previous = replace(previous, x_hat=previous.x_hat[..., rows, :])
            z_next[..., rows, :] = step(
                replace(
                    move,
                    state=_rows_of(move.state, rows),
                    randn=functools.partial(_noise_of, randn, rows),
                    previous=previous,
                )
            )
        return z_next

    return banded


def _noise_of(randn: Callable[[], Tensor], rows: slice) -> Tensor:
    return randn()[..., rows, :]


def _rows_of(state: SamplerState, rows: slice) -> SamplerState:
    own = state.estimate
    parts = (own.x_hat, own.variance_fraction, own.gradient)
    x_hat, *rest = (None if part is None else part[..., rows, :] for part in parts)
    assert x_hat is not None
    cut = Estimate(x_hat, *rest)
    return replace(state, z=state.z[..., rows, :], estimate=cut)
