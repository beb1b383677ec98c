"""`calotype convert` and `calotype export`: published weights in, folders for diffusers out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calotype.errors import UsageError


def convert(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folder of DeepFloyd IF (one a stage, all at once), Karlo or GLIDE.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The cascade folder to write.")],
    half: Annotated[bool, typer.Option("--half", help="Write weights as float16.")] = False,
    text_encoder: Annotated[
        str | None,
        typer.Option(help="Encoder to use, e.g. t5_padded:FOLDER; else the one in the folder."),
    ] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="Folder of GLIDE's tokenizer.")] = None,
) -> None:
    """Turn published weights into a cascade that sample and serve take with --model."""
    import torch

    from calotype.interop.loading import convert as convert_folders

    dtype = torch.float16 if half else torch.float32
    convert_folders(folders, out, dtype=dtype, text_encoder=text_encoder, tokenizer=tokenizer)
    print(f"wrote {out}")


def export(
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write.")],
    model: Annotated[str, typer.Option(help="Cascade folder, or a run's.")] = "default",
    to: Annotated[str, typer.Option(help="Whose format; diffusers.")] = "diffusers",
) -> None:
    """Write a cascade's stages for another program."""
    if to != "diffusers":
        raise UsageError(f"got --to {to!r:.80}; expected diffusers")
    from calotype.cascade import Cascade
    from calotype.interop.diffusers_export import export_to_diffusers

    for folder in export_to_diffusers(Cascade.load(model), out):
        print(f"wrote {folder}")
