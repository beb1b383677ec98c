"""Settings of noise levels: tables of timesteps, and the levels of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import Range, Settings, require

Beta = Annotated[float, Range(1e-9, 0.9999)]


@dataclass(frozen=True, kw_only=True)
class DiscreteScheduleConfig(Settings):
    """A table of noise levels at whole timesteps; see `calotype.diffusion.discrete`.

    Args:
        betas: how the table is made.
        steps: its length.
        beta_start: of "linear".
        beta_end: of "linear".
        spacing: which timesteps fewer steps take: "leading", "linspace" or "trailing", as
            diffusers names them.
        precision: number type the table is made in; it decides the last digits.
    """

    betas: Literal["squaredcos_cap_v2", "linear"] = "squaredcos_cap_v2"
    steps: Annotated[int, Range(2, 100_000)] = 1000
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    spacing: Literal["leading", "linspace", "trailing"] = "leading"
    precision: Literal["float32", "float64"] = "float32"
    kind: Literal["discrete"] = "discrete"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.beta_start <= self.beta_end,
            f"got betas {self.beta_start} to {self.beta_end}; expected 0 < start <= end < 1",
        )


@dataclass(frozen=True, kw_only=True)
class UniformTimes:
    """Training levels at uniform times of the schedule, stratified within a batch."""

    kind: Literal["uniform_times"] = "uniform_times"


@dataclass(frozen=True, kw_only=True)
class WholeTimesteps(Settings):
    """Training levels at uniform whole timesteps of the schedule's table, stratified.

    Args:
        importance: train by the variational bound alone, at timesteps that are taken the oftener
            the larger their terms were (Nichol & Dhariwal 2021, section 3.3).
    """

    importance: bool = False
    kind: Literal["whole_timesteps"] = "whole_timesteps"


@dataclass(frozen=True, kw_only=True)
class NormalLogSNR(Settings):
    """Training levels with normal log-SNR (Karras et al. 2022, section 5), stratified.

    Args:
        mean: of logsnr = log(alpha^2 / sigma^2).
        std: of the same.
    """

    mean: Annotated[float, Range(-20.0, 20.0)]
    std: Annotated[float, Range(1e-3, 20.0)]
    kind: Literal["normal_logsnr"] = "normal_logsnr"
