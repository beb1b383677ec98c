"""`calotype compare`: evaluations side by side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli.options import Json
from calotype.cli.visible import visible
from calotype.errors import UsageError


def compare(
    folders: Annotated[
        list[Path], Argument(help="Folders of evaluations; the others are held against the first.")
    ],
    out: Annotated[Path, Option("-o", "--out", help="HTML file to write.")],
    common: Annotated[
        bool, Option("--common", help="Compare the prompts and images that all have.")
    ] = False,
    recode: Annotated[
        str | None,
        Option(help="png or jpeg: encode all images alike, at the smallest of their sizes."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare evaluations: one table, paired differences, images side by side by prompt.

    What was not measured alike is refused, unless --common or --recode makes it equal.
    """
    from calotype.cli.evaluate_measures import suite_checks
    from calotype.evaluation.compare import Recode, made_equal, open_entries, refuse_unequal
    from calotype.evaluation.report.compare_page import write_compare_page
    from calotype.evaluation.report.figures import need_pages
    from calotype.storage.places import check_output

    if recode not in (None, "png", "jpeg"):
        raise UsageError(f"got --recode {recode!r:.80}; expected png or jpeg")
    need_pages()
    check_output(out)
    entries = open_entries(folders)
    kind: Recode | None = "png" if recode == "png" else "jpeg" if recode == "jpeg" else None
    refuse_unequal(entries, common=common, recode=kind)
    if common or kind is not None:
        parts = out.with_name(f"{out.stem}.parts")

        def say(text: str) -> None:
            print(f"calotype: {visible(text)}", file=sys.stderr, flush=True)

        entries = made_equal(
            entries, parts, common=common, recode=kind, say=say, rules=suite_checks
        )
        refuse_unequal(entries)
    size = write_compare_page(out, entries)
    if as_json:
        import json

        print(json.dumps({"page": str(out), "bytes": size}))
    else:
        print(f"{visible(str(out))}: open it in a browser")
