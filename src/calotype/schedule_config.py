"""Settings of what published models were trained with: whole timesteps, and their enlargement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calotype.network_config import in_range, require


@dataclass(frozen=True, kw_only=True)
class DiscreteScheduleConfig:
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
    steps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    spacing: Literal["leading", "linspace", "trailing"] = "leading"
    precision: Literal["float32", "float64"] = "float32"
    kind: Literal["discrete"] = "discrete"

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("steps", self.steps, 2, 100_000)
        require(
            0 < self.beta_start <= self.beta_end < 1,
            f"got betas {self.beta_start} to {self.beta_end}; expected 0 < start <= end < 1",
        )


@dataclass(frozen=True, kw_only=True)
class LowresConfig:
    """How a stage's low-resolution picture is enlarged and noised.

    Args:
        filter: "bicubic" is this library's, clipped to [-1, 1]; the others are not clipped.
            "bilinear_corners" puts the corner pixels of both pictures on each other.
        schedule: table of its noise, at timestep `aug_level * steps`; None = the cosine schedule
            at time `aug_level`.
    """

    filter: Literal["bicubic", "bicubic_antialias", "bilinear", "bilinear_corners"] = "bicubic"
    schedule: DiscreteScheduleConfig | None = None
