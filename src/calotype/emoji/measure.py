"""All figures of a model card, measured in one go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from calotype.cascade import Cascade
from calotype.emoji.editing_results import EditingResults
from calotype.emoji.gallery import (
    Gallery,
    PromptSuite,
    keys_at,
    over_background,
    prompts_for,
    read_gallery,
    read_images,
)
from calotype.emoji.naming import Naming
from calotype.emoji.prompts import EvaluationPrompt, ImageRow
from calotype.emoji.suite import GroupResult, SampledSuite, measure_group, sample_suite
from calotype.evaluation.results import Results
from calotype.evaluation.runs import StageRun, read_runs
from calotype.evaluation.superresolution import Comparison, RealImage, compare_with_bicubic
from calotype.evaluation.sweep.found import SweepResults

GROUPS = {
    "train": "trained pairs",
    "unseen_pair": "unseen pairs",
    "unseen_concept": "unseen concepts",
}
HELD_OUT = ("unseen_pair", "unseen_concept")
Say = Callable[[str], None]


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Args:
        captions: random captions a group.
        images: held-out images a super-resolution stage enlarges.
        steps: numbers of steps it is tried with, beside its own default.
    """

    captions: int = 96
    images: int = 24
    steps: tuple[int, ...] = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Measurements:
    """Everything a card prints."""

    rows: tuple[ImageRow, ...]
    suite: PromptSuite
    sampled: SampledSuite
    groups: tuple[GroupResult, ...]
    comparisons: tuple[Comparison, ...] = ()
    runs: tuple[StageRun, ...] = ()
    evaluation: Results | None = None
    sweep: SweepResults | None = None
    naming: tuple[Naming, ...] = ()
    editing: EditingResults | None = None


def measure(
    cascade: Cascade, data: Path, runs: Sequence[Path], *, effort: Effort, say: Say = print
) -> Measurements:
    """Sample and measure a cascade that begins with a base, on the emoji set `data`.

    `runs` are the folders of those that trained it; missing ones are passed over.
    """
    resolution = cascade.stages[0].config.resolution
    say(f"reading the images of {data}")
    gallery = read_gallery(data, resolution)
    suite = prompts_for(gallery)
    say(f"sampling {effort.captions} random captions a group")
    groups = _measure_groups(cascade, gallery, effort.captions)
    say(f"sampling {len(suite.prompts)} prompts")
    last = cascade.stages[-1].config.resolution
    reals = partial(_finer, data, last)
    sampled = sample_suite(cascade, gallery, suite.prompts, stop_at=last, reals=reals)
    found = Measurements(gallery.rows, suite, sampled, groups)
    comparisons = []
    for stage in cascade.stages[1:]:
        say(f"comparing the {stage.config.resolution} stage with bicubic enlargement")
        compared = _compare(cascade, data, gallery, stage.config.resolution, effort=effort)
        comparisons += [] if compared is None else [compared]
    return replace(found, comparisons=tuple(comparisons), runs=read_runs(runs))


def _measure_groups(cascade: Cascade, gallery: Gallery, count: int) -> tuple[GroupResult, ...]:
    chosen = {name: gallery.sample(split, count) for split, name in GROUPS.items()}
    return tuple(
        measure_group(cascade, gallery, rows, name=name) for name, rows in chosen.items() if rows
    )


def _compare(
    cascade: Cascade, data: Path, gallery: Gallery, resolution: int, *, effort: Effort
) -> Comparison | None:
    present, chosen = keys_at(data, resolution), list[ImageRow]()
    for split in HELD_OUT:  # half from each, as far as there are any
        there = [row for row in gallery.sample(split, len(gallery.rows)) if row.key in present]
        chosen += there[: -(-effort.images // 2)]
    rows = {row.key: row for row in chosen[: effort.images]}
    if not rows:
        return None
    images = (
        RealImage(over_background(rgba), rows[key].caption)
        for key, rgba in read_images(data, set(rows), resolution)
    )
    default = next(s for s in cascade.stages if s.config.resolution == resolution).config.sampling
    steps = sorted({*effort.steps, default.steps})
    return compare_with_bicubic(cascade, resolution, images, steps=steps)


def _finer(data: Path, resolution: int, prompts: Sequence[EvaluationPrompt]) -> dict[str, Tensor]:
    """The real images of prompts, the finest there are, at most `resolution` wide."""
    colours = {prompt.key: prompt.background for prompt in prompts}
    return {
        key: over_background(rgba, colours[key])
        for side in sorted({min(256, resolution), resolution})
        for key, rgba in read_images(data, set(colours), side)
    }
