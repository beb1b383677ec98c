"""What a sweep of sampling settings found, the rule that chooses, and its tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calotype.config.sampling import SamplingConfig
from calotype.evaluation.about import table

TOLERANCE = 0.05
RULE = (
    f"chosen is the lowest KID among the cells whose unseen error is within {TOLERANCE:.0%} of the "
    "lowest of the axis"
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one setting reached: mean squared error on trained and unseen pairs, and KID."""

    sampling: SamplingConfig
    trained: float
    unseen: float
    kid: float


@dataclass(frozen=True, kw_only=True)
class AxisResult:
    """An axis measured: what differs between the cells is the `setting` of a stage's sampling.

    Each has samples of `trained` and `unseen` pairs, which KID compares with `reference` real
    images; `chosen` is the index of the one that `RULE` chooses.
    """

    resolution: int
    setting: str
    trained: int
    unseen: int
    reference: int
    chosen: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All axes of a model, in the order they were measured."""

    model: str
    axes: tuple[AxisResult, ...]


def choose(cells: Sequence[Cell]) -> int:
    """Index of the cell that `RULE` chooses."""
    limit = min(cell.unseen for cell in cells) * (1 + TOLERANCE)
    allowed = [place for place, cell in enumerate(cells) if cell.unseen <= limit]
    return min(allowed, key=lambda place: cells[place].kid)


def sweep_tables(results: Sweep) -> str:
    """One Markdown table an axis; the chosen value is bold."""
    parts = [f"Mean squared error to the real images, and KID on EfficientNet-Lite0; {RULE}."]
    for axis in results.axes:
        rows = []
        for place, cell in enumerate(axis.cells):
            value = f"{getattr(cell.sampling, axis.setting)}"
            errors = [f"{cell.trained:.4f}", f"{cell.unseen:.4f}", f"{cell.kid:.4f}"]
            rows.append([f"**{value}**" if place == axis.chosen else value, *errors])
        parts += [
            f"{axis.resolution}²: N = {axis.trained} trained + {axis.unseen} unseen pairs; KID to "
            f"{axis.reference} real images.",
            table([f"`{axis.setting}`", "trained pairs", "unseen pairs", "KID"], rows),
        ]
    return "\n\n".join(parts) + "\n"
