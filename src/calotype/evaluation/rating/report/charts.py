"""Charts of a study: bars of all three fractions, and means with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calotype.evaluation.rating.clustered import Clustered
from calotype.pages.charts import PAGE, chart_style, inline_svg, label_text

_WIDTH, _ROW, _AXIS = 4.7, 0.27, 0.5  # inches
_LABEL = 28  # characters
_READABLE = 0.09  # a bar's least fraction that has its number in it


@dataclass(frozen=True)
class Point:
    """A row of a chart of intervals: `other` is what all raters say, where some are left out."""

    label: str
    value: float
    low: float | None
    high: float | None
    other: Point | None = None


def point(label: str, found: Clustered, scale: float = 1.0, other: Point | None = None) -> Point:
    """Of a mean, times `scale`."""
    low = None if found.low is None else scale * found.low
    high = None if found.high is None else scale * found.high
    return Point(label, scale * found.value, low, high, other)


def interval_chart(
    points: Sequence[Point],
    title: str,
    axis: str,
    *,
    line: float | None = None,
    ends: tuple[float, float] | None = None,
) -> Markup:
    """Means with their intervals, a row each.

    Args:
        points: from top to bottom.
        title: for those who do not see it.
        axis: what the values are.
        line: a value that is marked: no preference.
        ends: of the axis; None for what the values ask for.
    """
    with chart_style(name=title):
        figure, axes = _rows([one.label for one in points])
        for place, one in enumerate(points):
            if one.other is not None:
                _plot(axes, one.other, place + 0.22, "soft", "white")
            _plot(axes, one, place - (0.12 if one.other else 0), "s1", PAGE["s1"])
        if line is not None:
            axes.axvline(line, color=PAGE["soft"], lw=0.8, ls="--", zorder=0)
        if ends is not None:
            axes.set_xlim(*ends)
        axes.set_xlabel(axis)
        axes.grid(axis="x")
        said = "; ".join(f"{label_text(one.label)} {one.value:.1f}" for one in points)
        return inline_svg(figure, f"{title}: {said}")


def fraction_chart(rows: Sequence[tuple[str, Sequence[float]]], title: str) -> Markup:
    """Bars of the fractions (first, indifferent, second) of answers, a row each."""
    colours = (PAGE["s1"], PAGE["line"], PAGE["s2"])
    with chart_style(name=title):
        figure, axes = _rows([label for label, _ in rows])
        for place, (_, fractions) in enumerate(rows):
            left = 0.0
            for number, fraction in enumerate(fractions):
                axes.barh(place, 100 * fraction, 0.72, 100 * left, color=colours[number])
                if fraction >= _READABLE:
                    ink = PAGE["ink" if number == 1 else "page"]
                    middle = 100 * (left + fraction / 2)
                    text = f"{100 * fraction:.0f}"
                    axes.text(middle, place, text, color=ink, ha="center", va="center_baseline")
                left += fraction
        axes.set_xlim(0, 100)
        axes.set_xlabel("answers, %")
        said = "; ".join(
            f"{label_text(label)} " + ", ".join(f"{100 * one:.0f} %" for one in fractions)
            for label, fractions in rows
        )
        return inline_svg(figure, f"{title}: {said}")


def _rows(labels: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure with a row for each label, the first on top."""
    figure = Figure(figsize=(_WIDTH, _AXIS + _ROW * len(labels)), layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(labels)), [label_text(label, _LABEL) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.spines[["left", "top", "right"]].set_visible(False)
    return figure, axes


def _plot(axes: Axes, one: Point, place: float, colour: str, face: str) -> None:
    if one.low is not None and one.high is not None:
        axes.plot([one.low, one.high], [place, place], color=PAGE[colour], lw=1.4)
    face = PAGE["card"] if face == "white" else face
    axes.plot([one.value], [place], "o", ms=4.5, color=PAGE[colour], mfc=face, clip_on=False)
