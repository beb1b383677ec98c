"""`python -m calotype.interop.imagen_pytorch`: convert a checkpoint, draw with what came out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from calotype.errors import CalotypeError, UsageError
from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.convert import convert, read_config
from calotype.interop.imagen_pytorch.files import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; errors are one line and exit code 1 or 2."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "convert":
            config = read_config(options.config)
            print(f"wrote {convert(options.file, options.out, config=config, ema=options.ema)}")
        else:
            _sample(options)
    except (CalotypeError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def _sample(options: argparse.Namespace) -> None:
    model = load(options.folder, text_encoder=options.text_encoder)
    if not isinstance(model, CascadedUnets):
        raise UsageError(f"{options.folder} holds a single U-Net; expected a cascade")
    torch.manual_seed(options.seed)
    texts = None if model.unconditional else [options.text]
    scale = 1.0 if model.unconditional else options.cond_scale
    images = model.sample(texts=texts, cond_scale=scale, return_pil_images=True)
    images[0].save(options.out)
    print(f"wrote {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m calotype.interop.imagen_pytorch")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("convert", help="a checkpoint of imagen-pytorch -> a folder")
    one.add_argument("file", type=Path)
    one.add_argument("-o", "--out", type=Path, required=True)
    one.add_argument("--config", type=Path, help="JSON of what the file does not say")
    one.add_argument("--no-ema", dest="ema", action="store_false", help="not the averaged weights")
    two = commands.add_parser("sample", help="a converted folder -> a picture")
    two.add_argument("folder", type=Path)
    two.add_argument("text", nargs="?", default="")
    two.add_argument("-o", "--out", type=Path, default=Path("picture.png"))
    two.add_argument("--cond-scale", type=float, default=5.0)
    two.add_argument("--seed", type=int, default=0)
    two.add_argument("--text-encoder", help="e.g. t5:FOLDER; else the T5 the cascade names")
    return parser


if __name__ == "__main__":
    sys.exit(main())
