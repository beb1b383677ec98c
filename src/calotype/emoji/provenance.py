"""The half of a model card that no sample shows: training, data, licences, limits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calotype.config.diffusion import DiffusionTraining
from calotype.config.schedule import NormalLogSNR, WholeTimesteps
from calotype.emoji.measure import Measurements
from calotype.evaluation.about import NOT_AVAILABLE, About, table
from calotype.evaluation.runs import StageRun

_SHOWN_VALIDATIONS = 8


def training_section(about: About, runs: Sequence[StageRun]) -> str:
    """How each stage was trained, as far as its runs are at hand."""
    rows: list[list[object]] = []
    details = []
    for stage in about.stages:
        resolution = stage.config.resolution
        own = [run for run in runs if run.config.stage.resolution == resolution]
        for run in own:
            rows.append(_run_row(run))
            details += ["", _recipe_line(run.config)]
        if not own:
            rows.append([f"{resolution}²", *[NOT_AVAILABLE] * 6])
    head = ["stage", "recipe", "images seen", "hours", "images/s", "final loss", "skipped"]
    note = "Hours of steps and validations; the loss is the mean over the last 5 % of the run."
    return "\n".join([table(head, rows), "", note, *details, ""])


def learning_curves(runs: Sequence[StageRun]) -> str:
    """Error by noise level against images seen, a table a stage and run."""
    lines = [
        "## Learning curves",
        "",
        "Mean squared error of the estimate by sigma/alpha (20: from the text alone), trained / "
        "unseen images. Super-resolution stages see the true image, shrunk, with aug_level 0.",
    ]
    for run in runs:
        lines += ["", f"**{run.config.stage.resolution}²**, `{run.recipe}`:", "", _curve(run)]
    if not runs:
        lines += ["", f"Runs: {NOT_AVAILABLE}."]
    return "\n".join([*lines, ""])


def _run_row(run: StageRun) -> list[object]:
    rate = f"{run.images / run.seconds:.1f}" if run.seconds > 0 else NOT_AVAILABLE
    time, loss = f"{run.seconds / 3600:.2f}", f"{run.loss:.4f}"
    stage = f"{run.config.stage.resolution}²"
    return [stage, f"`{run.recipe}`", f"{run.images:,}", time, rate, loss, run.skipped]


def _recipe_line(config: DiffusionTraining) -> str:
    o, data = config.optimizer, config.data
    crop = "whole images" if data.crop is None else f"{data.crop}² crops"
    levels = "whole timesteps" if isinstance(config.levels, WholeTimesteps) else "uniform times"
    if isinstance(config.levels, NormalLogSNR):
        levels = f"log SNR ~ N({config.levels.mean:g}, {config.levels.std:g}²)"
    return (
        f"**{config.stage.resolution}²**: {o.kind} {o.learning_rate:g}, batch {config.batch_size}, "
        f"{crop}, {data.caption_variants} captions an image, caption dropout "
        f"{config.text_dropout:g}, {levels}, data_std {config.stage.data_std:g}, rate constant for "
        f"{o.decay_from:.0%} then down to {o.final_rate:.0%}, EMA half-life "
        f"{config.ema_halflife_images:,} images, seed {config.seed}."
    )


def _curve(run: StageRun) -> str:
    if not run.validations:
        return f"Errors by noise level: {NOT_AVAILABLE}."
    last = len(run.validations) - 1
    chosen = np.linspace(0, last, min(last + 1, _SHOWN_VALIDATIONS)).round()
    checks = [run.validations[int(place)] for place in chosen]
    errors = checks[-1].unseen or checks[-1].trained
    levels = [level for level in errors if level[:1].isdigit()]
    rows = [
        [f"{check.images:,}"]
        + [f"{_number(check.trained, level)} / {_number(check.unseen, level)}" for level in levels]
        for check in checks
    ]
    return table(["images seen", *(f"σ/α {level}" for level in levels)], rows)


def _number(errors: Mapping[str, float], level: str) -> str:
    value = errors.get(level)
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def data_section(about: About, found: Measurements) -> str:
    """Which images, whose, under which licences, and what was held out."""
    sets = Counter((r.set, r.style, r.license) for r in found.rows)
    train = Counter(r.set for r in found.rows if r.split == "train")
    authors = _authors(about.data_recipe)
    rows = [
        [name, style, licence, str(count), str(train[name]), *authors.get(name, ("", ""))]
        for (name, style, licence), count in sorted(sets.items())
    ]
    splits = Counter(row.split for row in found.rows)
    concepts = len({row.concept for row in found.rows if row.split == "train"})
    head = ["set", "style in captions", "licence", "images", "trained on", "by", "package"]
    return f"""## Data, licences, attribution

{table(head, rows)}

Trained on {splits["train"]} images of {concepts} concepts. Never trained on:
{splits["unseen_pair"]} unseen pairs (the concept is known, but not in this style) and
{splits["unseen_concept"]} images of unseen concepts (in no style).

`ATTRIBUTION.md` beside this card names authors, sources and licences of
the images; samples can resemble them closely, see below. The weights are under the package's
licence, Apache-2.0. Make the data with `calotype data emoji`.
"""


def _authors(recipe: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    found = {}
    for source in recipe.get("recipe", {}).get("sources", []):
        package = source["package"]
        name = f"{package['name']}@{package['version']}"
        found[source["set"]] = (f"[{source['author']}]({source['url']})", name)
    return found


def limits_section(about: About, found: Measurements) -> str:
    """What it cannot do."""
    groups = {group.name: group for group in found.groups}
    fractions = ", ".join(
        f"{group.found / len(group.findings):.0%} of {name}" for name, group in groups.items()
    )
    sides = [stage.config.resolution for stage in about.stages]
    lines = [
        "## Limits",
        "",
        "- A small world: emoji, one image a concept and style. What is asked for outside it "
        "comes out as something near it, or as nothing recognisable.",
        f"- What it was trained on it samples best: found are {fractions} (table above). Samples "
        "of trained pairs can be close to copies of the images they were trained on.",
        "- English captions, best in the words of training: name, style, background colour. "
        "Counting, relations, several things at once and written text were not trained.",
        "- People are drawn as emoji draw them: in few ways, and mostly in one yellow tone.",
        f"- Other sizes than {sides[0]}² (and what follows from it) were not trained on.",
    ]
    if sides[-1] > 256:
        lines.append(
            f"- Sets that ship 256² images only (fluent-3d) were not trained at {sides[-1]}²: "
            "what their style looks like there comes from the other sets."
        )
    return "\n".join(lines) + "\n"
