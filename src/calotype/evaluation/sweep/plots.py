"""Figures of a sweep: alignment against distance, precision against recall, IS against FID.

Every cell is a point with the value of the last axis beside it and crosses of 95 %; cells that
differ in it alone are a line. The cells that no other beats in both numbers, the Pareto front,
are ringed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calotype.evaluation.results import Number
from calotype.evaluation.sweep.found import SweepCell, SweepResults
from calotype.pages.charts import (
    PAGE,
    PAPER,
    SERIES,
    chart_style,
    inline_svg,
    label_text,
    write_chart,
)

_MARKERS = ("o", "s", "^", "D", "v", "P")
_SIZE = (5.2, 3.9)
_LONG_LABEL = 40  # characters, with which a second line begins


@dataclass(frozen=True)
class Plot:
    """Two numbers against each other: metrics, by name, and the file's name."""

    name: str
    across: str
    up: str


@dataclass(frozen=True)
class Curve:
    """Points that belong together: their name, and which they are, in order."""

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True)
class Scatter:
    """A plot and what makes it: points (across, up), what stands beside each, their curves.

    Args:
        plot: which it is.
        points: of the plot.
        labels: of the points.
        curves: that they are on; a point may be on several.
        real: the same two numbers of real images, where they have them.
    """

    plot: Plot
    points: tuple[tuple[Number, Number], ...]
    labels: tuple[str, ...]
    curves: tuple[Curve, ...]
    real: tuple[Number | None, Number | None] = (None, None)


PLOTS = (
    Plot("fid-alignment", "FID", "CLIP score"),
    Plot("kid-alignment", "KID", "CLIP score"),
    Plot("kid-r-precision", "KID", "R-precision"),
    Plot("recall-precision", "recall", "precision"),
    Plot("fid-is", "FID", "IS"),
)


def write_plots(folder: Path, found: SweepResults) -> None:
    """Write each figure that there are numbers for, as SVG and as PNG."""
    write_scatters(folder, _scatters(found))


def page_plots(found: SweepResults) -> list[Markup]:
    """The same figures as parts of a page."""
    return page_scatters(_scatters(found))


def write_scatters(folder: Path, scatters: Iterable[Scatter]) -> None:
    """Write figures as SVG and as PNG."""
    for scatter in scatters:
        name = scatter.plot.name
        with chart_style(PAPER, name=name):
            figure = Figure(figsize=_SIZE, layout="constrained")
            _draw(figure.subplots(), scatter, PAPER.__getitem__)
            for ending in ("svg", "png"):
                write_chart(figure, folder / f"{name}.{ending}")


def page_scatters(scatters: Iterable[Scatter]) -> list[Markup]:
    """Figures as parts of a page."""
    charts = []
    for scatter in scatters:
        plot = scatter.plot
        with chart_style(name=plot.name):
            figure = Figure(figsize=_SIZE, layout="constrained")
            _draw(figure.subplots(), scatter, PAGE.__getitem__)
            charts.append(inline_svg(figure, f"{plot.up} against {plot.across}"))
    return charts


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indexes of points (across, up) that none beats in both, where higher is better in both."""
    return [
        place
        for place, (x, y) in enumerate(points)
        if not any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
    ]


def front(points: Sequence[tuple[Number, Number]]) -> list[int]:
    """`pareto` of numbers, whichever way each is better."""
    signs = [-1 if one.higher_is_better is False else 1 for one in points[0]]
    return pareto([(signs[0] * x.value, signs[1] * y.value) for x, y in points])


def _scatters(found: SweepResults) -> Iterator[Scatter]:
    for plot in PLOTS:
        if all(cell.number(plot.across) and cell.number(plot.up) for cell in found.cells):
            points = tuple(
                (_number(cell, plot.across), _number(cell, plot.up)) for cell in found.cells
            )
            labels = tuple(cell.values[-1] for cell in found.cells)
            yield Scatter(plot, points, labels, tuple(_curves(found)))


def _draw(axes: Axes, scatter: Scatter, colour: Callable[[str], str]) -> None:
    points = scatter.points
    for place, curve in enumerate(scatter.curves):
        own, marker = colour(SERIES[place % len(SERIES)]), _MARKERS[place % len(_MARKERS)]
        xs, ys = ([points[n][axis].value for n in curve.members] for axis in (0, 1))
        name = curve.name or None
        axes.plot(xs, ys, color=own, marker=marker, markersize=4, linewidth=1, label=name)
        for n in curve.members:
            x, y = points[n]
            _cross(axes, x, y, own)
            text, place_of = label_text(scatter.labels[n]), (x.value, y.value)
            axes.annotate(text, place_of, xytext=(4, 4), textcoords="offset points", fontsize=7)
    ringed = [points[n] for n in front(points)]
    axes.scatter(
        [x.value for x, _ in ringed], [y.value for _, y in ringed], s=90, facecolors="none",
        edgecolors=colour("ink"), linewidths=0.8, label="beaten by none in both",
    )  # fmt: skip
    _add_real(axes, scatter, colour("ink"))
    axes.set_xlabel(_label(points[0][0]))
    axes.set_ylabel(_label(points[0][1]))
    axes.grid(linewidth=0.5)
    axes.legend(fontsize=7)


def _add_real(axes: Axes, scatter: Scatter, colour: str) -> None:
    """Lines at the numbers of real images."""
    for number, line in zip(scatter.real, (axes.axvline, axes.axhline), strict=True):
        if number is not None:
            name = f"real images: {number.value:.3g}"
            line(number.value, color=colour, linewidth=0.8, linestyle="--", label=name)


def _cross(axes: Axes, x: Number, y: Number, colour: str) -> None:
    """The 95 % intervals of both numbers."""
    if x.low is not None and x.high is not None:
        axes.plot([x.low, x.high], [y.value] * 2, color=colour, linewidth=0.6, alpha=0.6)
    if y.low is not None and y.high is not None:
        axes.plot([x.value] * 2, [y.low, y.high], color=colour, linewidth=0.6, alpha=0.6)


def _label(number: Number) -> str:
    better = {True: "higher is better", False: "lower is better", None: ""}
    separator = ",\n" if len(number.label) > _LONG_LABEL else ", "
    return f"{number.label}{separator}{better[number.higher_is_better]}"


def _curves(found: SweepResults) -> Iterator[Curve]:
    """Cells that differ in the last axis alone, under the values of the others."""
    order = sorted(range(len(found.cells)), key=lambda n: (found.cells[n].values[:-1], n))
    names = [f"{axis.resolution}: {axis.setting}" for axis in found.axes[:-1]]
    groups = itertools.groupby(order, key=lambda n: found.cells[n].values[:-1])
    for values, members in groups:
        pairs = (f"{name} {value}" for name, value in zip(names, values, strict=True))
        yield Curve(label_text(", ".join(pairs)) if values else "", tuple(members))


def _number(cell: SweepCell, metric: str) -> Number:
    number = cell.number(metric)
    assert number is not None
    return number
