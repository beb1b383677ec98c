"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from typer import Option
from typer.core import TyperCommand

from calotype.errors import UsageError
from calotype.launch import launched_place

Model = Annotated[
    str | None, Option(help="'default', a cascade folder or the folder of a training run.")
]
StageOptions = Annotated[
    list[str] | None,
    Option(
        "--stage-option",
        help="Settings of one stage, e.g. 256:steps=8,aug_level=0.2. Can be repeated.",
    ),
]
Negative = Annotated[
    str | None, Option(help="What images must not show; no effect at guidance weight 1.")
]
Loras = Annotated[
    list[str] | None,
    Option("--lora", help="FILE.safetensors[:WEIGHT], a LoRA to sample with. Can be repeated."),
]
MergeLora = Annotated[
    bool,
    Option(
        "--merge-lora/--no-merge-lora",
        help="Add LoRAs to the weights, or compute them beside: the same images, slower.",
    ),
]
Clip = Annotated[
    str | None,
    Option(
        "--clip",
        help="Folder of the CLIP that scores, or guides: calotype's, of transformers, or of a run "
        "of clip-emoji; the embedded one if not given.",
    ),
]
Json = Annotated[bool, Option("--json", help="Print JSON and no progress.")]
Device = Annotated[str | None, Option(help="cpu, cuda, cuda:1 or mps; a GPU if there is one.")]
Dtype = Annotated[
    str | None, Option(help="float32 or bfloat16 for all stages; measured if not given.")
]
Threads = Annotated[int | None, Option(help="Threads of the CPU.")]
Seed = Annotated[int, Option(help="Seed of the first image, 0 to 2^63-1.")]
Out = Annotated[Path | None, Option("-o", "--out", help="PNG to write, in an existing folder.")]


@dataclass(frozen=True)
class OutputOptions:
    """What is asked of `sample` that does not change an image."""

    output: Path | None
    seed: int
    count: int
    grid: bool
    as_json: bool
    write_captions: bool
    workers: int | None
    ray: str | None
    gpus: float
    batch: int | None

    def check(self, *, is_list: bool, is_file: bool) -> None:
        """Refuse settings of long lists elsewhere, and numbers out of range."""
        if launched_place().world_size > 1 and not (is_list and is_file):
            raise UsageError(
                "got torchrun without a list that all its processes can read; expected "
                "--from-file FILE, and no --grid"
            )
        if launched_place().world_size > 1 and (self.ray is not None or (self.workers or 1) > 1):
            raise UsageError("got --workers or --ray under torchrun, which starts the processes")
        numbers = {"--workers": self.workers, "--batch": self.batch}
        for name, given in {**numbers, "--ray": self.ray}.items():
            if given is not None and not is_list:
                raise UsageError(f"got {name} without a list; expected --from-file, and no --grid")
        for name, number in numbers.items():
            if number is not None and not 1 <= number <= 4096:
                raise UsageError(f"got {name} {number}; expected 1 to 4096")


class OutCommand(TyperCommand):
    """A command that takes `--output`, the name of earlier versions, for its `--out`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read every `--output` before a "--" as `--out`."""
        end = args.index("--") if "--" in args else len(args)
        words = [re.sub(r"\A--output(?==|\Z)", "--out", word) for word in args[:end]]
        return super().parse_args(ctx, [*words, *args[end:]])


def check_seed(seed: int, count: int = 1) -> None:
    """Refuse seeds whose last is out of range."""
    if not 0 <= seed <= 2**63 - count:
        number = f" for {count} images" if count > 1 else ""
        raise UsageError(f"got seed {seed}{number}; expected seeds from 0 to 2^63-1")


def read_like(path: Path | None, *, kind: str) -> dict[str, Any] | None:
    """The recipe of the image that --like names, checked to be of a kind; None without one."""
    if path is None:
        return None
    from calotype.cascade.png import read_recipe
    from calotype.cascade.recipe import check_recipe

    recipe = read_recipe(path)
    check_recipe(recipe, kind=kind)
    return recipe
