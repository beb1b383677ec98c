"""Nearest rows and "nearer than" by tiles: products propose, differences decide.

|x|^2 + |y|^2 - 2 xy loses the small distances in rounding, which is how `torch.cdist` comes to pick
wrong neighbours in float32. Here the float32 product, with a bound on its error, settles what is
clear; what lies within the bound is settled by the differences themselves in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from calotype.evaluation.metrics.rows import Features, take, tiles

SPARE = 8
"""Neighbours kept beyond those asked for, among which rounding cannot hide one of them."""
_NUMBERS_AT_ONCE = 1_000_000


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

    features: Features
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


def centre_of(features: Features) -> Tensor:
    """The mean row, (D,) float64; distances from it are as short as can be."""
    total = torch.zeros(features.shape[1], dtype=torch.float64)
    for _, rows in tiles(len(features)):
        total += take(features, rows).sum(0)
    return total / len(features)


def load_tile(
    features: Features, rows: Tensor, centre: Tensor, dtype: torch.dtype = torch.float32
) -> Tile:
    """Rows as a tile of the type that products are taken in."""
    x = (take(features, rows) - centre).to(dtype)
    return Tile(features, rows, x, x.double().square().sum(1).to(dtype))


def squared_distances(x: Features, i: Tensor, y: Features, j: Tensor) -> Tensor:
    """Of rows i of x from rows j of y, (n,) float64, from their differences: exactly 0 if equal."""
    found = torch.empty(len(i), dtype=torch.float64)
    for rows in torch.split(torch.arange(len(i)), max(1, _NUMBERS_AT_ONCE // x.shape[1])):
        # In place, and into one result: pieces kept between large blocks would hold on to the heap.
        difference = x[i[rows]].double()
        found[rows] = difference.sub_(y[j[rows]]).square_().sum(1)
    return found


def nearest(queries: Features, pool: Features, k: int, *, same: bool = False) -> Neighbours:
    """The k nearest rows of the pool for each query, and a few spare ones.

    Args:
        queries: features, (N, D).
        pool: features, (M, D).
        k: how many, at most M, or M - 1 if `same`.
        same: the queries are the pool, and no row is its own neighbour.
    """
    kept = min(k + SPARE, len(pool) - same)
    search = _Search(queries, pool, kept, same, centre_of(pool))
    every = torch.arange(len(queries))
    beyond = search.propose(every, torch.float32)
    squared = search.settle(every)
    if kept < len(pool) - same:
        kth = squared[:, k - 1]
        doubtful = ((kth > beyond) & (kth > 0)).nonzero()[:, 0]
        if len(doubtful):
            search.propose(doubtful, torch.float64)
            squared[doubtful] = search.settle(doubtful)
    return Neighbours(search.index, squared)


class _Search:
    """Nearest rows, as products propose them and differences settle them."""

    def __init__(
        self, queries: Features, pool: Features, kept: int, same: bool, centre: Tensor
    ) -> None:
        self._queries, self._pool, self._same, self._centre = queries, pool, same, centre
        self.index = torch.zeros(len(queries), kept, dtype=torch.long)
        self._squared = torch.zeros(len(queries), kept, dtype=torch.float64)

    def propose(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Look through the pool for these queries; returns what all others lie beyond, (n,)."""
        self._squared[rows] = torch.inf
        slack = torch.zeros(len(self.index), dtype=torch.float64)
        # Of all rows with each other, a product serves both sides.
        both = self._same and len(rows) == len(self._pool)
        for _, some in tiles(len(rows)):
            x = load_tile(self._queries, rows[some], self._centre, dtype)
            for _, others in tiles(len(self._pool)):
                if both and others[0] < some[0]:
                    continue
                y = load_tile(self._pool, others, self._centre, dtype)
                products = x.products(y)
                if self._same:
                    products[x.rows[:, None] == others] = torch.inf
                sides = [(x.rows, others, products)]
                if both and others[0] > some[0]:
                    sides.append((others, x.rows, products.T))
                for those, found, distances in sides:
                    self._keep(those, found, distances)
                    slack[those] = slack[those].clamp(min=x.slack(y))
        return self._squared[rows].max(1).values - slack[rows]

    def settle(self, rows: Tensor) -> Tensor:
        """Order these queries' neighbours by exact squared distances, which are returned."""
        index = self.index[rows]
        pairs = rows.repeat_interleave(index.shape[1]), index.flatten()
        exact = squared_distances(self._queries, pairs[0], self._pool, pairs[1])
        squared, order = exact.view(index.shape).sort(dim=1, stable=True)
        self.index[rows] = index.gather(1, order)
        return squared

    def _keep(self, rows: Tensor, others: Tensor, products: Tensor) -> None:
        """Of what is kept for these rows and what is found among others, the nearest."""
        kept = self.index.shape[1]
        near, places = products.topk(min(kept, len(others)), dim=1, largest=False)
        near, found = near.double(), others[places]
        best, order = torch.cat([self._squared[rows], near], 1).topk(kept, dim=1, largest=False)
        self._squared[rows] = best
        self.index[rows] = torch.cat([self.index[rows], found], 1).gather(1, order)
