"""`calotype data emoji`: render the embedded default's training set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from calotype.cli.data.ray import Processes, Ray, process_count
from calotype.errors import UsageError
from calotype.progress import Display

_SIZES = {"256": (256,), "1024": (1024,), "all": (256, 1024)}


def emoji(
    out: Annotated[Path, Option("-o", "--out", help="Folder of the data set; made if missing.")],
    sets: Annotated[
        str | None, Option(help="Sets, e.g. noto,twemoji; the recipe's if not given.")
    ] = None,
    size: Annotated[str, Option(help="256, 1024 or all.")] = "all",
    processes: Processes = None,
    ray: Ray = None,
) -> None:
    """Build the emoji images and captions the embedded default is trained on."""
    if size not in _SIZES:
        raise UsageError(f"got size {size!r}; expected one of {', '.join(_SIZES)}")
    count = process_count(processes)
    from calotype.emoji.build import build_emoji

    names = None
    if sets is not None:
        names = [name.strip() for name in sets.split(",") if name.strip()]
    with Display("images rendered") as display:
        report = build_emoji(
            out,
            sets=names,
            sizes=_SIZES[size],
            processes=count,
            ray=ray,
            on_images=display.advance,
        )
    for name, count in report.counts.items():
        print(f"{count:>9,}  {name}")
    if report.broken:
        print(f"{len(report.broken):>9,}  could not be rendered: {', '.join(report.broken[:20])}")
