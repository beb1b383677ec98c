"""Options that several commands share, and how their text is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand

from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import override
from calotype.errors import ConfigError, UsageError

Model = Annotated[
    str | None,
    typer.Option(
        help="'default', a cascade folder or the folder of a training run.", show_default=False
    ),
]
StageOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--stage-option",
        help="Settings of one stage, e.g. 256:steps=8,aug_level=0.2. Can be repeated.",
        show_default=False,
    ),
]
Negative = Annotated[
    str | None,
    typer.Option(help="What not to draw; has no effect at guidance weight 1.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON and no progress.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; a GPU if there is one.")
]
Dtype = Annotated[
    str | None,
    typer.Option(help="float32 or bfloat16 for all stages; measured if not given."),
]
Threads = Annotated[int | None, typer.Option(help="Threads of the CPU.")]
Seed = Annotated[int, typer.Option(help="Seed of the first picture, 0 to 2^63-1.")]
Out = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="PNG to write, in an existing folder.", show_default=False),
]


class OutCommand(TyperCommand):
    """A command that takes `--output`, as some were told it before, for its `--out`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read every `--output` before a "--" as `--out`."""
        end = args.index("--") if "--" in args else len(args)
        words = [re.sub(r"\A--output(?==|\Z)", "--out", word) for word in args[:end]]
        return super().parse_args(ctx, [*words, *args[end:]])


def check_seed(seed: int, count: int = 1) -> None:
    """Refuse seeds whose last is out of range."""
    if not 0 <= seed <= 2**63 - count:
        number = f" for {count} pictures" if count > 1 else ""
        raise UsageError(f"got seed {seed}{number}; expected seeds from 0 to 2^63-1")


def parse_size(text: str) -> int | tuple[int, int]:
    """A resolution such as 256, or WIDTHxHEIGHT as (height, width)."""
    match = re.fullmatch(r"([0-9]{1,6})(?:[xX]([0-9]{1,6}))?", text.strip())
    if match is None:
        raise UsageError(f"got size {text!r:.80}; expected e.g. 256, or WIDTHxHEIGHT as 96x64")
    if match[2] is None:
        return int(match[1])
    return int(match[2]), int(match[1])


def sampling_settings(
    defaults: Mapping[int, SamplingConfig],
    *,
    steps: int | None = None,
    sampler: str | None = None,
    guidance: float | None = None,
    variety: float | None = None,
    stage_options: Sequence[str] | None = None,
) -> dict[int, SamplingConfig]:
    """The sampling settings of every stage, from its defaults and what the user asked for.

    Args:
        defaults: by resolution, coarse to fine.
        steps: of the first stage.
        sampler: of the first stage.
        guidance: weight of the first stage.
        variety: of the first stage, which has to start from a draft.
        stage_options: texts such as "256:steps=8,aug_level=0.2".

    Raises:
        ConfigError: an unknown stage or setting, a value out of range, or variety without a draft.
    """
    settings = dict(defaults)
    first = next(iter(settings))
    if steps is not None:
        settings[first] = replace(settings[first], steps=steps, timesteps=None)
    if sampler is not None:
        known = get_args(get_type_hints(SamplingConfig)["sampler"])
        if sampler not in known:
            raise ConfigError(f"got --sampler {sampler!r:.80}; expected one of {list(known)}")
        settings[first] = override(settings[first], [f'sampler="{sampler}"'])
    if guidance is not None:
        settings[first] = replace(settings[first], guidance_weight=guidance)
    if variety is not None:
        if settings[first].start != "draft":
            raise ConfigError(
                f"got --variety {variety:g} for a base that starts from noise; expected a "
                "model, or a recipe of --like, that starts from a draft, or no --variety"
            )
        settings[first] = replace(settings[first], variety=variety)
    for option in stage_options or ():
        stage, colon, assignments = option.partition(":")
        resolution = int(stage) if re.fullmatch("[0-9]{1,6}", stage.strip()) else None
        if not colon or resolution not in settings:
            raise ConfigError(
                f"got stage option {option!r:.200}; expected e.g. {first}:steps=8, for one of the "
                f"stages {list(settings)}"
            )
        # Commas within brackets belong to a value: guidance_interval=[0.2,5].
        parts = re.split(r",(?=\s*[a-z_]+\s*=)", assignments)
        changed = override(settings[resolution], parts)
        if changed.steps != settings[resolution].steps and "timesteps" not in assignments:
            changed = replace(changed, timesteps=None)  # a published list would take their place
        settings[resolution] = changed
    return settings
