"""What drawing commands share: output names, the progress bar, writing pictures with recipes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from calotype.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from calotype.cascade import CascadeSample, Preview

OnPreview = Callable[["Preview"], None]


def output_names(output: Path | None, *, caption: str, seed: int, count: int) -> list[Path]:
    """File names of `count` pictures: a.png, or a-0.png, a-1.png, ...; checked to be writable.

    Raises:
        UsageError: the folder is missing or the name is not that of a PNG.
        CalotypeError: the folder cannot be written to.
    """
    from calotype.cascade.files import check_output

    if output is None:
        words = re.sub(r"[^a-z0-9]+", "-", caption[:200].lower()).strip("-")[:48].strip("-")
        output = Path(f"{words or 'picture'}-{seed}.png")
    if output.suffix.lower() != ".png":
        raise UsageError(f"got output {str(output)!r:.200}; expected a name ending in .png")
    names = [output]
    if count > 1:
        names = [output.with_name(f"{output.stem}-{i}{output.suffix}") for i in range(count)]
    check_output(names[0])
    return names


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
