"""Settings of a prior: a diffusion model of CLIP's image embeddings, given a caption."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from calotype.config.ranges import GuidanceWeight, Range, Settings, Steps, Width, require
from calotype.config.schedule import DiscreteScheduleConfig


@dataclass(frozen=True, kw_only=True)
class PriorNetworkConfig(Settings):
    """The transformer of a prior (Ramesh et al. 2022, section 2.2).

    Args:
        clip_dim: width of CLIP's embeddings and states.
        heads: of its attention.
        head_dim: channels of one of them.
        layers: how many.
        context: states of a caption.
    """

    clip_dim: Width = 768
    heads: Annotated[int, Range(1, 4096)] = 32
    head_dim: Annotated[int, Range(1, 4096)] = 64
    layers: Annotated[int, Range(1, 512)] = 20
    context: Width = 77

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.width % 2 == 0, f"got heads of {self.width} channels; expected an even number")

    @property
    def width(self) -> int:
        """Width of the transformer."""
        return self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class PriorConfig(Settings):
    """A prior and how it samples.

    Args:
        network: its transformer, which predicts clean embeddings.
        schedule: the table it was trained with.
        steps: when sampling.
        guidance_weight: when sampling; 1 = off.
        clip_range: estimates are kept within this distance of 0.
    """

    network: PriorNetworkConfig
    schedule: DiscreteScheduleConfig = field(
        default_factory=lambda: DiscreteScheduleConfig(spacing="linspace")
    )
    steps: Steps = 25
    guidance_weight: GuidanceWeight = 4.0
    clip_range: Annotated[float, Range(1e-3, 1e6)] = 5.0
