"""Curves that a page can hold: thinned to a thousand points, smoothed, never across stages."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calotype.training.record import Column

MOST_POINTS = 1000


@dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Args:
        name: in the legend.
        colour: "raw", "main", "other", or "l0" (little noise) to "l7".
        x: images, (N,).
        y: values, (N,); both are nan where the line has a gap.
    """

    name: str
    colour: str
    x: Column
    y: Column

    @property
    def last(self) -> float | None:
        """The newest value, or None where there is none."""
        known = self.y[np.isfinite(self.y)]
        return float(known[-1]) if len(known) else None


def joined(name: str, colour: str, pieces: Iterable[tuple[Column, Column]]) -> Curve:
    """One curve of pieces, x and y each, with gaps between them; a single point becomes a dot."""
    ends = np.full((2, 1), np.nan)
    parts = [np.repeat(np.stack(piece), 1 + (len(piece[0]) == 1), axis=1) for piece in pieces]
    x, y = np.concatenate([ends, *(half for part in parts for half in (part, ends))], axis=1)
    return Curve(name, colour, x, y)


def make_curve(
    name: str,
    colour: str,
    xy: tuple[Column, Column],
    parts: list[slice],
    *,
    smooth: bool = False,
    weights: Column | None = None,
) -> Curve:
    """A thinned curve of about `MOST_POINTS` points over all its parts.

    Args:
        name: in the legend.
        colour: see `Curve`.
        xy: rising x, (N,), and y, (N,); what is not finite is left out.
        parts: stages; nothing is smoothed across them.
        smooth: average over a hundredth of each part on either side.
        weights: of the values in that average, (N,); None = all alike.
    """
    pieces = []
    for part in parts:
        x, y = xy[0][part], xy[1][part]
        if smooth:
            y = smoothed(y, None if weights is None else weights[part])
        pieces.append(thinned(x, y, most=max(8, MOST_POINTS * len(y) // len(xy[1]))))
    return joined(name, colour, pieces)


def smoothed(y: Column, weights: Column | None = None) -> Column:
    """The mean over a hundredth of the values on either side, at least five; nan counts nothing."""
    reach = max(5, len(y) // 100)
    weight = np.isfinite(y) * (1.0 if weights is None else np.nan_to_num(weights, posinf=0.0))
    total = np.concatenate([[0.0], np.cumsum(np.nan_to_num(y, posinf=0.0, neginf=0.0) * weight)])
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
