"""Line charts as SVG, coloured by the page's style sheet, so that light and dark are one drawing.

The page's script reads values back from the paths with the scales that are noted on the drawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

from calotype.training.report.curves import Curve

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 12, 20, 26
_LOG_FROM = 20.0  # a chart whose values span more than this factor gets a logarithmic axis
_STRETCH = 0.04  # of the axis beyond the values


@dataclass(frozen=True)
class Chart:
    """A chart over the number of images.

    Args:
        title: what is shown.
        curves: drawn in this order, the last on top.
        note: a sentence beneath.
        bounds: where stages begin, with their names.
        show: how a value is written.
        floor: a value that a linear axis reaches down to.
        logarithmic: whether the axis may be; it is where the values ask for it.
        size: width and height.
    """

    title: str
    curves: tuple[Curve, ...]
    note: str = ""
    bounds: tuple[tuple[float, str], ...] = ()
    show: Callable[[float], str] = field(default=lambda value: f"{value:.4g}")
    floor: float | None = None
    logarithmic: bool = True
    size: tuple[int, int] = (640, 240)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return all(curve.last is None for curve in self.curves)


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels.

    Args:
        low: value at `start`.
        high: value at `end`.
        start: pixel.
        end: pixel.
        log: logarithmic.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Pixels of values."""
        low, high = self.low, self.high
        if self.log:
            low, high, values = math.log(low), math.log(high), np.log(np.maximum(values, low))
        return np.asarray(self.start + (values - low) / (high - low) * (self.end - self.start))


def human(value: float, gap: str = "") -> str:
    """A large number in short: 1.5k, 20M, 3.2G; `gap` stands before the letter."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{gap}{unit}"
    return f"{value:.3g}{gap}"


def draw(chart: Chart) -> Markup:
    """The chart as an `<svg>` element; nothing where it is empty."""
    if chart.empty:
        return Markup("")
    width, height = chart.size
    xs = np.concatenate([x for curve in chart.curves for x, _ in curve.pieces])
    ys = np.concatenate([y for curve in chart.curves for _, y in curve.pieces])
    x_axis = Axis(0.0, float(xs.max()), _LEFT, width - _RIGHT)
    y_axis = _y_axis(ys, chart)
    parts = [_frame(chart, x_axis, y_axis)]
    for curve in chart.curves:
        path = "".join(_path(x_axis(x), y_axis(y)) for x, y in curve.pieces)
        parts.append(
            Markup('<path class="curve {}" data-name="{}" d="{}"/>').format(
                curve.kind, curve.name, path
            )
        )
    last = ", ".join(f"{c.name} {chart.show(c.last)}" for c in chart.curves if c.last is not None)
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}" data-x="{}" data-y="{}" '
        'data-log="{}">{}<line class="cursor" y1="{}" y2="{}" hidden="hidden"/></svg>'
    ).format(
        width,
        height,
        f"{chart.title}; newest: {last}",
        f"{x_axis.low} {x_axis.high} {x_axis.start} {x_axis.end}",
        f"{y_axis.low} {y_axis.high} {y_axis.start} {y_axis.end}",
        int(y_axis.log),
        Markup("").join(parts),
        _TOP,
        height - _BOTTOM,
    )


def ticks(low: float, high: float, *, log: bool = False, most: int = 6) -> list[float]:
    """Round numbers between two values."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1, 2, 5), (1, 3), (1,)):
            marks = [digit * 10.0**decade for decade in decades for digit in digits]
            marks = [mark for mark in marks if low <= mark <= high]
            if len(marks) <= most:
                break
        return marks[:: math.ceil(len(marks) / most)] if marks else []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _y_axis(ys: np.ndarray, chart: Chart) -> Axis:
    low, high = float(ys.min()), float(ys.max())
    start, end = chart.size[1] - _BOTTOM, _TOP
    if chart.logarithmic and low > 0 and high / low > _LOG_FROM:
        margin = (high / low) ** _STRETCH
        return Axis(low / margin, high * margin, start, end, log=True)
    if chart.floor is not None:
        low = min(low, chart.floor)
    spread = high - low if high > low else max(abs(high), 1e-12)
    bottom = low if low == chart.floor else low - _STRETCH * spread
    return Axis(bottom, high + _STRETCH * spread, start, end)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    if len(x) == 1:  # a point: a line of no length with round ends
        return f"M{x[0]:.2f} {y[0]:.2f}h0"
    points = " ".join(f"{a:.2f} {b:.2f}" for a, b in zip(x, y, strict=True))
    return f"M{points}" if points else ""


def _frame(chart: Chart, x_axis: Axis, y_axis: Axis) -> Markup:
    """Grid lines, marks and the bounds of stages."""
    parts = []
    for value in ticks(y_axis.low, y_axis.high, log=y_axis.log):
        y = float(y_axis(np.array(value)))
        parts.append(
            f'<line class="grid" x1="{x_axis.start}" x2="{x_axis.end}" y1="{y}" y2="{y}"/>'
        )
        label = escape(chart.show(value))
        parts.append(f'<text x="{x_axis.start - 7}" y="{y + 3.5}" class="y">{label}</text>')
    for value in ticks(x_axis.low, x_axis.high, most=max(3, chart.size[0] // 100)):
        x = float(x_axis(np.array(value)))
        parts.append(f'<text x="{x}" y="{y_axis.start + 17}" class="x">{human(value)}</text>')
    for value, name in chart.bounds:
        x = float(x_axis(np.array(value)))
        parts.append(
            f'<line class="bound" x1="{x}" x2="{x}" y1="{y_axis.end}" y2="{y_axis.start}"/>'
        )
        parts.append(f'<text x="{x}" y="{y_axis.end - 6}" class="bound">{escape(name)}</text>')
    axis = f'<line class="axis" x1="{x_axis.start}" x2="{x_axis.end}" y1="{y_axis.start}"'
    parts.append(f'{axis} y2="{y_axis.start}"/>')
    return Markup("".join(parts))
