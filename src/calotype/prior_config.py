"""Settings of a prior: a diffusion model of CLIP's image embeddings, given a caption."""

from __future__ import annotations

from dataclasses import dataclass, field

from calotype.network_config import in_range, require
from calotype.schedule_config import DiscreteScheduleConfig


@dataclass(frozen=True, kw_only=True)
class PriorNetworkConfig:
    """The transformer of a prior (Ramesh et al. 2022, section 2.2).

    Args:
        clip_dim: width of CLIP's embeddings and states.
        heads: of its attention.
        head_dim: channels of one of them.
        layers: how many.
        context: states of a caption.
    """

    clip_dim: int = 768
    heads: int = 32
    head_dim: int = 64
    layers: int = 20
    context: int = 77

    def __post_init__(self) -> None:
        """Check the counts."""
        for name in ("clip_dim", "heads", "head_dim", "layers", "context"):
            in_range(name, getattr(self, name), 1, 1_000_000)
        require(self.width % 2 == 0, f"got heads of {self.width} channels; expected an even number")

    @property
    def width(self) -> int:
        """Width of the transformer."""
        return self.heads * self.head_dim


@dataclass(frozen=True, kw_only=True)
class PriorConfig:
    """A prior and how it draws.

    Args:
        network: its transformer, which predicts clean embeddings.
        schedule: the table it was trained with.
        steps: when drawing.
        guidance_weight: when drawing; 1 = off.
        clip_range: estimates are kept within this distance of 0.
    """

    network: PriorNetworkConfig
    schedule: DiscreteScheduleConfig = field(
        default_factory=lambda: DiscreteScheduleConfig(spacing="linspace")
    )
    steps: int = 25
    guidance_weight: float = 4.0
    clip_range: float = 5.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("steps", self.steps, 1, 4096)
        in_range("guidance_weight", self.guidance_weight, 0.0, 1000.0)
        require(self.clip_range > 0, f"got clip_range={self.clip_range}; expected above 0")
