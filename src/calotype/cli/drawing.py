"""What drawing commands share: the request, output names, the progress bar, sheets."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.errors import UsageError

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
    steps: int | None
    guidance: float | None
    variety: float | None
    stage_options: Sequence[str] | None
    like: Mapping[str, Any] | None
    loras: Sequence[str] | None
    merge_lora: bool
    device: str | None
    dtype: str | None
    threads: int | None


def output_name(output: Path | None, *, caption: str, seed: int) -> Path:
    """The name that pictures are called by: -o, or made of a caption and a seed.

    Raises:
        UsageError: it is not that of a PNG.
    """
    if output is None:
        words = re.sub(r"[^a-z0-9]+", "-", caption[:200].lower()).strip("-")[:48].strip("-")
        output = Path(f"{words or 'picture'}-{seed}.png")
    if output.suffix.lower() != ".png":
        raise UsageError(f"got output {str(output)!r:.200}; expected a name ending in .png")
    return output


def numbered_name(output: Path, number: int, count: int) -> Path:
    """File name of picture `number` of `count`: a.png alone, or a-0.png, a-1.png, ..."""
    return output if count == 1 else output.with_name(f"{output.stem}-{number}{output.suffix}")


def output_names(output: Path | None, *, caption: str, seed: int, count: int) -> list[Path]:
    """File names of `count` pictures, checked to be writable.

    Raises:
        UsageError: the folder is missing or the name is not that of a PNG.
        CalotypeError: the folder cannot be written to.
    """
    from calotype.storage.files import check_output

    name = output_name(output, caption=caption, seed=seed)
    names = [numbered_name(name, number, count) for number in range(count)]
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
