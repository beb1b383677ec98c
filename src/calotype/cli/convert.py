"""`calotype convert` and `calotype export`: published weights in, folders for diffusers out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from calotype.errors import UsageError


def convert(
    folders: Annotated[
        list[Path],
        Argument(
            help="Folder of DeepFloyd IF (one a stage, all at once), Karlo or GLIDE; or one file "
            "of imagen-pytorch."
        ),
    ],
    out: Annotated[Path, Option("-o", "--out", help="The folder to write.")],
    half: Annotated[bool, Option("--half", help="Write weights as float16.")] = False,
    text_encoder: Annotated[
        str | None,
        Option(
            help="Encoder to use, e.g. t5_padded:FOLDER; else the one in the folder. "
            "imagen-pytorch: t5:FOLDER; else the T5 it names."
        ),
    ] = None,
    tokenizer: Annotated[Path | None, Option(help="Folder of GLIDE's tokenizer.")] = None,
    config: Annotated[
        Path | None, Option(help="JSON file of what a file of imagen-pytorch does not say.")
    ] = None,
    ema: Annotated[
        bool, Option("--ema/--no-ema", help="imagen-pytorch: take its averaged weights.")
    ] = True,
) -> None:
    """Turn published weights into a cascade that sample takes with --model."""
    import torch

    from calotype.interop.glide.load import is_glide
    from calotype.interop.loading import convert as convert_folders

    # --config settles it for a file that happens to be called as one of GLIDE's.
    if any(p.is_file() and (config is not None or not is_glide(p)) for p in folders):
        if half or tokenizer is not None:
            raise UsageError(
                "got --half or --tokenizer for a file of imagen-pytorch; expected --config, "
                "--text-encoder or --no-ema"
            )
        _convert_imagen_pytorch(folders, out, config, ema=ema, encoder=_anchored(text_encoder))
        return
    if config is not None or not ema:
        what = "--no-ema" if config is None else "--config"
        raise UsageError(f"got {what} for a folder; expected it for a file of imagen-pytorch")
    dtype = torch.float16 if half else torch.float32
    encoder = _anchored(text_encoder)
    convert_folders(folders, out, dtype=dtype, text_encoder=encoder, tokenizer=tokenizer)
    print(f"wrote {out}")


def _anchored(spec: str | None) -> str | None:
    """The encoder's specification with its folder, if it has one, as seen from anywhere."""
    kind, colon, place = (spec or "").partition(":")
    return f"{kind}:{Path(place).resolve()}" if colon and Path(place).is_dir() else spec


def _convert_imagen_pytorch(
    files: list[Path], out: Path, config: Path | None, *, ema: bool, encoder: str | None
) -> None:
    from calotype.interop.imagen_pytorch.convert import convert, read_config

    if len(files) != 1:
        raise UsageError(f"got {len(files)} paths; expected one file of imagen-pytorch")
    read = read_config(config)
    print(f"wrote {convert(files[0], out, config=read, ema=ema, text_encoder=encoder)}")


def export(
    out: Annotated[Path, Option("-o", "--out", help="The folder to write.")],
    model: Annotated[str, Option(help="Cascade folder, or a run's.")] = "default",
    to: Annotated[str, Option(help="Whose format; diffusers.")] = "diffusers",
) -> None:
    """Write a cascade's stages for another program."""
    if to != "diffusers":
        raise UsageError(f"got --to {to!r:.80}; expected diffusers")
    from calotype.cascade import Cascade
    from calotype.interop.diffusers_export import export_to_diffusers

    for folder in export_to_diffusers(Cascade.load(model), out):
        print(f"wrote {folder}")
