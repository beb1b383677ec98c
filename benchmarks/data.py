"""What preparing data costs for each image and caption: shard, verify, embed, read.

    python benchmarks/data.py DATA [--encoder minilm] [--rows 2048] [--json]

DATA is anything that `calotype train --data` takes. One process works on all of it, in a temporary
folder (TMPDIR) that needs as much room as the data: `shard_data` to Parquet shards, `verify_data`
of those, `embed_data` of their captions in float16 and in int8 (the encoder runs for both), and
reading every image of the shards once, decoded, in a shuffled order. One image goes through all
of it first, so that imports are not counted. Seconds are those of the whole call divided by the
images or captions; opening the data and loading the encoder are included.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from calotype.data.columns import Selection
from calotype.data.embed import EmbedJob, embed_data
from calotype.data.looks import RECORD
from calotype.data.open import open_part, parts
from calotype.data.shard import shard_data
from calotype.data.verify import verify_data
from calotype.emoji.captions import GRAMMAR


@dataclass(frozen=True)
class Cost:
    """Of each image or caption.

    Args:
        work: what was done.
        each: image or caption.
        seconds: by the clock.
        processor_seconds: of all threads; on a busy machine the figure that holds.
        size: bytes on disk; None where nothing is written.
    """

    work: str
    each: str
    seconds: float
    processor_seconds: float
    size: float | None


class Timed:
    """Calls a function and takes its time: by the clock, and of the processor."""

    def __init__(self, work: Callable[[], Any]) -> None:
        begin, processor = time.perf_counter(), time.process_time()
        self.result = work()
        self.seconds = time.perf_counter() - begin
        self.processor = time.process_time() - processor

    def cost(self, work: str, each: str, count: int, size: float | None) -> Cost:
        """Shared out over `count` items."""
        return Cost(work, each, self.seconds / count, self.processor / count, size)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def read_everything(path: Path) -> int:
    """Decode every image once, in an order without state that is shuffled."""
    count = 0
    for part in parts(path):
        source = open_part(path, part, Selection(None))
        for index in np.random.default_rng(0).permutation(len(source)).tolist():
            source[index]
        count += len(source)
    return count


def measure(data: Path, folder: Path, *, encoder: str, rows: int) -> list[Cost]:
    shards = folder / "shards"
    done = Timed(lambda: shard_data(data, shards, rows=rows, grammar=GRAMMAR))
    images = sum(result.rows for result in done.result)
    costs = [done.cost("shard", "image", images, folder_bytes(shards) / images)]
    done = Timed(lambda: verify_data(shards))
    costs.append(done.cost("verify", "image", images, RECORD.itemsize))
    done = Timed(lambda: read_everything(shards))
    costs.append(done.cost("read, decoded, shuffled", "image", done.result, None))
    for precision in ("float16", "int8"):
        job = EmbedJob(encoder, folder / precision, precision)
        done = Timed(lambda job=job: embed_data(shards, job))
        count = done.result.embedded
        size = folder_bytes(folder / precision) / count
        costs.append(done.cost(f"embed {precision}", "caption", count, size))
    return costs


def warm_up(folder: Path, encoder: str) -> None:
    """All of it with one image."""
    (folder / "one").mkdir()
    Image.new("RGB", (64, 64)).save(folder / "one" / "a.png")
    (folder / "one" / "a.txt").write_text("a black square")
    measure(folder / "one", folder / "warm", encoder=encoder, rows=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--rows", type=int, default=2048, help="images of a shard")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm_up(Path(folder), options.encoder)
        costs = measure(
            options.data, Path(folder) / "work", encoder=options.encoder, rows=options.rows
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if options.json:
        print(json.dumps({"peak_bytes": peak, "costs": [vars(cost) for cost in costs]}))
        return
    print(f"{options.data}, encoder {options.encoder}, {torch.get_num_threads()} threads\n")
    print(f"{'':26}{'each':>9}{'ms':>9}{'ms of CPU':>11}{'bytes':>10}")
    for cost in costs:
        size = "" if cost.size is None else f"{cost.size:,.0f}"
        clock, processor = cost.seconds * 1000, cost.processor_seconds * 1000
        print(f"{cost.work:26}{cost.each:>9}{clock:9.2f}{processor:11.2f}{size:>10}")
    print(f"\nmost memory held: {peak / 1e6:,.0f} MB; verify's bytes are temporary")


if __name__ == "__main__":
    main()
