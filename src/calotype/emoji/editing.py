"""How well does a cascade edit? `python -m calotype.emoji.editing --data DIR --out FOLDER`.

Three tasks on images of the set, chosen by hash and edited once: half an image is hidden, a thing
is to be replaced by another, and a box is hidden at full resolution. Writes `editing.json`, which
the model card prints with `--editing editing.json`, and a sheet a task.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.edit import EditSettings, Resampling, plan_edit
from calotype.cascade.plan import SamplePlan, StagePlan
from calotype.cascade.results import drain
from calotype.data.resize import area_resize
from calotype.emoji.editing_results import EditedWay, EditingResults, EditingTask, editing_tables
from calotype.emoji.gallery import read_gallery
from calotype.emoji.holes import Hole, Judge, another_thing, box_hidden, half_hidden
from calotype.evaluation.command import (
    add_machine_options,
    load_cascade,
    run_command,
    say,
    write_results,
)
from calotype.evaluation.retrieval import NEAREST
from calotype.evaluation.seam import seam_ratio
from calotype.evaluation.sheet import Cell, at_most, render_sheet, save_image

REPAINT = Resampling(jump=4, repeats=4)
_CHUNK = 8
_CELLS = 24


@dataclass(frozen=True)
class Way:
    """One way of filling holes, in words.

    Args:
        name: of the way.
        resampling: RePaint's, or None.
        replacing: known pixels are put into the estimates, and nothing else: no draft and no
            network looks at them, and seams are left as they come.
    """

    name: str
    resampling: Resampling | None = None
    replacing: bool = False


WAYS = (
    Way("replacement", replacing=True),
    Way("replacement, with RePaint 4,4", REPAINT, replacing=True),
    Way("this cascade"),
    Way("the same, with RePaint 4,4", REPAINT),
)


def measure_task(
    cascade: Cascade,
    name: str,
    holes: Sequence[Hole],
    *,
    ways: Sequence[Way] = WAYS,
    stop_at: int,
    rank: Judge | None = None,
) -> tuple[EditingTask, list[Cell]]:
    """Fill the holes in every way; returns the figures, and cells: source, hole, and each way."""
    images = torch.stack([hole.image for hole in holes])
    keep = torch.stack([hole.keep for hole in holes])
    measured, made, failed = [], [], [False] * len(holes)
    for way in ways:
        results, kept, calls = _fill(cascade, way, holes, stop_at=stop_at)
        ranks = [] if rank is None else [rank(x, i) for i, x in enumerate(results[stop_at])]
        failed = [r >= NEAREST for r in ranks] or failed  # of the last way
        seams = tuple(seam_ratio(x, _resized(keep, side)) for side, x in results.items())
        psnr = _psnr(results[stop_at], torch.stack([hole.wanted for hole in holes]), keep)
        found = None if rank is None else sum(r < NEAREST for r in ranks)
        measured.append(
            EditedWay(name=way.name, calls=calls, psnr=psnr, found=found, seams=seams, kept=kept)
        )
        made.append(results[stop_at])
    real = tuple(seam_ratio(area_resize(images, s), _resized(keep, s)) for s in results)
    task = EditingTask(
        name=name,
        images=len(holes),
        resolutions=tuple(results),
        ways=tuple(measured),
        real=real,
    )
    hidden = torch.where(keep, images, torch.zeros(()))
    cells = [
        Cell(
            tuple(at_most(x[row], 256) for x in (images, hidden, *made)),
            hole.caption,
            failed=failed[row],
        )
        for row, hole in enumerate(holes)
    ]
    return task, sorted(cells, key=lambda cell: not cell.failed)[:_CELLS]


def _fill(
    cascade: Cascade, way: Way, holes: Sequence[Hole], *, stop_at: int
) -> tuple[dict[int, Tensor], int, int]:
    """The images at each stage, by resolution; how many kept what was known; calls of the base."""
    made, kept, calls = dict[int, list[Tensor]](), 0, 0
    size = _CHUNK if stop_at < 512 else 2
    for start in range(0, len(holes), size):
        chunk = holes[start : start + size]
        keep = torch.stack([hole.keep for hole in chunk])
        plan = plan_edit(
            cascade,
            torch.stack([hole.image for hole in chunk]),
            EditSettings(mask=keep, resampling=way.resampling, blind=way.replacing),
            [hole.caption for hole in chunk],
            seeds=range(start, start + len(chunk)),
            stop_at=stop_at,
        )
        if way.replacing:
            plan = replace(plan, stages=tuple(_with_seams(stage) for stage in plan.stages))
        images = drain(cascade.generate(plan)).images
        kept += int(torch.stack(list(_unchanged(plan, images))).all(0).sum())
        calls = _calls(cascade, plan)
        for x in images:
            made.setdefault(int(x.shape[-1]), []).append(x)
    return {side: torch.cat(parts) for side, parts in made.items()}, kept, calls


def _with_seams(stage: StagePlan) -> StagePlan:
    assert stage.edit is not None and stage.edit.known is not None
    known = replace(stage.edit.known, seamless=False)
    return replace(stage, edit=replace(stage.edit, known=known))


def _unchanged(plan: SamplePlan, images: Sequence[Tensor]) -> Iterator[Tensor]:
    """For each stage, which images hold what the stage was to keep, (B,) bool."""
    for stage, x in zip(plan.stages, images, strict=True):
        assert stage.edit is not None and stage.edit.known is not None
        known = stage.edit.known
        yield ((x == known.image.to(x)) | ~known.mask).flatten(1).all(1)


def _calls(cascade: Cascade, plan: SamplePlan) -> int:
    """Calls of the base an image, without guidance's second half."""
    first = plan.stages[0]
    levels = cascade.stages[first.index].levels(first.sampling, first.edit)
    return int((levels.diff() > 0).sum())


def _resized(keep: Tensor, side: int) -> Tensor:
    """A mask for smaller images: a pixel is kept if all it covers is."""
    return area_resize(keep.float(), side) > 1 - 1e-4


def _psnr(made: Tensor, images: Tensor, keep: Tensor) -> float:
    """Mean PSNR in the holes, in dB; images in [-1, 1]."""
    hidden = (~keep).expand_as(images).double()
    squares = ((made - images).double().square() * hidden).flatten(1).sum(1)
    error = squares / hidden.flatten(1).sum(1)
    return float((10 * torch.log10(4 / error.clamp(min=1e-12))).mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, arguments)


def _run(options: argparse.Namespace) -> None:
    cascade, _ = load_cascade(options)
    base, last = (cascade.stages[place].config.resolution for place in (0, -1))
    gallery = read_gallery(options.data, base)
    things, rank = another_thing(gallery, options.things)
    tasks = {
        "half": ("half hidden, own caption, unseen pairs", half_hidden(gallery, options.halves)),
        "thing": ("a thing hidden on a coloured ground, another asked for, trained pairs", things),
        "box": (
            "a quarter hidden by a box, own caption, trained and unseen pairs",
            box_hidden(gallery, options.data, last, options.boxes),
        ),
    }
    results = []
    options.out.mkdir(parents=True, exist_ok=True)
    for key, (name, holes) in tasks.items():
        if not holes:
            continue
        say(f"{name}: {len(holes)} images")
        full = key == "box"
        task, cells = measure_task(
            cascade,
            name,
            holes,
            ways=[way for way in WAYS if not (full and way.resampling)],
            stop_at=last if full else base,
            rank=rank if key == "thing" else None,
        )
        results.append(replace(task, sheet=f"sheet-editing-{key}.jpg"))
        save_image(render_sheet(cells, columns=2, side=128), options.out / results[-1].sheet)
    found = EditingResults(model=cascade.name, tasks=tuple(results))
    write_results(options.out, "editing", found, editing_tables(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.editing",
        description="Measure how well a cascade fills holes, and show it on sheets.",
    )
    add = parser.add_argument
    add("--model", help="cascade or run folder; default: the embedded cascade")
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--out", type=Path, required=True, help="folder for editing.json and the sheets")
    add("--halves", type=int, default=96, help="unseen pairs of which half is hidden")
    add("--things", type=int, default=32, help="trained pairs that another replaces")
    add("--boxes", type=int, default=16, help="images at full resolution with a box hidden")
    add_machine_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
