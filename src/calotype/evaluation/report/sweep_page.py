"""The page of a sweep: its curves, all cells in a table, and the same prompts in every cell."""

from __future__ import annotations

from pathlib import Path

from calotype.evaluation.report.figures import decimals, facts, interval
from calotype.evaluation.results import Number
from calotype.evaluation.sweep.found import SweepResults
from calotype.evaluation.sweep.plots import page_plots
from calotype.pages.page import render_page, write_page

_FEW = ("FID", "KID", "precision", "recall", "IS", "CLIP score", "R-precision", "CMMD")


def write_sweep_page(folder: Path, found: SweepResults) -> int:
    """Write `folder`/index.html; its size in bytes."""
    metrics = [name for name in _FEW if any(cell.number(name) for cell in found.cells)]
    html = render_page(
        "calotype.evaluation.report",
        "sweep.html.j2",
        title=f"{found.first.samples.name}: {_tried(found)}",
        plots=page_plots(found),
        axes=[f"{axis.resolution}: {axis.setting}" for axis in found.axes],
        metrics=[(name, _label(found, name)) for name in metrics],
        cells=found.cells,
        chosen=found.chosen,
        rule=found.rule,
        facts=facts(found.first),
        decimals=decimals,
        interval=interval,
    )
    return write_page(folder / "index.html", html)


def _tried(found: SweepResults) -> str:
    return ", ".join(f"{axis.setting} at {axis.resolution}" for axis in found.axes)


def _label(found: SweepResults, metric: str) -> str:
    numbers: list[Number] = [n for cell in found.cells if (n := cell.number(metric)) is not None]
    return numbers[0].label
