"""Typed settings of training in parts: the draft first, adapters alone, examples to preserve,
low-resolution images as another stage makes them.

Frozen dataclasses, checked when they are made. `calotype.config` shows these too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.network_config import Fraction, in_range, require
from calotype.typed_json import Range, check_ranges

SomeImages = Annotated[int, Range(1, 10**13)]
BatchSize = Annotated[int, Range(1, 1_000_000)]
LearningRate = Annotated[float, Range(0.0, 10.0)]
WeightDecay = Annotated[float, Range(0.0, 100.0)]
Ratio = Annotated[float, Range(1e-3, 1e3)]
Rank = Annotated[int, Range(1, 4096)]
Alpha = Annotated[float, Range(1e-6, 1e6)]
LORA_WEIGHTS = Range(-100, 100)  # of a LoRA in use

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

    images: SomeImages = 1_000_000
    batch_size: BatchSize = 512
    learning_rate: LearningRate = 3e-3
    weight_decay: WeightDecay = 0.03
    text_noise: Annotated[float, Range(0.0, 100.0)] = 0.4
    text_dropout: Fraction = 0.03
    plain_fraction: Fraction = 0.25
    folds: Annotated[int, Range(0, 64)] = 0
    fold_images: SomeImages = 1_000_000
    fold_fraction: Fraction = 0.4

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
        require(self.folds != 1, "got folds=1; expected 0 (none), or 2 to 64")


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
    fraction: Fraction = 0.5
    sigma_min: Ratio = 0.1
    sigma_max: Ratio = 1.0
    steps: Annotated[int, Range(1, 1000)] = 3

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
        in_range("sigma_max", self.sigma_max, self.sigma_min, 1e3)


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

    rank: Rank = 8
    alpha: Alpha = 8.0
    targets: tuple[LoraTarget, ...] = ("attention", "convolution")

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
        require(len(self.targets) > 0, "got no targets; expected some, e.g. ['attention']")


@dataclass(frozen=True, kw_only=True)
class LoraFacts:
    """What a LoRA file says of itself; see `calotype.cascade.lora`.

    Args:
        format: names the kind of file and its version.
        resolution: of the stage.
        rank: as trained; layers that are smaller have less.
        alpha: changes are scaled by alpha / rank.
        base: fingerprint of the weights it was trained on.
    """

    format: str
    resolution: Annotated[int, Range(1, 65536)]
    rank: Rank
    alpha: Alpha
    base: str

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class PreservationConfig:
    """Examples of what the model knew before, mixed into every batch so that it is not forgotten.

    The loss of a batch is (1 - share) * mean(new) + share * weight * mean(kept).

    Reference: Ruiz et al. 2022, section 3.3 (prior preservation), arXiv:2208.12242.

    Args:
        data: path of pictures with captions, usually drawn by the model itself beforehand.
        share: of every batch; rounded to whole pictures.
        weight: of their loss.
    """

    data: str
    share: Annotated[float, Range(1e-3, 0.999)] = 0.5
    weight: Annotated[float, Range(0.0, 1000.0)] = 1.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
