"""Typed settings of training in parts: the text canvas first, adapters alone, examples to preserve.

Frozen dataclasses, checked when they are made. `calotype.config` shows these too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calotype.network_config import in_range, require

LoraTarget = Literal["attention", "convolution", "linear"]


@dataclass(frozen=True, kw_only=True)
class CanvasConfig:
    """The text canvas's own lesson before diffusion begins; see `training/canvas.py`.

    Args:
        images: pictures it sees.
        batch_size: examples per step.
        learning_rate: peak rate of AdamW.
        weight_decay: decoupled decay.
        rate_share: share of the stage's learning rate at which the canvas learns on with the
            rest; 0 leaves it as the lesson made it.
    """

    images: int = 400_000
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    rate_share: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("images", self.images, 1, 10**13)
        in_range("batch_size", self.batch_size, 1, 1_000_000)
        in_range("learning_rate", self.learning_rate, 0.0, 10.0)
        in_range("rate_share", self.rate_share, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Train low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685) and nothing else.

    Args:
        rank: of the change of each weight matrix.
        alpha: the change is scaled by alpha / rank, so that the learning rate need not follow
            the rank.
        targets: layers that get one: "attention" (queries, keys, values, outputs, and the
            projections of the text), "convolution" (all of them), "linear" (all other linear
            layers: pooled text, text canvas, embeddings of the noise level in the blocks).
    """

    rank: int = 8
    alpha: float = 8.0
    targets: tuple[LoraTarget, ...] = ("attention", "convolution")

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("rank", self.rank, 1, 4096)
        in_range("alpha", self.alpha, 1e-6, 1e6)
        require(len(self.targets) > 0, "got no targets; expected some, e.g. ['attention']")


@dataclass(frozen=True, kw_only=True)
class PreservationConfig:
    """Examples of what the model knew before, mixed into every batch so that it is not forgotten.

    The loss of a batch is (1 - share) * mean(new) + share * weight * mean(kept).

    Reference: Ruiz et al. 2022, section 3.3 (prior preservation), arXiv:2208.12242.

    Args:
        data: path of pictures with captions, usually drawn by the model itself beforehand.
        share: of every batch, in (0, 1); rounded to whole pictures.
        weight: of their loss.
    """

    data: str
    share: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        require(0 < self.share < 1, f"got share={self.share}; expected a number between 0 and 1")
        in_range("weight", self.weight, 0.0, 1000.0)
