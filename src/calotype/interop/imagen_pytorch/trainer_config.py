"""Arguments of `ImagenTrainer`, checked, in the terms of this library's optimizer and averages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from calotype.config.optimizer import OptimizerConfig
from calotype.config.ranges import Fraction, Range, Settings, require
from calotype.errors import ConfigError
from calotype.interop.imagen_pytorch.config import Numbers
from calotype.interop.imagen_pytorch.options import each, read_options, refuse_unless

_NEVER = 1 << 62
_ONE_PROCESS = "this trainer is one process; train with `calotype train` on several"
_PREFIXES = {
    "accelerate_": _ONE_PROCESS,
    "ema_": "averages here have a half-life that grows with the run; give ema_beta",
}


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Settings):
    """Arguments of `ImagenTrainer`; names, defaults and meanings are those of imagen-pytorch 2.1.0.

    `weight_decay` is decoupled (AdamW). `ema_beta` and `ema_update_every` give the half-life of
    the average; it is never longer than a tenth of the run so far. After `cosine_decay_max_steps`
    the rate stays 0.
    """

    use_ema: bool = True
    lr: Numbers = 1e-4
    eps: Numbers = 1e-8
    beta1: Fraction = 0.9
    beta2: Fraction = 0.99
    max_grad_norm: float | None = None
    group_wd_params: bool = True
    warmup_steps: int | tuple[int | None, ...] | None = None
    cosine_decay_max_steps: int | tuple[int | None, ...] | None = None
    only_train_unet_number: int | None = None
    fp16: bool = False
    precision: str | None = None
    split_batches: bool = True
    dl_tuple_output_keywords_names: tuple[str, ...] = (
        "images",
        "text_embeds",
        "text_masks",
        "cond_images",
    )
    verbose: bool = True
    split_valid_fraction: Fraction = 0.025
    split_valid_from_train: bool = False
    split_random_seed: int = 42
    checkpoint_path: str | None = None
    checkpoint_every: int | None = None
    checkpoint_fs: Any = None
    fs_kwargs: Any = None
    max_checkpoints_keep: int = 20
    weight_decay: Annotated[float, Range(0.0, 10.0)] = 0.0
    ema_beta: Annotated[float, Range(0.0, 1 - 1e-9)] = 0.9999
    ema_update_every: Annotated[int, Range(1, 1 << 20)] = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        why = "checkpoints are files of this machine; copy them with another tool"
        refuse_unless("checkpoint_fs", self.checkpoint_fs, None, why)
        refuse_unless("fs_kwargs", self.fs_kwargs, None, why)
        require(
            self.precision in (None, "no", "fp16", "bf16"),
            f"got precision={self.precision!r}; expected 'no', 'fp16' or 'bf16'",
        )
        require(
            not (self.fp16 and self.precision is not None),
            "got both fp16 and precision; expected one of them",
        )
        require(
            self.group_wd_params or self.weight_decay == 0,
            "got group_wd_params=False with weight_decay; norms and biases are never decayed here",
        )
        require(
            (self.checkpoint_path is None) == (self.checkpoint_every is None),
            "got one of checkpoint_path and checkpoint_every; expected both",
        )

    @property
    def dtype(self) -> str:
        """Number type of the network calls in training: "no", "fp16" or "bf16"."""
        if self.fp16:
            return "fp16"
        return "no" if self.precision is None else self.precision

    @property
    def ema_halflife(self) -> int:
        """Half-life of the average, in updates."""
        if self.ema_beta == 0:
            return 0
        return round(math.log(0.5) / math.log(self.ema_beta) * self.ema_update_every)

    def schedules(self, count: int) -> tuple[Schedule, ...]:
        """How the weights of each of `count` U-Nets move."""
        return tuple(
            Schedule(
                OptimizerConfig(
                    learning_rate=one.lr,
                    betas=(self.beta1, self.beta2),
                    eps=one.eps,
                    weight_decay=self.weight_decay,
                    warmup_images=0 if one.warmup_steps is None else one.warmup_steps,
                    decay_from=1.0 if one.cosine_decay_max_steps is None else 0.0,
                    final_rate=0.0,
                    grad_clip_norm=self.max_grad_norm,
                ),
                _NEVER if one.cosine_decay_max_steps is None else one.cosine_decay_max_steps,
            )
            for one in each(self, "lr eps warmup_steps cosine_decay_max_steps", count)
        )


@dataclass(frozen=True)
class Schedule:
    """How one U-Net's weights move: lengths count updates, and at update `length` the rate is 0."""

    optimizer: OptimizerConfig
    length: int


def read_trainer_settings(arguments: Mapping[str, Any]) -> TrainerSettings:
    """The settings from keyword arguments; whole families that are not offered get their reason."""
    known = {"ema_beta", "ema_update_every"}
    for name in arguments:
        for prefix, why in _PREFIXES.items():
            if name.startswith(prefix) and name not in known:
                raise ConfigError(f"ImagenTrainer: got {name}, which is not offered here: {why}")
    return read_options(TrainerSettings, arguments, owner="ImagenTrainer")
