"""Curves over the number of images: smoothed, but never across stages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calotype.training.record import Column


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


def make_curve(name: str, colour: str, pieces: Iterable[tuple[Column, Column]]) -> Curve:
    """A curve of pieces, x and y each, (N,), with gaps between them.

    What is not finite is left out, and a single point becomes a dot.
    """
    gap = np.full((2, 1), np.nan)
    parts = [gap]
    for x, y in pieces:
        xy = np.stack((x, y))[:, np.isfinite(y)]
        parts += [np.repeat(xy, 1 + (xy.shape[1] == 1), axis=1), gap]
    return Curve(name, colour, *np.concatenate(parts, axis=1))


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
