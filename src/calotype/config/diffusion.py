"""Training of a diffusion stage: what is trained, what it is conditioned on, what it must keep."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self

from calotype.config.lora import LoraConfig
from calotype.config.masks import MasksConfig
from calotype.config.ranges import (
    BatchSize,
    Fraction,
    LearningRate,
    Range,
    Settings,
    SomeImages,
    WeightDecay,
    in_range,
    require,
)
from calotype.config.schedule import (
    DiscreteScheduleConfig,
    NormalLogSNR,
    UniformTimes,
    WholeTimesteps,
)
from calotype.config.stage import StageConfig
from calotype.config.training import TrainConfig
from calotype.config.typed_json import Retired

Ratio = Annotated[float, Range(1e-3, 1e3)]


@dataclass(frozen=True, kw_only=True)
class DraftTrainingConfig(Settings):
    """How a base's draft is trained, alone and before diffusion begins; see `tasks/draft.py`.

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
        super().__post_init__()
        require(self.folds != 1, "got folds=1; expected 0 (none), or 2 to 64")


@dataclass(frozen=True, kw_only=True)
class LowresEstimatesConfig(Settings):
    """Super-resolution that has seen what it gets; see `tasks/estimates.py`.

    A fraction of the low-resolution images are the estimates that the stage before makes of them:
    noised, and denoised by it in a few steps. They are aligned with their truth, and have that
    stage's own grain.

    Args:
        model: has the stage before: "default", a cascade, a run, or a checkpoint of one.
        fraction: of the rows of a batch.
        sigma_min: smallest sigma/alpha of the noise, which is log-uniform.
        sigma_max: largest sigma/alpha.
        steps: of the stage before.
    """

    model: str
    fraction: Fraction = 0.5
    sigma_min: Ratio = 0.1
    sigma_max: Ratio = 1.0
    steps: Annotated[int, Range(1, 1000)] = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("sigma_max", self.sigma_max, self.sigma_min, 1e3)


@dataclass(frozen=True, kw_only=True)
class PreservationConfig(Settings):
    """Examples of what the model knew before, mixed into every batch so that it is not forgotten.

    The loss of a batch is (1 - fraction) * mean(new) + fraction * weight * mean(kept).

    Reference: Ruiz et al. 2022, section 3.3 (prior preservation), arXiv:2208.12242.

    Args:
        data: path of images with captions, usually sampled from the model itself beforehand.
        fraction: of every batch; rounded to whole images.
        weight: of their loss.
    """

    data: str
    fraction: Annotated[float, Range(1e-3, 0.999)] = 0.5
    weight: Annotated[float, Range(0.0, 1000.0)] = 1.0

    RETIRED = (Retired("share", now="fraction"),)


@dataclass(frozen=True, kw_only=True)
class DiffusionTraining(TrainConfig):
    """Training of one stage of a cascade.

    Args:
        stage: what is trained.
        text_encoder: as in `CascadeConfig`.
        levels: the distribution of noise levels.
        weighting: of the error by noise level.
        vlb_weight: lambda, what the variational bound counts beside the error where the network
            learns its variance (Nichol & Dhariwal 2021, section 3.1); 0 = it stays untrained.
        draft: how the draft is trained, before the rest; needed by a network that has one.
        lowres_estimates: train on low-resolution images as the stage before makes them, too; None =
            on true ones alone.
        lora: train low-rank adapters alone; None = all weights.
        masks: what is hidden of the images in training to in-paint; None = plain training.
        preservation: examples of what was known before, in every batch.
        text_dropout: fraction of captions replaced by the null caption.
        class_dropout: fraction of classes replaced by the null class; with 0 it can neither sample
            without a class nor guide away from it.
        aug_level_max: aug_level is uniform in [0, this].
        grid_captions: the fixed prompts.
    """

    kind: Literal["diffusion"] = "diffusion"
    stage: StageConfig
    text_encoder: str = "minilm"
    levels: UniformTimes | WholeTimesteps | NormalLogSNR = field(default_factory=UniformTimes)
    weighting: Literal["none", "min_snr", "sigmoid"] = "none"
    vlb_weight: Annotated[float, Range(0.0, 1000.0)] = 0.001
    draft: DraftTrainingConfig | None = None
    lowres_estimates: LowresEstimatesConfig | None = None
    lora: LoraConfig | None = None
    masks: MasksConfig | None = None
    preservation: PreservationConfig | None = None
    text_dropout: Fraction = 0.1
    class_dropout: Fraction = 0.1
    aug_level_max: Fraction = 1.0
    grid_captions: tuple[str, ...] = ()

    ASSUMED = True  # where a recipe names no kind
    RETIRED = (Retired("canvas", (None,), "expected no text canvas: take the recipe emoji-64"),)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.lowres_estimates is None or self.stage.lowres_resolution is not None,
            "got lowres_estimates for a base stage; expected them for super-resolution alone: set "
            "lowres_estimates=null",
        )
        channels = self.stage.network.extra_channels
        require(
            channels == (0 if self.masks is None else 4),
            f"got masks={'null' if self.masks is None else '{...}'} for a network with "
            f"extra_channels={channels}; expected masks and 4 of them (known image and mask), or "
            "neither",
        )
        drafted = self.stage.draft is not None
        require(
            drafted or self.draft is None,
            "got draft for a network without one; expected stage.network.draft beside it, or "
            "draft=null",
        )
        require(
            not drafted or (self.data.crop is None and not self.data.flip),
            "got data.crop or data.flip with a draft, which is of the whole image as it is; "
            "expected neither",
        )
        require(
            self.lora is None or self.posthoc_ema_images == 0,
            "got lora with posthoc_ema_images; expected one of them: averages of the factors are "
            "not averages of the weights",
        )
        require(
            self.preservation is None or 0 < self.preserved_images < self.batch_size,
            f"got batch_size={self.batch_size} with preservation; expected room for both kinds of "
            "images: change batch_size or preservation.fraction",
        )
        self._check_levels()
        self._check_classes()

    def _check_classes(self) -> None:
        """Refuse classes without labels, labels without classes, and guidance from nothing."""
        count, labels = self.stage.class_count, self.data.labels
        require(
            count == 0 or labels is not None,
            f"got data.labels=null for a network with classes={count}; expected what names the "
            'class of an image: data.labels="folder", or a column such as "style"',
        )
        require(
            count > 0 or labels is None,
            f"got data.labels={labels!r:.80} for a network without classes; expected "
            "data.labels=null, or a network with classes",
        )
        weight = self.stage.sampling.guidance_weight
        apart = self.class_dropout > 0 or self.stage.network.text_dim > 0
        require(
            weight == 1 or count == 0 or apart,
            f"got sampling.guidance_weight={weight:g} with class_dropout=0, which leaves the null "
            "class untrained; expected a weight of 1, or e.g. class_dropout=0.1",
        )

    def _check_levels(self) -> None:
        """Refuse timesteps without a table, and the bound without timesteps."""
        whole = isinstance(self.levels, WholeTimesteps)
        tabled = isinstance(self.stage.schedule, DiscreteScheduleConfig)
        require(
            tabled or not whole,
            f"got levels whole_timesteps with schedule={self.stage.schedule!r}, which has no table "
            'of timesteps; expected stage.schedule={"kind": "discrete"}, or levels uniform_times',
        )
        require(
            whole or not self.learns_variance,
            f"got levels {self.levels.kind} for a network with learned_variance, which is learned "
            'at whole timesteps; expected levels={"kind": "whole_timesteps"}, or vlb_weight=0 to '
            "leave the variance as it is",
        )
        if not self.bound_alone:
            return
        require(
            self.learns_variance,
            "got levels with importance=true, which trains by the variational bound alone, for a "
            "network without learned_variance; expected one with it, or importance=false",
        )
        require(
            self.weighting == "none" and self.preservation is None,
            "got weighting or preservation with importance=true, which weighs losses itself; "
            "expected weighting=none and no preservation, or importance=false",
        )

    @property
    def learns_variance(self) -> bool:
        """Whether the network has a variance of the reverse step, and it is trained."""
        return self.stage.has_variance and (self.vlb_weight > 0 or self.bound_alone)

    @property
    def bound_alone(self) -> bool:
        """Whether the variational bound is all that counts."""
        return isinstance(self.levels, WholeTimesteps) and self.levels.importance

    @property
    def resolution(self) -> int:
        """Of the stage."""
        return self.stage.resolution

    @property
    def has_text_modules(self) -> bool:
        """Whether the stage's network has."""
        return self.stage.has_text_modules

    def settled(self, recorded: TrainConfig) -> Self:
        """Itself with the recorded classes, where it names none."""
        names = recorded.stage.classes if isinstance(recorded, DiffusionTraining) else ()
        return self.of_classes(self.stage.classes or names)

    def of_classes(self, names: tuple[str, ...]) -> Self:
        """Itself for classes of these names, and with the null class as it is trained.

        Raises:
            ConfigError: its network has more or fewer.
        """
        count = self.stage.class_count
        if count == 0 or not names:
            return self
        require(
            count == len(names),
            f"got {len(names)} classes, {', '.join(names):.200}, for a network with "
            f"classes={count}; expected as many: set stage.network.classes={len(names)}, or give "
            "other data",
        )
        stage = replace(self.stage, classes=names, null_class=self.class_dropout > 0)
        return replace(self, stage=stage)

    @property
    def preserved_weight(self) -> float:
        """What the loss of such images counts."""
        return 1.0 if self.preservation is None else self.preservation.weight

    @property
    def preserved_images(self) -> int:
        """Images of a batch that come from the preservation data."""
        fraction = 0.0 if self.preservation is None else self.preservation.fraction
        return round(fraction * self.batch_size)
