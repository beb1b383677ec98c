"""What a sweep found, the rule that chooses among its cells, and the files that keep both."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calotype.cascade.io import CASCADE_FILE, STAGE_FILE
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import load_config, to_dict
from calotype.errors import UsageError
from calotype.evaluation.results import Number, Results
from calotype.evaluation.sweep.axes import Axis
from calotype.storage.files import write_file

SWEEP_FILE, TABLE_FILE = "sweep.json", "sweep.csv"
TOLERANCE = 0.02
RULE = (
    "chosen is the lowest KID among the cells whose alignment is within "
    f"{TOLERANCE:.0%} of the best one's"
)
"""Fixed before anything is measured."""
_ALIGNMENT = ("R-precision", "CLIP score")


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """One cell: a value of every axis, the sampling settings of every stage, its numbers."""

    values: tuple[str, ...]
    stages: tuple[SamplingConfig, ...]
    numbers: tuple[Number, ...]

    def number(self, metric: str) -> Number | None:
        """The first of a metric, whichever features it is of; FID-30K is an FID."""
        whole = (one for one in self.numbers if one.group is None)
        return next((one for one in whole if one.metric.removesuffix("-30K") == metric), None)


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """All cells of a sweep.

    Args:
        first: results of the first cell: model, suite, reference and extractors of all.
        axes: that were tried.
        resolutions: of the stages that sampled.
        cells: in the axes' order.
        chosen: which cell `rule` chooses; None = it has nothing to go by.
        rule: in words.
    """

    first: Results
    axes: tuple[Axis, ...]
    resolutions: tuple[int, ...]
    cells: tuple[SweepCell, ...]
    chosen: int | None
    rule: str = RULE


def choose(cells: Sequence[SweepCell]) -> int | None:
    """Index of the cell that `RULE` chooses; None where alignment or KID was not measured.

    A CLIP that chose the images is no judge of them.
    """
    metric = next((m for m in _ALIGNMENT if all(_judged(cell, m) for cell in cells)), None)
    if metric is None or not all(cell.number("KID") for cell in cells):
        return None
    scores = [_value(cell, metric) for cell in cells]
    limit = max(scores) - TOLERANCE * abs(max(scores))
    allowed = [place for place, score in enumerate(scores) if score >= limit]
    return min(allowed, key=lambda place: _value(cells[place], "KID"))


def _judged(cell: SweepCell, metric: str) -> bool:
    number = cell.number(metric)
    return number is not None and number.is_judge


def _value(cell: SweepCell, metric: str) -> float:
    number = cell.number(metric)
    assert number is not None
    return number.value


def write_sweep(folder: Path, found: SweepResults) -> None:
    """Write the cells as JSON, and as a table for other programs."""
    text = json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n"
    write_file(folder / SWEEP_FILE, text.encode())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    names = [f"{axis.resolution}:{axis.setting}" for axis in found.axes]
    writer.writerow([*names, "metric", "features", "value", "low", "high", "count", "side"])
    for cell in found.cells:
        for one in cell.numbers:
            if one.group is None:
                row = [one.metric, one.features, one.value, one.low, one.high, one.count, one.side]
                writer.writerow([*cell.values, *row])
    write_file(folder / TABLE_FILE, stream.getvalue().encode())


def write_defaults(folder: Path, found: SweepResults) -> None:
    """Make the chosen cell's settings a cascade's own.

    Args:
        folder: of the cascade.
        found: a sweep of it.

    Raises:
        UsageError: the rule chose nothing, or `folder` is no cascade.
        CalotypeError: it cannot be written to.
    """
    if found.chosen is None:
        raise UsageError(
            "the rule chose no cell: give --reference, and a CLIP that scores captions"
        )
    chosen = found.cells[found.chosen].stages
    settings = dict(zip(found.resolutions, chosen, strict=True))
    if not (folder / CASCADE_FILE).is_file():
        raise UsageError(f"got {folder} to write defaults into; expected a cascade folder")
    for path in sorted(folder.glob(f"*/{STAGE_FILE}")):
        stage = load_config(path, StageConfig)
        if stage.resolution in settings:
            stage = replace(stage, sampling=settings[stage.resolution])
            write_file(path, json.dumps(to_dict(stage), indent=1).encode())
