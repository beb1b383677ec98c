"""`calotype data embed`: caption embeddings computed ahead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from calotype.cli.data.ray import (
    GpusPerWorker,
    Processes,
    Ray,
    gpus_of_worker,
    process_count,
    work_of,
)
from calotype.errors import UsageError
from calotype.progress import Display

if TYPE_CHECKING:
    from calotype.text.shard import Precision


def embed(
    data: Annotated[Path, Argument(help="Folder of images, Parquet, tars or a saved data set.")],
    encoder: Annotated[
        str,
        Option(
            help="minilm, t5:NAME, clip:NAME or bytes:WIDTH, as in the recipe; clip-image:FOLDER "
            "embeds the images, by a CLIP."
        ),
    ] = "minilm",
    out: Annotated[
        Path | None,
        Option(
            "-o",
            "--out",
            help="Folder of the store; DATA/embeddings, where train looks, if not given.",
        ),
    ] = None,
    precision: Annotated[str, Option(help="fp16, or int8 (half the size).")] = "fp16",
    variants: Annotated[
        int, Option(help="Captions of an image, where they are made of parts.")
    ] = 16,
    processes: Processes = None,
    ray: Ray = None,
    gpus_per_worker: GpusPerWorker = None,
) -> None:
    """Compute embeddings of captions, or of images, ahead; run again, it resumes.

    Stores of several encoders and precisions lie side by side in one folder.
    """
    if not data.is_dir() and out is None:
        raise UsageError(f"got data {data}, which is no folder, and no --out; give --out")
    count, kind = process_count(processes), _precision(precision)
    from calotype.data.embed import EmbedJob, embed_data
    from calotype.data.listing import STORE_NAME
    from calotype.emoji.captions import GRAMMAR

    gpus = gpus_of_worker(gpus_per_worker, ray)
    job = EmbedJob(encoder, data / STORE_NAME if out is None else out, kind, gpus=gpus)
    what = "images" if encoder.startswith("clip-image:") else "captions"
    with Display(what) as display:
        report = embed_data(
            data,
            job,
            variants=variants,
            grammar=GRAMMAR,
            work=work_of(count, ray, lambda counts: display.advance(counts.captions)),
        )
    print(f"{report.captions:>9,}  {what} of {report.examples:,} examples")
    print(f"{report.embedded:>9,}  embedded now, the others were there")
    print(f"{report.shards:>9,}  shards in {report.folder}")


def _precision(text: str) -> Precision:
    if text in ("fp16", "float16"):
        return "float16"
    if text == "int8":
        return "int8"
    raise UsageError(f"got precision {text!r}; expected fp16 or int8")
