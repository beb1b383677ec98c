"""Which charts a report shows, from the columns of a log, and how matplotlib renders them.

Colours are names of the page's style sheet, so that light and dark are one chart. The page's
script reads values back from the paths with the scales that are noted on the chart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from calotype.diffusion.noise_marks import BINS, NOISE_RATIOS
from calotype.pages.charts import PAGE, chart_style, page_svg, svg_text
from calotype.training.record import RunRecord, number
from calotype.training.report.curves import Curve, make_curve, smoothed

Bounds = Sequence[tuple[float, str]]
_LOG_FROM = 20.0  # a chart whose values span more than this factor gets a logarithmic axis
_SMALL = (3.2, 1.7)
_MOST_MEASURES = 9
_TITLES = {"vlb": "bound, bits per dimension"}


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def human(value: float, gap: str = "") -> str:
    """A large number in short: 1.5k, 20M, 3.2G; `gap` stands before the letter."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{gap}{unit}"
    return f"{value:.3g}{gap}"


@dataclass(frozen=True)
class Chart:
    """A chart over the number of images.

    Args:
        title: what is shown.
        curves: plotted in this order, the last on top.
        note: a sentence beneath.
        show: how a value is written.
        from_zero: the axis is linear and reaches down to 0; else it is logarithmic where the
            values ask for it.
        size: in inches.
    """

    title: str
    curves: tuple[Curve, ...]
    note: str = ""
    show: Callable[[float], str] = "{:.4g}".format
    from_zero: bool = False
    size: tuple[float, float] = (6.4, 2.4)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to plot."""
        return all(curve.last is None for curve in self.curves)


def plot(chart: Chart, bounds: Bounds = ()) -> Markup:
    """The chart as an `<svg>` element, with marks where stages begin."""
    with chart_style():
        figure = Figure(figsize=chart.size, layout="constrained")
        axes = figure.subplots()
        for curve in chart.curves:
            (line,) = axes.plot(curve.x, curve.y, color=PAGE[curve.colour], clip_on=False)
            line.set(linewidth=0.8 if curve.colour == "raw" else 1.4, gid=f"curve {curve.name}")
        _set_axes(axes, chart, bounds)
        svg = svg_text(figure)
    return _for_page(svg, chart, axes)


def _for_page(svg: str, chart: Chart, axes: Axes) -> Markup:
    """The SVG with its scales and newest values noted."""
    svg = page_svg(re.sub(r' id="curve ([^"]*)"', r' data-name="\1"', svg))
    left, bottom, right, top = axes.get_position().extents * 72 * np.tile(chart.size, 2)
    low, high = 72 * chart.size[1] - bottom, 72 * chart.size[1] - top  # y goes down in a page
    last = ", ".join(f"{c.name} {chart.show(c.last)}" for c in chart.curves if c.last is not None)
    head = Markup('<svg role="img" aria-label="{}" data-x="{}" data-y="{}" data-log="{}"').format(
        f"{chart.title}; newest: {last}",
        " ".join(map(str, (*axes.get_xlim(), left, right))),
        " ".join(map(str, (*axes.get_ylim(), low, high))),
        int(axes.get_yscale() == "log"),
    )
    cursor = f'<line class="cursor" y1="{low}" y2="{high}" hidden="hidden"/></svg>'
    return Markup(svg.replace("<svg", head, 1).replace("</svg>", cursor))


def _set_axes(axes: Axes, chart: Chart, bounds: Bounds) -> None:
    y = np.concatenate([curve.y for curve in chart.curves])
    low, high = np.nanmin(y), np.nanmax(y)
    if chart.from_zero:
        axes.set_ylim(bottom=min(low, 0.0))
    elif low > 0 and high / low > _LOG_FROM:
        axes.set_yscale("log")
        marks = (1, 2, 5) if high / low < 500 else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=marks))
        axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0, max(np.nanmax(curve.x, initial=1.0) for curve in chart.curves))
    axes.xaxis.set_major_formatter(lambda value, _: human(value))
    axes.yaxis.set_major_formatter(lambda value, _: chart.show(value))
    axes.tick_params(length=0)
    axes.grid(axis="y", clip_on=False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    for x, name in bounds:
        axes.axvline(x, color=PAGE["soft"], lw=0.8, ls=":", clip_on=False)
        axes.annotate(
            name, (x, 1), (0, 3), ("data", "axes fraction"), "offset points", color=PAGE["soft"]
        )


def bounds(run: RunRecord) -> Bounds:
    """Where stages begin, with their names; nothing for a run of one stage."""
    segments = run.segments
    starts = [0.0, *(float(run.steps["images"][part.start - 1]) for _, part in segments[1:])]
    named = [(x, f"{size} px") for x, (size, _) in zip(starts, segments, strict=True)]
    return named if len(named) > 1 else ()


def loss_charts(run: RunRecord) -> list[Chart]:
    """Loss, raw and smoothed; loss by noise level; gradient norm; learning rate."""
    levels = (_curve(run, f"loss_by_level/{bin}", bin, f"l{i}") for i, bin in enumerate(BINS))
    note = "Smoothed, by sigma/alpha of the images of the steps: pale is little noise."
    filled = tuple(curve for curve in levels if curve.last is not None)
    rate = _curve(run, "lr", "learning rate", "main", smooth=False)
    return [
        Chart("Loss", _pair(run, "loss")),
        Chart("Training loss by noise level", filled, note),
        Chart("Gradient norm", _pair(run, "grad_norm"), "Before clipping."),
        Chart("Learning rate", (rate,), from_zero=True),
    ]


def speed_charts(run: RunRecord) -> list[Chart]:
    """Images a second, the time of waiting, operations a second and of the peak."""
    chart = partial(Chart, from_zero=True)
    return [
        chart("Images a second", _pair(run, "images_per_second"), show=human),
        chart("Fraction of time waiting for data", _pair(run, "data_wait"), show=_percent),
        chart("FLOP/s", _pair(run, "flops_per_second"), _peak_note(run), show=human),
        chart("Fraction of the measured peak", _pair(run, "flops_share_of_peak"), show=_percent),
    ]


def validation_charts(run: RunRecord) -> list[Chart]:
    """A chart for each measure, at most nine: a curve for each kind of example."""
    lines = [pair for line in run.validations for pair in line.items() if isinstance(pair[1], dict)]
    kinds = sorted(dict(lines), key="trained".__ne__)  # what is trained on lies beneath
    charts = []
    for measure in dict.fromkeys(str(m) for _, errors in lines for m in errors):
        curves = zip(kinds, ("other", "main", "l0", "l2", "l4"), strict=False)
        named = tuple(_errors(run, kind, colour, measure) for kind, colour in curves)
        title = f"sigma/alpha {measure}" if by_noise(measure) else _TITLES.get(measure, measure)
        charts.append(Chart(title, named, size=_SMALL))
    return [chart for chart in charts if not chart.empty][:_MOST_MEASURES]


def by_noise(measure: str) -> bool:
    """Whether it is the error at a noise level, which is its name."""
    return measure in {f"{ratio:g}" for ratio in NOISE_RATIOS}


def _pair(run: RunRecord, column: str) -> tuple[Curve, Curve]:
    """Each step faintly, and the smoothed curve on top."""
    raw = _curve(run, column, "a step", "raw", smooth=False)
    return raw, _curve(run, column, "smoothed", "main")


def _curve(run: RunRecord, column: str, name: str, colour: str, *, smooth: bool = True) -> Curve:
    """Of a column; losses by level are weighted by their images. Stages are smoothed apart."""
    x, y = run.steps["images"], run.steps[column]
    weights = run.steps[column.replace("loss_", "images_")] if "/" in column else np.ones(len(y))
    parts = [part for _, part in run.segments]
    values = (smoothed(y[part], weights[part]) if smooth else y[part] for part in parts)
    return make_curve(name, colour, zip((x[part] for part in parts), values, strict=True))


def _errors(run: RunRecord, kind: str, colour: str, level: str) -> Curve:
    pieces = []
    for size in dict.fromkeys(size for size, _ in run.segments):
        points = [
            (number(line["images"]), number(line[kind].get(level)))
            for line in run.validations
            if isinstance(line.get(kind), dict) and line.get("stage", size) == size
        ]
        x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
        pieces.append((x, y))
    return make_curve(kind, colour, pieces)


def _peak_note(run: RunRecord) -> str:
    rate, fraction = run.steps["flops_per_second"], run.steps["flops_share_of_peak"]
    known = np.isfinite(rate) & (fraction > 0.005)
    if not known.any():
        return ""
    peak = float(np.median(rate[known] / fraction[known]))
    return f"Counted for the network; the measured peak is about {human(peak, ' ')}FLOP/s."
