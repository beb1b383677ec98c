"""Curves that a page can hold: thinned to a thousand points, smoothed, never across stages."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
MOST_POINTS = 1000


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        name: in the legend.
        kind: of its look: "raw", "main", "other", or "level-0" (little noise) to "level-7".
        pieces: (x, y) of each part that is drawn without a gap.
    """

    name: str
    kind: str
    pieces: tuple[tuple[Column, Column], ...]

    @property
    def last(self) -> float | None:
        """The newest value, or None where there is none."""
        filled = [y for _, y in self.pieces if len(y)]
        return float(filled[-1][-1]) if filled else None


def make_curve(
    name: str,
    kind: str,
    *,
    x: Column,
    y: Column,
    parts: list[slice],
    smooth: bool = False,
    weights: Column | None = None,
) -> Curve:
    """A thinned curve of at most about `MOST_POINTS` points over all its parts.

    Args:
        name: in the legend.
        kind: of its look.
        x: rising, (N,).
        y: (N,); what is not finite is left out.
        parts: stages; nothing is smoothed across them.
        smooth: average over a hundredth of each part on either side.
        weights: of the values in that average, (N,); None = all alike.
    """
    pieces = []
    for part in parts:
        values = y[part]
        if smooth:
            values = smoothed(values, None if weights is None else weights[part])
        share = (part.stop - part.start) / max(len(y), 1)
        pieces.append(thinned(x[part], values, most=max(8, round(MOST_POINTS * share))))
    return Curve(name, kind, tuple(pieces))


def smoothed(y: Column, weights: Column | None = None) -> Column:
    """The mean over a hundredth of the values on either side, at least five; nan counts nothing."""
    reach = max(5, len(y) // 100)
    known = np.isfinite(y)
    weight = known.astype(np.float64)
    if weights is not None:
        weight = np.where(known & np.isfinite(weights), weights, 0.0).astype(np.float64)
    total = np.concatenate([[0.0], np.cumsum(np.where(known, y, 0.0) * weight)])
    count = np.concatenate([[0.0], np.cumsum(weight)])
    place = np.arange(len(y))
    low, high = np.maximum(place - reach, 0), np.minimum(place + reach + 1, len(y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((total[high] - total[low]) / (count[high] - count[low]))


def thinned(x: Column, y: Column, *, most: int = MOST_POINTS) -> tuple[Column, Column]:
    """At most `most` (at least 4) points of a curve: its ends, and the extremes of equal stretches.

    Points that are not finite are left out.
    """
    finite = np.isfinite(y)
    x, y = x[finite], y[finite]
    if len(y) <= most:
        return x, y
    bounds = np.linspace(0, len(y), (most - 2) // 2 + 1).astype(int)
    chosen = [0, len(y) - 1]
    for low, high in itertools.pairwise(bounds):
        stretch = y[low:high]
        chosen += [low + int(stretch.argmin()), low + int(stretch.argmax())]
    places = np.unique(chosen)
    return x[places], y[places]
