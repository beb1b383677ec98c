"""The page of a comparison of guidances: curves, a table of all points, and the same prompts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from calotype.evaluation.report.figures import decimals, facts, interval
from calotype.evaluation.results import Number
from calotype.evaluation.samples import SampleSet
from calotype.evaluation.sheet import Cell, render_sheet, save_image
from calotype.evaluation.sweep.guidance_found import GuidanceResults, guidance_scatters
from calotype.evaluation.sweep.plots import page_scatters
from calotype.pages.images import page_image
from calotype.pages.page import render_page, write_page
from calotype.storage.files import make_folder

SHEET_FILE = "sheet.png"
Key = tuple[str, str | None, str | None]
_ROWS, _EACH, _COLUMNS, _SIDE = 10, 64, 8, 64


def write_guidance_page(folder: Path, found: GuidanceResults, sets: Mapping[str, SampleSet]) -> int:
    """Write `folder`/index.html, a sheet of all points and one of each point's samples.

    Args:
        folder: of the comparison.
        found: what it found.
        sets: real images and the samples of every point, of the same prompts, by name.

    Returns:
        The page's size in bytes.
    """
    make_folder(folder / "sheets")
    for name, samples in sets.items():
        save_image(_own_sheet(samples), folder / "sheets" / f"{name}.png")
    sheet = _sheet(list(sets.values()))
    save_image(sheet, folder / SHEET_FILE)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    labels = {one.key: one.label for point in found.points for one in point.numbers}
    html = render_page(
        "calotype.evaluation.report",
        "guidance.html.j2",
        title=f"{found.first.samples.name}: guidance compared",
        found=found,
        plots=page_scatters(guidance_scatters(found)),
        labels=labels,
        lines=[_line("real images", found.real)]
        + [_line(point.name, point.numbers) for point in found.points],
        names=list(sets),
        sheet=page_image(stream.getvalue(), kept_bytes=2_000_000, side=1600),
        facts=facts(found.first),
        decimals=decimals,
        interval=interval,
    )
    return write_page(folder / "index.html", html)


def _line(name: str, numbers: Sequence[Number]) -> tuple[str, dict[Key, Number]]:
    """A line of the table: a point, and its numbers by what they are."""
    return name, {number.key: number for number in numbers}


def _own_sheet(samples: SampleSet) -> Image.Image:
    """The first samples of a set, with what was asked for."""
    rows = range(min(_EACH, len(samples)))
    cells = [_cell([samples], row) for row in rows]
    return render_sheet(cells, columns=_COLUMNS, side=_SIDE)


def _sheet(sets: Sequence[SampleSet]) -> Image.Image:
    """A prompt a row, a set a column."""
    rows = range(min(_ROWS, *map(len, sets)))
    return render_sheet([_cell(sets, row) for row in rows], columns=1, side=_SIDE)


def _cell(sets: Sequence[SampleSet], row: int) -> Cell:
    images = (one.pixels([row])[0].float() / 127.5 - 1 for one in sets)
    return Cell(tuple(images), sets[0].samples[row].caption)
