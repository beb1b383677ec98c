"""`calotype data tokenizer`: byte-pair tokens for networks with a text tower of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.progress import Display


def tokenizer(
    data: Annotated[Path, Argument(help="Folder of images, Parquet, tars or a saved data set.")],
    out: Annotated[Path, Option("-o", "--out", help="Folder to write, new or empty.")],
    vocabulary: Annotated[int, Option(help="Tokens, as many as the network has.")] = 4096,
    variants: Annotated[
        int,
        Option(
            help="Captions of an image, where they are made of parts: as the recipe's "
            "data.caption_variants, which is 24 for emoji."
        ),
    ] = 24,
) -> None:
    """Train a byte-pair tokenizer on the captions of a data set; a recipe names it glide:FOLDER."""
    from calotype.data.columns import Selection
    from calotype.data.tokenizer import make_tokenizer
    from calotype.emoji.captions import GRAMMAR

    with Display("captions of images") as display:
        report = make_tokenizer(
            data,
            out,
            vocabulary=vocabulary,
            selection=Selection(variants=variants, grammar=GRAMMAR),
            progress=display.update,
        )
    print(f"{vocabulary:>9,}  tokens in {out}, of SHA-256 {report.sha256[:16]}…")
    print(f"{report.captions:>9,}  captions of {report.examples:,} images")
    print(f"{report.longest:>9,}  tokens in the longest: the context that a network needs")
