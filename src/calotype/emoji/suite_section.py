"""What a model card says of the suite: categories, distances to real images, guidance curves."""

from __future__ import annotations

from collections.abc import Mapping

from calotype.evaluation.about import table
from calotype.evaluation.report.figures import decimals, interval
from calotype.evaluation.results import CHECKED, Number, Results
from calotype.evaluation.sweep.found import SweepCell, SweepResults


def evaluation_section(found: Results) -> str:
    """The suite by category, and the numbers of the whole set."""
    samples, suite = found.samples, found.samples.suite
    each = f"{samples.each} images of each prompt" if samples.each is not None else ""
    side = "" if samples.size is None else f" at {samples.size[0]}²"
    head = f"""## {suite.name}

{samples.count:,} samples{side}: {suite.prompts} prompts chosen by hash, {each}, seed
{samples.seed}. Each category has a rule of its own that was proven on real images first
(`docs/evaluation-emoji.md`); right is a fraction of the samples that the rule can judge, with a
95 % interval clustered by prompt.

"""
    rows = [
        [group, f"{one.value:.0%}", _percents(one), one.count, "; ".join(one.notes)]
        for group, one in found.of_group(CHECKED).items()
    ]
    rows += [[group, "–", "", "", why] for group, why in found.left_to_people.items()]
    text = head + table(["category", "right", "95 %", "samples", ""], rows)
    whole = [one for one in found.numbers if one.group is None]
    lines = [
        [_name(one), decimals(one.value), interval(one), _seeds(one), _notes(one)] for one in whole
    ]
    real = (
        ""
        if found.reference is None
        else (f" Real images: {found.reference.count:,} of {found.reference.name}, all splits.")
    )
    text += f"""

Numbers of the whole set. In brackets: features, samples, and pixels before features; they compare
with the same of other models on the same suite, and with no published FID.{real}

"""
    columns = ["number", "value", "95 %", "each seed alone", ""]
    return text + table(columns, lines) + "\n"


def sweep_section(found: SweepResults, charts: Mapping[str, str]) -> str:
    """Guidance and thresholding: the charts, and the numbers behind them."""
    axes = " and ".join(f"`{axis.setting}` of the {axis.resolution}² stage" for axis in found.axes)
    count, suite = found.first.samples.count, found.first.samples.suite.name
    parts = [
        "## Guidance and thresholding",
        f"{axes[0].upper()}{axes[1:]}, each with every other: {count} samples of {suite} a cell, "
        "the same seeds in all. Crosses are intervals of 95 %; ringed points are beaten by none in "
        "both.",
        *(f"![{title}]({file})" for title, file in charts.items()),
    ]
    metrics = [m for m in _SHOWN if all(cell.number(m) for cell in found.cells)]
    rows = []
    for place, cell in enumerate(found.cells):
        values = [f"**{v}**" if place == found.chosen else v for v in cell.values]
        rows.append([*values, *(_of(cell, metric) for metric in metrics)])
    names = [axis.setting for axis in found.axes]
    parts.append(table([*names, *metrics], rows))
    if found.chosen is not None:
        parts.append(f"Bold, by a rule fixed before: {found.rule}.")
    return "\n\n".join(parts) + "\n"


_SHOWN = ("KID", "FID", "precision", "recall", "CLIP score", "R-precision")


def _of(cell: SweepCell, metric: str) -> str:
    number = cell.number(metric)
    return "" if number is None else decimals(number.value)


def _name(number: Number) -> str:
    return number.label.replace("|", "/")


def _percents(number: Number) -> str:
    if number.low is None or number.high is None:
        return ""
    return f"{number.low:.0%} – {number.high:.0%}"


def _seeds(number: Number) -> str:
    return ", ".join(map(decimals, number.seeds))


def _notes(number: Number) -> str:
    return "; ".join(number.notes)
