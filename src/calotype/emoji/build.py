"""The command `calotype data emoji`: get the packages, render the images, write the shards."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from calotype.data.work import Work, usable_cores
from calotype.emoji.fetch import FetchedPackage, fetched
from calotype.emoji.names import read_labels
from calotype.emoji.notes import write_notes
from calotype.emoji.plan import (
    PlannedImage,
    PlanReport,
    drop_without_counterpart,
    plan_set,
    read_artworks,
)
from calotype.emoji.recipe import EmojiRecipe, HeldOut, load_heldout, load_recipe
from calotype.emoji.render import RenderJob, pixel_digest, render_png
from calotype.emoji.shards import ShardPlan, broken_in, is_shard, plan_shards, write_shard
from calotype.errors import MissingExtra, UsageError
from calotype.storage.files import remove_leftovers

SIZES = (256, 1024)
OnImages = Callable[[int, int], None]
"""Told how many more images are done, and how many there will be."""


@dataclass
class BuildReport:
    """What a build made.

    `counts` has the rows of the folder by "size/set", by split, and `train_concepts`; `plan` what
    was left out; `broken` the keys, with their size, that could not be rendered.
    """

    counts: dict[str, int] = field(default_factory=dict)
    plan: PlanReport = field(default_factory=PlanReport)
    broken: list[str] = field(default_factory=list)


def build_emoji(
    out: Path,
    *,
    sets: Sequence[str] | None = None,
    sizes: Sequence[int] = SIZES,
    recipe: EmojiRecipe | None = None,
    processes: int | None = None,
    ray: str | None = None,
    on_images: OnImages = lambda more, total: None,
) -> BuildReport:
    """Build the emoji data set into the folder `out`; what is already there is kept.

    Args:
        out: folder of the data set; made if missing.
        sets: names of the sets; None takes the recipe's.
        sizes: sides in pixels, of 256 and 1024.
        recipe: what is taken; None is the installed recipe.
        processes: that render, a shard each; None is one for each usable core, 0 or 1 is this one.
        ray: address of a Ray cluster that renders instead; see `ray_jobs.connected`.
        on_images: for progress.

    Raises:
        UsageError: an unknown set or size.
        CalotypeError: npm, a package or the disk fails.
    """
    for size in sizes:
        if size not in SIZES:
            raise UsageError(f"got size {size}; expected one of {list(SIZES)}")
    for package in ("pyarrow", "pyvips"):  # before anything is fetched
        if find_spec(package) is None:
            raise MissingExtra("data", package)
    recipe = (load_recipe() if recipe is None else recipe).with_sets(sets)
    report = BuildReport()
    wanted = _needed_sources(recipe)
    with fetched([recipe.label_package, *(recipe.source(s).package for s in wanted)]) as packages:
        integrity = {f"{p.name}@{p.version}": p.integrity for p in packages.values()}
        images = plan_images(recipe, packages, load_heldout(), report=report.plan)
    plans = [
        plan
        for size in sizes
        for name, rows in images.items()
        if size == 256 or not recipe.source(name).raster
        for plan in plan_shards(out, name, rows, size=size)
    ]
    _check_others(plans)
    report.broken = render_shards(plans, recipe, processes=processes, ray=ray, on_images=on_images)
    _remove_leftovers(plans)
    report.counts = write_notes(out, recipe, report.plan, integrity=integrity)
    return report


def _needed_sources(recipe: EmojiRecipe) -> list[str]:
    names = dict.fromkeys(recipe.sets)
    for _ in recipe.sources:  # a related set may have related sets
        names |= dict.fromkeys(n for s in names for n in recipe.source(s).related)
    return list(names)


def plan_images(
    recipe: EmojiRecipe,
    packages: dict[str, FetchedPackage],
    heldout: HeldOut,
    *,
    report: PlanReport,
) -> dict[str, list[PlannedImage]]:
    """The images of each of the recipe's sets, after everything that is to be left out."""
    labels = read_labels(packages[recipe.label_package.name])

    def planned(name: str, into: PlanReport) -> list[PlannedImage]:
        source = recipe.source(name)
        codes = source.codes_from and packages[recipe.source(source.codes_from).package.name]
        package = packages[source.package.name]
        artworks = read_artworks(package, raster=source.raster, codes_from=codes or None)
        return plan_set(source, artworks, labels, recipe=recipe, heldout=heldout, report=into)

    result = {}
    for name in recipe.sets:
        source, images = recipe.source(name), planned(name, report)
        if source.counterparts:
            others = {
                p.concept for other in source.counterparts for p in planned(other, PlanReport())
            }
            images = drop_without_counterpart(images, others, report)
        result[name] = drop_duplicates(images, report) if source.drop_duplicates else images
    return result


def drop_duplicates(images: list[PlannedImage], report: PlanReport) -> list[PlannedImage]:
    """Keep the first of images that look alike (compared at 128 pixels)."""
    first: dict[str, PlannedImage] = {}
    for image in images:
        digest = pixel_digest(RenderJob(image.artwork.data, False, 128))
        if digest is None:  # broken: found again, and counted, when it is to be rendered
            first[image.key] = image
        elif digest in first:
            report.left_out[image.set, "duplicate"] += 1
        else:
            first[digest] = image
    return list(first.values())


def render_shards(
    plans: Sequence[ShardPlan],
    recipe: EmojiRecipe,
    *,
    processes: int | None,
    ray: str | None,
    on_images: OnImages,
) -> list[str]:
    """Write the shards that are missing; returns size/key of what could not be rendered."""
    total = sum(len(plan.images) for plan in plans)
    missing = [plan for plan in plans if broken_in(plan) is None]
    on_images(total - sum(len(plan.images) for plan in missing), total)
    task = functools.partial(
        render_shard, rasters=frozenset(s.set for s in recipe.sources if s.raster)
    )
    workers = usable_cores() if processes is None else max(1, processes)
    for count in Work(processes=workers, ray=ray).over(missing, task):
        on_images(count, total)
    return [f"{plan.size}/{key}" for plan in plans for key in broken_in(plan) or ()]


def render_shard(plan: ShardPlan, rasters: frozenset[str]) -> int:
    """Render and write one shard, unless it is there; returns how many images it is of.

    `rasters` are the sets of raster files.
    """
    if broken_in(plan) is None:
        raster = plan.images[0].set in rasters
        jobs = [RenderJob(p.artwork.data, raster, plan.size) for p in plan.images]
        write_shard(plan, [render_png(job) for job in jobs])
    return len(plan.images)


def _check_others(plans: Sequence[ShardPlan]) -> None:
    """Refuse shards of others in the folders: they would count as part of the data set."""
    wanted = {plan.path for plan in plans}
    for folder in sorted({plan.path.parent for plan in plans}):
        for file in sorted(folder.glob("*.parquet")):
            if file not in wanted and not is_shard(file):
                raise UsageError(
                    f"{file} is not a shard of an emoji data set; move it away, or choose another "
                    "--out"
                )


def _remove_leftovers(plans: Sequence[ShardPlan]) -> None:
    """Delete what an earlier, longer build or an interrupted one left of the same sets."""
    wanted = {plan.path for plan in plans}
    for folder, name in {(p.path.parent, p.path.stem.rpartition("-")[0]) for p in plans}:
        digits = "[0-9]" * 5  # "fluent-*" would also find fluent-3d and fluent-flat
        remove_leftovers(folder, re.compile(rf"{re.escape(name)}-\d{{5}}\.parquet").fullmatch)
        for file in folder.glob(f"{name}-{digits}.parquet"):
            if file not in wanted:  # and a shard of ours: `_check_others`
                file.unlink()
