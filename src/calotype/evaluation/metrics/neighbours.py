"""Nearest rows and "nearer than" by tiles: products propose, differences decide.

|x|^2 + |y|^2 - 2 xy loses the small distances in rounding, which is how `torch.cdist` comes to pick
wrong neighbours in float32. Here the float32 product, with a bound on its error, settles what is
clear; what lies within the bound is settled by the differences themselves in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.evaluation.metrics.rows import take, tiles

SPARE = 8
"""Neighbours kept beyond those asked for, among which rounding cannot hide one of them."""
_NUMBERS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of a pool: `index` and `squared` distance, (N, k + spare), nearest first.

    The first k are exact; the spare ones are near rows, though not surely the next.
    """

    index: Tensor
    squared: Tensor


@dataclass(frozen=True)
class Tile:
    """Rows of a set less the common centre, `x`, (n, D), with squared lengths, (n,)."""

    features: Tensor
    rows: Tensor
    x: Tensor
    squares: Tensor

    def slack(self, other: Tile) -> float:
        """A bound on the error of `products`: D roundings of the sum, and a dozen beside it."""
        unit = torch.finfo(self.x.dtype).eps / 2
        return float((self.x.shape[1] + 16) * unit * (self.squares.max() + other.squares.max()))

    def products(self, other: Tile) -> Tensor:
        """Squared distances, (n, m), up to the slack."""
        squares = other.squares.expand(len(self.x), -1)
        return torch.addmm(squares, self.x, other.x.T, alpha=-2).add_(self.squares[:, None])


class Pairs:
    """The pairs of rows of two tiles, n and m of them: which lie nearer than a limit says."""

    def __init__(self, x: Tile, y: Tile) -> None:
        self._x, self._y = x, y
        self._products, self._slack = x.products(y), x.slack(y)

    def nearer(self, limits: Tensor, columns: Tensor | None = None) -> Tensor:
        """Whether a pair lies nearer, strictly, than the limit.

        Args:
            limits: squared distances, (n, 1) or (1, c), float64.
            columns: rows of the second tile, (c,); None = all of them, in order.

        Returns:
            (n, c) bool.
        """
        products = self._products if columns is None else self._products[:, columns]
        # Nothing is nearer than 0; so much is said at once, for sets of equal rows.
        rough = torch.where(limits > 0, limits, -torch.inf).to(products.dtype)
        inside = products < rough
        i, j = ((products - rough).abs_() <= self._slack).nonzero(as_tuple=True)
        if len(i):
            others = self._y.rows[j if columns is None else columns[j]]
            x, y = self._x, self._y
            exact = squared_distances(x.features, x.rows[i], y.features, others)
            inside[i, j] = exact < limits.expand(products.shape)[i, j]
        return inside


def centre_of(features: Tensor) -> Tensor:
    """The mean row, (D,) float64; distances from it are as short as can be."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for _, rows in tiles(len(features)):
        total += take(features, rows).sum(0)
    return total / len(features)


def load_tile(
    features: Tensor, rows: Tensor, centre: Tensor, dtype: torch.dtype = torch.float32
) -> Tile:
    """Rows as a tile of the type that products are taken in."""
    x = (take(features, rows) - centre).to(dtype)
    return Tile(features, rows, x, x.double().square().sum(1).to(dtype))


def squared_distances(x: Tensor, i: Tensor, y: Tensor, j: Tensor) -> Tensor:
    """Of rows i of x from rows j of y, (n,) float64, from their differences: exactly 0 if equal."""
    at_once = max(1, _NUMBERS_AT_ONCE // x.shape[1])
    parts = [
        (x[some].double() - y[others].double()).square().sum(1)
        for some, others in zip(torch.split(i, at_once), torch.split(j, at_once), strict=True)
    ]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.float64)


def nearest(queries: Tensor, pool: Tensor, k: int, *, same: bool = False) -> Neighbours:
    """The k nearest rows of the pool for each query, and a few spare ones.

    Args:
        queries: features, (N, D).
        pool: features, (M, D).
        k: how many, at most M, or M - 1 if `same`.
        same: the queries are the pool, and no row is its own neighbour.
    """
    search = _Search(queries, pool, min(k + SPARE, len(pool) - same), same, centre_of(pool))
    index, squared, beyond = search.run(torch.arange(len(queries)), torch.float32)
    if search.kept < len(pool) - same:
        kth = squared[:, k - 1]
        doubtful = ((kth > beyond) & (kth > 0)).nonzero()[:, 0]
        if len(doubtful):
            index[doubtful], squared[doubtful], _ = search.run(doubtful, torch.float64)
    return Neighbours(index, squared)


@dataclass(frozen=True)
class _Search:
    queries: Tensor
    pool: Tensor
    kept: int
    same: bool
    centre: Tensor

    def run(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Of some queries: neighbours, exact squared distances, what all others lie beyond."""
        found = [self._of_tile(rows[places], dtype) for _, places in tiles(len(rows))]
        index, beyond = (torch.cat(parts) for parts in zip(*found, strict=True))
        squared = squared_distances(
            self.queries, rows.repeat_interleave(self.kept), self.pool, index.flatten()
        ).view(index.shape)
        squared, order = squared.sort(dim=1, stable=True)
        return index.gather(1, order), squared, beyond

    def _of_tile(self, rows: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        queries = load_tile(self.queries, rows, self.centre, dtype)
        best = torch.full((len(rows), self.kept), torch.inf, dtype=dtype)
        index = torch.zeros(len(rows), self.kept, dtype=torch.long)
        slack = 0.0
        for _, others in tiles(len(self.pool)):
            tile = load_tile(self.pool, others, self.centre, dtype)
            slack = max(slack, queries.slack(tile))
            products = queries.products(tile)
            if self.same:
                products[rows[:, None] == others] = torch.inf
            near, places = products.topk(min(self.kept, len(others)), dim=1, largest=False)
            best, order = torch.cat([best, near], 1).topk(self.kept, dim=1, largest=False)
            index = torch.cat([index, others[places]], 1).gather(1, order)
        return index, (best.max(1).values - slack).double()
