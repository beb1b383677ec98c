"""`calotype data verify` and `data stats`: what is in a data set, as numbers and as a chart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from calotype.cli.data.ray import Processes, Ray, process_count
from calotype.cli.options import Json
from calotype.progress import Display
from calotype.storage.files import write_file
from calotype.storage.places import check_output

if TYPE_CHECKING:
    from calotype.data.verify import DataReport, PartReport

_NAMED = 20

Data = Annotated[Path, Argument(help="Folder of images, Parquet, tars or a saved data set.")]


def verify(
    data: Data,
    as_json: Json = False,
    out: Annotated[
        Path | None, Option("-o", "--out", help="JSON file for the whole report.")
    ] = None,
    processes: Processes = None,
    ray: Ray = None,
) -> None:
    """Read everything once: counts, sizes, broken files with reasons, duplicates, captions."""
    report = _verified(data, process_count(processes), ray=ray, quiet=as_json, out=out)
    if out is not None:
        write_file(out, (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    if as_json:
        print(json.dumps(report.to_dict()))
        return
    for line in _findings(report):
        print(line)


def stats(
    data: Data,
    out: Annotated[
        Path | None, Option("-o", "--out", "--output", help="SVG to plot; a text if not given.")
    ] = None,
    processes: Processes = None,
) -> None:
    """Plot the histograms of sizes, aspect ratios and captions."""
    from calotype.data.statistics import statistics_svg, statistics_text

    report = _verified(data, process_count(processes), ray=None, quiet=False, out=out)
    if out is None:
        print(statistics_text(report))
        return
    write_file(out, statistics_svg(report).encode())
    print(out)


def _verified(
    data: Path, processes: int, *, ray: str | None, quiet: bool, out: Path | None
) -> DataReport:
    from calotype.data.verify import verify_data
    from calotype.data.work import Work
    from calotype.emoji.captions import GRAMMAR

    if out is not None:
        check_output(out)
    with Display("images", quiet=quiet) as display:
        work = Work(
            processes=processes,
            ray=ray,
            on_result=lambda facts: display.advance(len(facts.images)),
        )
        return verify_data(data, grammar=GRAMMAR, work=work)


def _findings(report: DataReport) -> list[str]:
    """What a person wants to know first; the JSON has everything."""
    from calotype.data.account import counted

    lines = []
    for name, part in report.parts.items():
        if name:
            lines.append(f"== {name}")
        lines += [
            f"{part.examples:>9,}  examples, {part.usable:,} usable",
            f"{part.counts['broken']:>9,}  broken ({part.broken_share:.1%})",
            *_some((f"{key}: {reason}" for key, reason in part.broken.items()), part, "broken"),
            f"{part.counts['duplicates']:>9,}  duplicates by look",
            *_some((" = ".join(keys) for keys in part.duplicates), part, None),
            f"{part.counts['empty_captions']:>9,}  without a caption",
            f"{part.counts['replaced_captions']:>9,}  with a faulty caption, mended or left out",
            *_some(part.replaced_captions, part, "replaced_captions"),
            f"{part.counts['bad_metadata']:>9,}  faults of metadata and archives",
            *_some(
                (f"{place}: {reason}" for place, reason in part.bad_metadata.items()),
                part,
                "bad_metadata",
            ),
            f"{part.counts['ignored']:>9,}  files and folders passed over",
            *(
                f"           {counted(found.count, kind)}: {found}"
                for kind, found in part.ignored.items()
            ),
            f"           most frequent sizes: {', '.join(list(part.sizes)[:5]) or 'none'}",
        ]
    return lines


def _some(texts: Iterable[str], part: PartReport, kind: str | None) -> list[str]:
    listed = list(texts)
    count = len(listed) if kind is None else part.counts[kind]
    more = [f"           and {count - _NAMED:,} more"] if count > _NAMED else []
    return [f"           {text}" for text in listed[:_NAMED]] + more
