"""`calotype data shard`: any data to Parquet shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.cli.data.ray import Processes, Ray, process_count, work_of
from calotype.progress import Display


def shard(
    source: Annotated[Path, Argument(help="Folder of images, Parquet, tars or a saved data set.")],
    out: Annotated[Path, Option("-o", "--out", help="Folder of the shards; made if missing.")],
    rows: Annotated[int, Option(help="Images of a shard.")] = 2048,
    labels: Annotated[
        str | None,
        Option(
            help="Keep the class of each image, in a column of this name: folder, or the column or "
            "field that says it, as in data.labels."
        ),
    ] = None,
    processes: Processes = None,
    ray: Ray = None,
) -> None:
    """Convert data to Parquet shards; finished shards are skipped when run again."""
    count = process_count(processes)
    from calotype.data.shard import shard_data
    from calotype.emoji.captions import GRAMMAR

    with Display("images") as display:
        work = work_of(count, ray, lambda shard: display.advance(shard.rows + len(shard.broken)))
        results = shard_data(source, out, rows=rows, labels=labels, grammar=GRAMMAR, work=work)
    broken = {key: reason for result in results for key, reason in result.broken.items()}
    skipped = sum(result.skipped for result in results)
    print(f"{sum(result.rows for result in results):>9,}  images in {out}")
    print(f"{len(results):>9,}  shards, {skipped:,} of them there already")
    if broken:
        print(f"{len(broken):>9,}  broken images left out:")
        for key, reason in list(broken.items())[:20]:
            print(f"           {key}: {reason}")
