"""Typed settings of training in parts: the draft first, adapters alone, examples to preserve,
low-resolution images as another stage makes them.

Frozen dataclasses, checked when they are made. `calotype.config` shows these too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from calotype.network_config import in_range, require

LoraTarget = Literal["attention", "convolution", "linear"]


@dataclass(frozen=True, kw_only=True)
class DraftTrainingConfig:
    """How a base's draft is trained, alone and before diffusion begins; see `training/draft.py`.

    Args:
        images: images it sees.
        batch_size: examples per step.
        learning_rate: peak rate of AdamW; constant for half of the steps, then half a cosine.
        weight_decay: decoupled decay.
        text_noise: largest standard deviation of the noise on the whitened captions.
        text_dropout: fraction of their numbers that is set to zero.
        plain_fraction: fraction of the rows that get the first caption of their example, whatever
            the others are.
        folds: further drafts, each trained without the examples of one part of the captions; 0 =
            none, else at least 2.
        fold_images: images each of them sees.
        fold_fraction: fraction of the base's training rows that are conditioned on the draft which
            never saw their caption.
    """

    images: int = 1_000_000
    batch_size: int = 512
    learning_rate: float = 3e-3
    weight_decay: float = 0.03
    text_noise: float = 0.4
    text_dropout: float = 0.03
    plain_fraction: float = 0.25
    folds: int = 0
    fold_images: int = 1_000_000
    fold_fraction: float = 0.4

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("images", self.images, 1, 10**13)
        in_range("batch_size", self.batch_size, 1, 1_000_000)
        in_range("learning_rate", self.learning_rate, 0.0, 10.0)
        in_range("weight_decay", self.weight_decay, 0.0, 100.0)
        in_range("text_noise", self.text_noise, 0.0, 100.0)
        in_range("text_dropout", self.text_dropout, 0.0, 1.0)
        in_range("plain_fraction", self.plain_fraction, 0.0, 1.0)
        require(
            self.folds == 0 or 2 <= self.folds <= 64,
            f"got folds={self.folds}; expected 0 (none), or 2 to 64",
        )
        in_range("fold_images", self.fold_images, 1, 10**13)
        in_range("fold_fraction", self.fold_fraction, 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class LowresEstimatesConfig:
    """Super-resolution that has seen what it gets; see `training/estimates.py`.

    A fraction of the low-resolution images are the estimates that the stage before makes of them:
    noised, and denoised by it in a few steps. They are aligned with their truth, and have that
    stage's own grain.

    Args:
        model: has the stage before: "default", a cascade, a run, or a checkpoint of one.
        fraction: of the rows of a batch.
        sigma_min: smallest sigma/alpha of the noise, which is drawn log-uniformly.
        sigma_max: largest sigma/alpha.
        steps: of the stage before.
    """

    model: str
    fraction: float = 0.5
    sigma_min: float = 0.1
    sigma_max: float = 1.0
    steps: int = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        in_range("fraction", self.fraction, 0.0, 1.0)
        in_range("sigma_min", self.sigma_min, 1e-3, 1e3)
        in_range("sigma_max", self.sigma_max, self.sigma_min, 1e3)
        in_range("steps", self.steps, 1, 1000)


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Train low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685) and nothing else.

    Args:
        rank: of the change of each weight matrix.
        alpha: the change is scaled by alpha / rank, so that the learning rate need not follow
            the rank.
        targets: layers that get one: "attention" (queries, keys, values, outputs, and the
            projections of the text), "convolution" (all of them), "linear" (all other linear
            layers: pooled text, draft, embeddings of the noise level in the blocks).
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
