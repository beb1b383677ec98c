"""The progress bar of sampling commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calotype.cascade import Preview
    from calotype.cascade.plan import SamplePlan
    from calotype.generation.generator import ImageGenerator, Made

OnPreview = Callable[["Preview"], None]


@contextmanager
def progress(total: int, *, quiet: bool) -> Iterator[OnPreview]:
    """A bar a stage of `total` images, if stderr is a terminal; yields what takes previews."""
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
            fraction = 1 / steps if index < steps else 0.0
            images = preview.rows.stop - preview.rows.start
            bar.advance(tasks[preview.stage], fraction * images)

        yield show


@contextmanager
def tiled_progress(plan: SamplePlan, *, quiet: bool) -> Iterator[tuple[SamplePlan, OnPreview]]:
    """Steps and tiles, on a terminal or as a line now and then; yields the plan to be watched."""
    from calotype.progress import Display

    done = 0
    with Display("steps", sum(one.sampling.steps for one in plan.stages), quiet=quiet) as display:

        def show(preview: Preview) -> None:
            nonlocal done
            done += preview.state.index < preview.steps
            display.update(done)

        def on_tile(number: int, count: int) -> None:
            display.update(done, facts=f"(tile {number} of {count})")

        yield replace(plan, on_tile=on_tile), show


def made_in_groups(
    generator: ImageGenerator[Any], plan: Any, total: int, *, quiet: bool
) -> Iterator[Made]:
    """The images of a plan, made in groups that fit in memory, with a progress bar."""
    from calotype.cascade.results import drain

    with progress(total, quiet=quiet) as show:
        for start in range(0, total, generator.group):
            rows = slice(start, min(start + generator.group, total))
            yield from drain(generator.generate(plan.rows(rows)), show)
