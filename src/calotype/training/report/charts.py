"""Which charts a report shows, from the columns of a log."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from calotype.diffusion.noise_marks import BINS, NOISE_RATIOS
from calotype.training.report.curves import Curve, make_curve
from calotype.training.report.record import RunRecord, number
from calotype.training.report.svg import Chart, human

_SMALL = (320, 170)


def bounds(run: RunRecord) -> tuple[tuple[float, str], ...]:
    """Where stages begin, with their names; nothing for a run of one stage."""
    segments = run.segments
    if len(segments) < 2:
        return ()
    images = run.steps["images"]
    starts = [0.0, *(float(images[part.start - 1]) for _, part in segments[1:])]
    return tuple((x, f"{size} px") for x, (size, _) in zip(starts, segments, strict=True))


def loss_charts(run: RunRecord) -> list[Chart]:
    """Loss, raw and smoothed; loss by noise level; gradient norm; learning rate."""
    return [
        _pair(run, "loss", "Loss"),
        _level_chart(run),
        _pair(run, "grad_norm", "Gradient norm", note="Before clipping."),
        Chart(
            "Learning rate",
            (_curve(run, "lr", "learning rate", "main"),),
            bounds=bounds(run),
            show=lambda value: f"{value:.2g}",
            floor=0.0,
            logarithmic=False,
        ),
    ]


def speed_charts(run: RunRecord) -> list[Chart]:
    """Images a second, the share of waiting, operations a second and of the peak."""
    share = Chart(
        "Share of time waiting for data",
        (
            _curve(run, "data_wait", "a step", "raw"),
            _curve(run, "data_wait", "smoothed", "main", smooth=True),
        ),
        bounds=bounds(run),
        show=_percent,
        floor=0.0,
        logarithmic=False,
    )
    return [
        _pair(run, "images_per_second", "Images a second", show=human, floor=0.0),
        share,
        _pair(run, "flops_per_second", "FLOP/s", show=human, floor=0.0, note=_peak_note(run)),
        _pair(run, "flops_share_of_peak", "Share of the measured peak", show=_percent, floor=0.0),
    ]


def validation_charts(run: RunRecord) -> list[Chart]:
    """A chart for each noise level: images to validate on, and as many trained ones."""
    charts = []
    for ratio in NOISE_RATIOS:
        curves = tuple(
            _validation_curve(run, key, kind, level=f"{ratio:g}")
            for key, kind in (("trained", "other"), ("validation", "main"))
        )
        title = f"sigma/alpha {ratio:g}"
        charts.append(Chart(title, curves, bounds=bounds(run), show=_short, size=_SMALL))
    return [chart for chart in charts if not chart.empty]


def _pair(
    run: RunRecord,
    column: str,
    title: str,
    *,
    show: Callable[[float], str] = lambda value: f"{value:.4g}",
    floor: float | None = None,
    note: str = "",
) -> Chart:
    """Each step faintly, and the smoothed curve on top."""
    return Chart(
        title,
        (
            _curve(run, column, "a step", "raw"),
            _curve(run, column, "smoothed", "main", smooth=True),
        ),
        note=note,
        bounds=bounds(run),
        show=show,
        floor=floor,
        logarithmic=floor is None,
    )


def _curve(run: RunRecord, column: str, name: str, kind: str, *, smooth: bool = False) -> Curve:
    parts = [part for _, part in run.segments]
    x, y = run.steps["images"], run.steps[column]
    return make_curve(name, kind, x=x, y=y, parts=parts, smooth=smooth)


def _level_chart(run: RunRecord) -> Chart:
    parts, curves = [part for _, part in run.segments], []
    for place, level in enumerate(BINS):
        curves.append(
            make_curve(
                level,
                f"level-{place}",
                x=run.steps["images"],
                y=run.steps[f"loss_by_level/{level}"],
                parts=parts,
                smooth=True,
                weights=run.steps[f"images_by_level/{level}"],
            )
        )
    note = "Smoothed, by sigma/alpha of the images of the steps: pale is little noise."
    filled = tuple(curve for curve in curves if curve.last is not None)
    return Chart("Training loss by noise level", filled, note=note, bounds=bounds(run), show=_short)


def _validation_curve(run: RunRecord, key: str, kind: str, *, level: str) -> Curve:
    pieces = []
    for size in dict.fromkeys(size for size, _ in run.segments):
        points = [
            (number(line["images"]), number(line[key].get(level)))
            for line in run.validations
            if isinstance(line.get(key), dict) and line.get("stage", size) == size
        ]
        x, y = np.array(points, dtype=np.float64).reshape(-1, 2).T
        pieces.append(make_curve(key, kind, x=x, y=y, parts=[slice(0, len(x))]).pieces[0])
    return Curve(key, kind, tuple(pieces))


def _peak_note(run: RunRecord) -> str:
    rate, share = run.steps["flops_per_second"], run.steps["flops_share_of_peak"]
    known = np.flatnonzero(np.isfinite(rate) & (share > 0.005))
    if len(known) == 0:
        return ""
    peak = float(np.median(rate[known] / share[known]))
    return f"Counted for the network; the measured peak is about {human(peak, ' ')}FLOP/s."


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def _short(value: float) -> str:
    return f"{value:.3g}"
