"""`calotype report`: a run as one web page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli.options import Json
from calotype.errors import UsageError


def report(
    run: Annotated[Path, Argument(help="Folder of a run, finished or going on.")],
    out: Annotated[
        Path | None, Option("-o", "--out", help="HTML file; RUN/report.html if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's curves and samples as one web page that needs no network."""
    from calotype.storage.places import check_output
    from calotype.training.report import write_report

    if not run.is_dir():
        raise UsageError(f"got {run}, which is no folder; expected that of a training run")
    path = run / "report.html" if out is None else out
    check_output(path)
    size = write_report(run, path)
    if as_json:
        print(json.dumps({"file": str(path), "bytes": size}))
    else:
        print(f"{path}: {size / 1e6:.1f} MB; open it in a browser")
