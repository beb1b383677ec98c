"""Options of `calotype train` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

Recipe = Annotated[str, Argument(help="Name of an installed recipe, or a JSON file.")]
Data = Annotated[Path | None, Option(help="Folder of images or Parquet shards.")]
Out = Annotated[Path | None, Option("-o", "--out", help="Folder of the run.")]
Images = Annotated[int | None, Option(help="Length of the run in images, per stage.")]
Seed = Annotated[int | None, Option(help="Of everything random.")]
Resume = Annotated[bool, Option("--resume", help="Resume from the newest checkpoint.")]
Init = Annotated[
    Path | None,
    Option(help="Weights to start from: a file, a stage's folder, a cascade, a run or 'default'."),
]
Settings = Annotated[
    list[str] | None, Option("--set", help="key=value, e.g. optimizer.learning_rate=1e-3.")
]
Only = Annotated[
    str | None, Option(help="'draft': train the base's draft alone, e.g. anew with --init.")
]
DryRun = Annotated[bool, Option("--dry-run", help="Print cost and memory, train nothing.")]
AllowInexactResume = Annotated[
    bool, Option("--allow-inexact-resume", help="Resume on a different machine.")
]
StartOver = Annotated[
    bool, Option("--start-over", help="With --resume: begin anew if no checkpoint fits.")
]
MissingCaptions = Annotated[
    bool, Option("--missing-captions", help="Train although most images have lost their captions.")
]
Parallel = Annotated[
    str,
    Option(
        help="How processes started by torchrun share the work: 'data' (each stage by all, "
        "a copy each), 'sharded' (each stage by all, in shards) or 'stages' (each its own)."
    ),
]
Json = Annotated[bool, Option("--json", help="Print the dry run as JSON.")]
Quiet = Annotated[bool, Option("--quiet", help="Show no progress.")]
