"""What measuring edits found, and its tables."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.evaluation.about import table
from calotype.evaluation.retrieval import NEAREST
from calotype.evaluation.seam import NEAR


@dataclass(frozen=True, kw_only=True)
class EditedWay:
    """One way of filling the holes of a task.

    Args:
        name: how it was done, in words.
        calls: of the base's network an image, guidance's second half not counted.
        psnr: mean PSNR in the hole to a real image of what is asked for, in dB.
        found: results whose concept is among the nearest, judged in the hole; None where the
            image itself was asked for.
        seams: `seam_ratio` at each of the task's resolutions.
        kept: images that hold what was known at every stage, to the bit.
    """

    name: str
    calls: int
    psnr: float
    found: int | None
    seams: tuple[float, ...]
    kept: int


@dataclass(frozen=True, kw_only=True)
class EditingTask:
    """A task: `images` holes filled in several ways; `real` are the seams of the real images."""

    name: str
    images: int
    resolutions: tuple[int, ...]
    ways: tuple[EditedWay, ...]
    real: tuple[float, ...]
    sheet: str = ""


@dataclass(frozen=True, kw_only=True)
class EditingResults:
    """All tasks, of one model."""

    model: str
    tasks: tuple[EditingTask, ...]


def editing_tables(results: EditingResults) -> str:
    """One Markdown table a task, and its sheet."""
    parts = [
        "Holes in images of the set, chosen by hash and filled once. The seam is the mean step "
        f"across the hole's edge over that of neighbours within {NEAR} pixels of it; found means "
        f"that the concept asked for is among the {NEAREST} nearest, in the hole alone; kept, that "
        "every stage holds what was known, to the bit. Replacement puts known pixels into every "
        "estimate and does no more: in-painting as any cascade can do it."
    ]
    for task in results.tasks:
        rows: list[list[object]] = [_row(way, task) for way in task.ways]
        real = [f"{seam:.2f}" for seam in task.real]
        rows.append(["real images", "", "", "", *real, ""])
        head = ["", "calls of the base", "PSNR in the hole", "found"]
        head += [f"seam at {side}²" for side in task.resolutions] + ["kept"]
        parts += [f"{task.name[0].upper()}{task.name[1:]} (N = {task.images}):", table(head, rows)]
        if task.sheet:
            parts.append(
                f"![{task.name}: source, hole, then row by row of the table]({task.sheet})"
            )
    return "\n\n".join(parts) + "\n"


def _row(way: EditedWay, task: EditingTask) -> list[object]:
    found = "" if way.found is None else f"{way.found} of {task.images}"
    seams = [f"{seam:.2f}" for seam in way.seams]
    return [
        way.name,
        way.calls,
        f"{way.psnr:.2f} dB",
        found,
        *seams,
        f"{way.kept} of {task.images}",
    ]
