"""What the comparison of guidances found: numbers, differences, who was fooled; and its files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calotype.config.typed_json import to_dict
from calotype.diffusion.gradient_guidance import GuidanceForm
from calotype.evaluation.judging import CLIP_SCORE, R_PRECISION
from calotype.evaluation.measure import Measured
from calotype.evaluation.metrics.intervals import Estimate, Pair, paired_difference
from calotype.evaluation.options import GUIDES, JUDGES
from calotype.evaluation.results import Number, Results, Scores
from calotype.evaluation.sweep.plots import Curve, Plot, Scatter, front, write_scatters
from calotype.storage.files import write_file

GUIDANCE_FILE, TABLE_FILE = "guidance.json", "guidance.csv"
FOUND = "found"
"""The fraction of samples in which a rule finds what was asked for."""
GUIDE, JUDGE = f"{GUIDES}{CLIP_SCORE}", f"{JUDGES}{CLIP_SCORE}"
METRICS = (
    GUIDE, JUDGE, "KID", "precision", "recall", FOUND, CLIP_SCORE, R_PRECISION,
    f"{GUIDES}{R_PRECISION}", f"{JUDGES}{R_PRECISION}", "FID",
)  # fmt: skip
"""Of each point, as far as they were measured."""
PLOTS = (
    Plot("kid-guide", "KID", GUIDE),
    Plot("kid-judge", "KID", JUDGE),
    Plot("guide-judge", GUIDE, JUDGE),
    Plot("recall-precision", "recall", "precision"),
    Plot("kid-found", "KID", FOUND),
    Plot("kid-clip", "KID", CLIP_SCORE),
)


@dataclass(frozen=True)
class Point:
    """How the base is guided.

    Args:
        weight: of classifier-free guidance; 1 = off.
        scale: of guidance by CLIP; 0 = off.
    """

    weight: float = 1.0
    scale: float = 0.0

    @property
    def name(self) -> str:
        """Of its folder, and of its line in the results."""
        if self.scale > 0:
            return f"clip-{self.scale:g}"
        return "unguided" if self.weight == 1 else f"free-{self.weight:g}"

    def is_weaker(self, other: Point) -> bool:
        """Whether the other guides in the same way, and more; not at all is less than any."""
        if self == Point():
            return other != self
        ways = (self.scale, other.scale) if self.scale > 0 else (self.weight - 1, other.weight - 1)
        return ways[0] * ways[1] > 0 and abs(ways[0]) < abs(ways[1])


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Scores of a point's samples minus others', paired by prompt.

    Args:
        guide_from_real: what the guide says of samples, minus what it says of the real images.
        guide_from_unguided: minus what it says of samples without guidance.
        judge_from_real: as above, by the judge.
        judge_from_unguided: likewise.
        judge_from_weaker: minus what it says where guidance of the same way is weaker, or off, and
            its score highest.
    """

    guide_from_real: Estimate
    guide_from_unguided: Estimate
    judge_from_real: Estimate
    judge_from_unguided: Estimate
    judge_from_weaker: Estimate


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Which of the differences are beyond their intervals of 95 %, and what follows.

    Args:
        guide_over_real: the guide finds samples to fit their captions better than real images do.
        judge_under_unguided: the judge finds them to fit worse than samples without guidance.
        judge_under_real: the judge finds them to fit worse than real images.
        judge_fell: the judge finds them to fit worse than samples of weaker guidance.
    """

    guide_over_real: bool
    judge_under_unguided: bool
    judge_under_real: bool
    judge_fell: bool

    @property
    def adversarial(self) -> bool:
        """The guide prefers samples to real images, and more guidance made them worse."""
        return self.guide_over_real and self.judge_fell

    @property
    def overrated(self) -> bool:
        """The guide prefers samples to real images, the judge real images to samples."""
        return self.guide_over_real and self.judge_under_real


@dataclass(frozen=True, kw_only=True)
class GuidedPoint:
    """One way of guiding, measured."""

    name: str
    point: Point
    numbers: tuple[Number, ...]
    differences: Differences
    verdict: Verdict

    def number(self, metric: str) -> Number | None:
        """The number of a metric, by the first features that it is of."""
        return _first(self.numbers, metric)


@dataclass(frozen=True, kw_only=True)
class GuidanceResults:
    """What was found.

    Args:
        first: results of the unguided point: model, captions, reference, extractors of all.
        form: what guidance by CLIP moved.
        real: numbers of the real images of the captions.
        points: the unguided one first.
        adversarial: names of the points that are.
        overrated: likewise.
        fronts: by plot, names of the points that no other beats in both numbers.
    """

    first: Results
    form: GuidanceForm
    real: tuple[Number, ...]
    points: tuple[GuidedPoint, ...]
    adversarial: tuple[str, ...]
    overrated: tuple[str, ...]
    fronts: Mapping[str, tuple[str, ...]]


def guidance_results(
    points: Sequence[Point], measured: Sequence[Measured], real: Measured, *, form: GuidanceForm
) -> GuidanceResults:
    """Compare all points with the first, which is unguided, and with real images."""
    found = []
    for point, one in zip(points, measured, strict=True):
        pairs = zip(points, measured, strict=True)
        weaker = [other for before, other in pairs if before.is_weaker(point)]
        best = max(weaker, key=_judged, default=one)
        others = {"real": real, "unguided": measured[0], "weaker": best}
        found.append(_compared(point, one, others))
    return GuidanceResults(
        first=measured[0].results,
        form=form,
        real=_numbers(real.results),
        points=tuple(found),
        adversarial=tuple(one.name for one in found if one.verdict.adversarial),
        overrated=tuple(one.name for one in found if one.verdict.overrated),
        fronts={
            plot.name: tuple(found[n].name for n in front(_pairs(plot, found)))
            for plot in possible_plots(found)
        },
    )


def _compared(point: Point, one: Measured, others: Mapping[str, Measured]) -> GuidedPoint:
    """One point beside "real", "unguided" and "weaker"."""

    def minus(other: str, metric: str) -> Estimate:
        theirs = _scores(others[other].scores, metric)
        return paired_difference(_scores(one.scores, metric), theirs, common=True)

    differences = Differences(
        guide_from_real=minus("real", GUIDE),
        guide_from_unguided=minus("unguided", GUIDE),
        judge_from_real=minus("real", JUDGE),
        judge_from_unguided=minus("unguided", JUDGE),
        judge_from_weaker=minus("weaker", JUDGE),
    )
    return GuidedPoint(
        name=point.name,
        point=point,
        numbers=_numbers(one.results),
        differences=differences,
        verdict=Verdict(
            guide_over_real=_above(differences.guide_from_real),
            judge_under_unguided=_below(differences.judge_from_unguided),
            judge_under_real=_below(differences.judge_from_real),
            judge_fell=_below(differences.judge_from_weaker),
        ),
    )


def _judged(one: Measured) -> float:
    """What the judge says of a point, on average."""
    return float(np.mean(list(_scores(one.scores, JUDGE).values())))


def _above(difference: Estimate) -> bool:
    return difference.low is not None and difference.low > 0


def _below(difference: Estimate) -> bool:
    return difference.high is not None and difference.high < 0


def _scores(scores: Scores, metric: str) -> dict[Pair, float]:
    """A score of each sample, whichever CLIP it is of."""
    column = next(values for name, values in scores.columns.items() if name.startswith(metric))
    pairs = zip(scores.samples, column.tolist(), strict=True)
    return {(sample.prompt, sample.index): value for sample, value in pairs if np.isfinite(value)}


def _numbers(results: Results) -> tuple[Number, ...]:
    """Those that are compared, of all features."""
    whole = [one for one in results.numbers if one.group is None and one.metric in METRICS]
    return tuple(sorted(whole, key=lambda one: METRICS.index(one.metric)))


def _first(numbers: Sequence[Number], metric: str) -> Number | None:
    return next((one for one in numbers if one.metric == metric), None)


def possible_plots(points: Sequence[GuidedPoint]) -> list[Plot]:
    """The plots that all points have numbers for."""
    return [
        plot for plot in PLOTS if all(p.number(plot.across) and p.number(plot.up) for p in points)
    ]


def _pairs(plot: Plot, points: Sequence[GuidedPoint]) -> list[tuple[Number, Number]]:
    found = ((point.number(plot.across), point.number(plot.up)) for point in points)
    return [(x, y) for x, y in found if x is not None and y is not None]


def guidance_scatters(found: GuidanceResults) -> Iterator[Scatter]:
    """A line of weights and one of scales, both from the unguided point, and real images' own."""
    points = [one.point for one in found.points]
    free = [n for n, point in enumerate(points) if point.scale == 0]
    scaled = [n for n, point in enumerate(points) if point == Point() or point.scale > 0]
    curves = (
        Curve("classifier-free, weight", tuple(sorted(free, key=lambda n: points[n].weight))),
        Curve("by CLIP, scale", tuple(sorted(scaled, key=lambda n: points[n].scale))),
    )
    labels = tuple(_label(point) for point in points)
    for plot in possible_plots(found.points):
        pairs = tuple(_pairs(plot, found.points))
        real = (_first(found.real, plot.across), _first(found.real, plot.up))
        yield Scatter(plot, pairs, labels, curves, real)


def _label(point: Point) -> str:
    if point == Point():
        return "off"
    return f"{point.scale:g}" if point.scale > 0 else f"{point.weight:g}"


def write_guidance(folder: Path, found: GuidanceResults) -> None:
    """Write what was found as JSON, as a table for other programs, and as figures."""
    text = json.dumps(to_dict(found), indent=1, allow_nan=False) + "\n"
    write_file(folder / GUIDANCE_FILE, text.encode())
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["point", "weight", "scale", "metric", "features", "value", "low", "high", "N"])
    rows = [("real", "", "", found.real)]
    rows += [(p.name, f"{p.point.weight:g}", f"{p.point.scale:g}", p.numbers) for p in found.points]
    for *settings, numbers in rows:
        for one in numbers:
            own = [one.metric, one.features, one.value, one.low, one.high, one.count]
            writer.writerow([*settings, *own])
    write_file(folder / TABLE_FILE, stream.getvalue().encode())
    write_scatters(folder, guidance_scatters(found))
