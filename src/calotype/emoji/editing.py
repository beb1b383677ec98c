"""How well does a cascade edit? `python -m calotype.emoji.editing --data DIR --out FOLDER`.

Three tasks on images of the set, chosen by hash and edited once: half an image is hidden, a thing
is to be replaced by another, and a box is hidden at full resolution. Writes `editing.json`, which
the model card prints with `--editing editing.json`, and a sheet a task.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.edit import EditSettings, Resampling, plan_edit
from calotype.cascade.plan import SamplePlan
from calotype.cascade.results import drain
from calotype.config.typed_json import to_dict
from calotype.data.resize import area_resize
from calotype.emoji.captions import BACKGROUND_COLOURS, on_background
from calotype.emoji.editing_results import EditedWay, EditingResults, EditingTask, editing_tables
from calotype.emoji.gallery import Gallery, keys_at, over_background, read_gallery, read_images
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.command import add_machine_options, load_cascade, run_command, say
from calotype.evaluation.retrieval import NEAREST, concept_rank, thumbnails
from calotype.evaluation.seam import seam_ratio
from calotype.evaluation.sheet import Cell, at_most, render_sheet, save_image
from calotype.storage.files import write_file

REPAINT = Resampling(jump=4, repeats=4)
_CHUNK = 8
_CELLS = 24
_MOST_OF_IT = 0.9  # a thing that takes more of its image leaves no ground
Judge = Callable[[Tensor, int], int]


@dataclass(frozen=True)
class Hole:
    """An image, what of it is kept, and what is asked for.

    Args:
        image: the source, (3, H, W) in [-1, 1].
        keep: True = kept, (1, H, W) bool.
        caption: of the result.
        wanted: a real image of what is asked for, like `image`.
    """

    image: Tensor
    keep: Tensor
    caption: str
    wanted: Tensor


@dataclass(frozen=True)
class Way:
    """One way of filling holes: a cascade, in words, with or without RePaint."""

    name: str
    cascade: Cascade
    resampling: Resampling | None = None


def half_hidden(gallery: Gallery, count: int) -> list[Hole]:
    """Unseen pairs with their own captions, of which one half is hidden."""
    holes = []
    for row in gallery.sample("unseen_pair", count):
        image = gallery.real(row.key)
        keep = torch.ones(1, *image.shape[1:], dtype=torch.bool)
        axis, first = 1 + _number(row, 2), bool(_number(row, 4) // 2)
        keep.narrow(axis, 0 if first else keep.shape[axis] // 2, keep.shape[axis] // 2).fill_(False)
        holes.append(Hole(image, keep, row.caption, image))
    return holes


def another_thing(gallery: Gallery, count: int) -> tuple[list[Hole], Judge]:
    """Trained pairs on a colour, hidden by a box; another trained pair is asked for.

    Returns the holes, and what says how many images of other concepts are nearer to the result,
    inside the hole alone.
    """
    holes, asked = list[Hole](), list[tuple[ImageRow, str]]()
    rows = gallery.sample("train", len(gallery.rows))
    for row, other in itertools.pairwise(rows):
        keep = _box_round(gallery.images[gallery.places[row.key], 3] > 0)
        colour = sorted(BACKGROUND_COLOURS)[_number(row, len(BACKGROUND_COLOURS))]
        if len(holes) < count and keep.float().mean() > 1 - _MOST_OF_IT:
            image = gallery.real(row.key, BACKGROUND_COLOURS[colour])
            wanted = gallery.real(other.key, BACKGROUND_COLOURS[colour])
            holes.append(Hole(image, keep, on_background(other.caption, colour), wanted))
            asked.append((other, colour))

    def rank(made: Tensor, number: int) -> int:
        row, colour = asked[number]
        pool = gallery.pool(row, BACKGROUND_COLOURS[colour])
        side = int(pool.images.shape[-1])
        hidden = area_resize((~holes[number].keep).float()[None], side)
        sample = thumbnails(made[None], side)[0] * hidden[0]
        return concept_rank(sample, pool.images * hidden, pool.concepts, concept=row.concept)

    return holes, rank


def box_hidden(gallery: Gallery, data: Path, resolution: int, count: int) -> list[Hole]:
    """Trained and unseen pairs at full resolution, in turn, with a quarter hidden by a box."""
    present = keys_at(data, resolution)
    groups = [
        [row for row in gallery.sample(split, len(gallery.rows)) if row.key in present]
        for split in ("train", "unseen_pair")
    ]
    rows = {row.key: row for pair in zip(*groups, strict=False) for row in pair}
    rows = dict(itertools.islice(rows.items(), count))
    holes = []
    for key, rgba in read_images(data, set(rows), resolution):
        keep = torch.ones(1, resolution, resolution, dtype=torch.bool)
        half = resolution // 2
        top, left = divmod(_number(rows[key], (half + 1) ** 2), half + 1)
        keep[:, top : top + half, left : left + half] = False
        image = over_background(rgba)
        holes.append(Hole(image, keep, rows[key].caption, image))
    return holes


def _box_round(shown: Tensor) -> Tensor:
    """All but a box round what is shown, (H, W), wider by a thirty-second; (1, H, W)."""
    keep, margin = torch.ones(1, *shown.shape, dtype=torch.bool), max(shown.shape) // 32
    places = shown.nonzero()
    if len(places) > 0:
        (top, left), (bottom, right) = places.amin(0).tolist(), places.amax(0).tolist()
        rows = slice(max(0, top - margin), bottom + 1 + margin)
        keep[:, rows, max(0, left - margin) : right + 1 + margin] = False
    return keep


def _number(row: ImageRow, below: int) -> int:
    """A number from 0 that a hash of the key decides."""
    return int.from_bytes(sha256(f"editing {row.key}".encode()).digest()[:8], "big") % below


def measure_task(
    name: str, holes: Sequence[Hole], ways: Sequence[Way], *, stop_at: int, rank: Judge | None
) -> tuple[EditingTask, list[Cell]]:
    """Fill the holes in every way; returns the figures, and cells: source, hole, and each way."""
    images = torch.stack([hole.image for hole in holes])
    keep = torch.stack([hole.keep for hole in holes])
    measured, made, failed = [], [], [False] * len(holes)
    for way in ways:
        results, kept, calls = _fill(way, holes, stop_at=stop_at)
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


def _fill(way: Way, holes: Sequence[Hole], *, stop_at: int) -> tuple[dict[int, Tensor], int, int]:
    """The images at each stage, by resolution; how many kept what was known; calls of the base."""
    made, kept, calls = dict[int, list[Tensor]](), 0, 0
    size = _CHUNK if stop_at < 512 else 2
    for start in range(0, len(holes), size):
        chunk = holes[start : start + size]
        keep = torch.stack([hole.keep for hole in chunk])
        plan = plan_edit(
            way.cascade,
            torch.stack([hole.image for hole in chunk]),
            EditSettings(mask=keep, resampling=way.resampling),
            [hole.caption for hole in chunk],
            seeds=range(start, start + len(chunk)),
            stop_at=stop_at,
        )
        images = drain(way.cascade.generate(plan)).images
        kept += int(torch.stack(list(_unchanged(plan, images))).all(0).sum())
        calls = _calls(way.cascade, plan)
        for x in images:
            made.setdefault(int(x.shape[-1]), []).append(x)
    return {side: torch.cat(parts) for side, parts in made.items()}, kept, calls


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
    cascade, runtime = load_cascade(options)
    ways = [Way("this cascade", cascade), Way("the same, with RePaint 4,4", cascade, REPAINT)]
    if options.before is not None:
        before = Cascade.load(options.before)
        runtime.apply(before.stages, before.prior)
        plain = [Way("before", before), Way("before, with RePaint 4,4", before, REPAINT)]
        ways = [*plain, *ways]
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
        chosen = [way for way in ways if key != "box" or way.resampling is None]
        task, cells = measure_task(
            name,
            holes,
            chosen,
            stop_at=last if key == "box" else base,
            rank=rank if key == "thing" else None,
        )
        results.append(replace(task, sheet=f"sheet-editing-{key}.jpg"))
        save_image(render_sheet(cells, columns=2, side=128), options.out / results[-1].sheet)
    found = EditingResults(model=cascade.name, tasks=tuple(results))
    text = json.dumps(to_dict(found), indent=2) + "\n"
    write_file(options.out / "editing.json", text.encode())
    write_file(options.out / "editing.md", editing_tables(found).encode())
    say(f"wrote {options.out / 'editing.md'}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.editing",
        description="Measure how well a cascade fills holes, and show it on sheets.",
    )
    add = parser.add_argument
    add("--model", help="cascade or run folder; default: the embedded cascade")
    add("--before", help="another cascade, measured first and printed beside")
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--out", type=Path, required=True, help="folder for editing.json and the sheets")
    add("--halves", type=int, default=96, help="unseen pairs of which half is hidden")
    add("--things", type=int, default=32, help="trained pairs that another replaces")
    add("--boxes", type=int, default=16, help="images at full resolution with a box hidden")
    add_machine_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
