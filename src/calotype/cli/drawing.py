"""What drawing commands share: the request, the progress bar, sheets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from calotype.cascade import CascadeSample, Preview

OnPreview = Callable[["Preview"], None]


@dataclass(frozen=True)
class DrawRequest:
    """What the user asked for, as the options have it; `like` is a recipe."""

    negative: str | None
    model: str | None
    size: int | tuple[int, int] | None
    width: int | None
    height: int | None
    steps: int | None
    sampler: str | None
    guidance: float | None
    variety: float | None
    stage_options: Sequence[str] | None
    like: Mapping[str, Any] | None
    loras: Sequence[str] | None
    merge_lora: bool
    device: str | None
    dtype: str | None
    threads: int | None


@contextmanager
def progress(total: int, *, quiet: bool) -> Iterator[OnPreview]:
    """A bar a stage on stderr, if that is a terminal; yields what to call with every preview.

    Args:
        total: pictures to draw in all.
        quiet: show nothing.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda preview: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>6}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[int, TaskID] = {}

        def show(preview: Preview) -> None:
            if preview.stage not in tasks:
                tasks[preview.stage] = bar.add_task(f"{preview.resolution}²", total=total)
            steps, index = preview.steps, preview.state.index
            share = (index + 1) / steps - index / steps if index < steps else 0.0
            pictures = preview.rows.stop - preview.rows.start
            bar.advance(tasks[preview.stage], share * pictures)

        yield show


def watch(steps: Generator[Preview, None, CascadeSample], show: OnPreview) -> CascadeSample:
    """Drain a drawing generator, showing each preview; closes it whatever happens."""
    try:
        while True:
            show(next(steps))
    except StopIteration as end:
        result: CascadeSample = end.value
        return result
    finally:
        steps.close()


def contact_sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (H, W, 3) uint8 of one size, side by side in a nearly square sheet on white."""
    import numpy as np

    columns = int(np.ceil(np.sqrt(len(pictures))))
    rows = -(-len(pictures) // columns)
    height, width = pictures[0].shape[:2]
    sheet = np.full((rows * height, columns * width, 3), 255, dtype=np.uint8)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = picture
    return sheet
