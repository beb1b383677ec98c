"""Typed settings: frozen dataclasses, checked when they are made, written beside the weights.

`load_config` reads JSON into them and refuses what it does not know; `to_dict` writes them.
This module imports no torch, so that the command line can read a recipe at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from calotype.adm_config import AdmConfig, AdmLevel, StatesText, TokensText, UnclipText
from calotype.network_config import (
    DraftConfig,
    EfficientUNetConfig,
    Fraction,
    LevelConfig,
    UNetConfig,
    require,
)
from calotype.prior_config import PriorConfig, PriorNetworkConfig
from calotype.schedule_config import (
    DiscreteScheduleConfig,
    LowresConfig,
    NormalLogSNR,
    Sampler,
    SamplingConfig,
    UniformTimes,
)
from calotype.tuning_config import (
    BatchSize,
    DraftTrainingConfig,
    LearningRate,
    LoraConfig,
    LoraFacts,
    LowresEstimatesConfig,
    PreservationConfig,
    SomeImages,
    WeightDecay,
)
from calotype.typed_json import (
    Range,
    Retired,
    check_ranges,
    from_dict,
    load_config,
    override,
    to_dict,
)

__all__ = [
    "AdmConfig",
    "AdmLevel",
    "CascadeConfig",
    "DataConfig",
    "DiscreteScheduleConfig",
    "DraftConfig",
    "DraftTrainingConfig",
    "EfficientUNetConfig",
    "LevelConfig",
    "LoraConfig",
    "LoraFacts",
    "LowresConfig",
    "LowresEstimatesConfig",
    "NetworkConfig",
    "NormalLogSNR",
    "OptimizerConfig",
    "PreservationConfig",
    "PriorConfig",
    "PriorNetworkConfig",
    "Recipe",
    "Sampler",
    "SamplingConfig",
    "StageConfig",
    "StatesText",
    "TokensText",
    "TrainConfig",
    "UNetConfig",
    "UnclipText",
    "UniformTimes",
    "from_dict",
    "load_config",
    "override",
    "to_dict",
]

Images = Annotated[int, Range(0, 10**13)]
Decay = Annotated[float, Range(0.0, 0.999999)]
Resolution = Annotated[int, Range(1, 65536)]
MOST_BATCH_PIXELS = 2**31  # 2048 images of 1024 pixels a side: 26 GB, and as much noise
NetworkConfig = UNetConfig | EfficientUNetConfig | AdmConfig


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One diffusion model of a cascade.

    Args:
        resolution: side of the pictures it was made for, in pixels.
        network: its network.
        lowres_resolution: side of the picture it enlarges; None for a base.
        schedule: noise schedule of training times, or the table of a published model.
        parametrization: what the network predicts.
        data_std: standard deviation of what is diffused; networks see unit variance
            (Karras et al. 2022, section 5). 1 = pictures as they are.
        residual: diffuse the difference to the enlarged low-resolution picture.
        arithmetic: "levels" is this library's. "table" computes in the order of GLIDE's code, so
            that published float32 numbers come out to the last bit where a processor rounds alike.
        lowres: how the low-resolution picture is enlarged and noised.
        sampling: how it draws unless told otherwise.
    """

    resolution: Resolution
    network: NetworkConfig
    lowres_resolution: Resolution | None = None
    schedule: Literal["cosine", "linear"] | DiscreteScheduleConfig = "cosine"
    parametrization: Literal["eps", "v", "x"] = "eps"
    data_std: Annotated[float, Range(1e-3, 1e3)] = 1.0
    residual: bool = False
    arithmetic: Literal["levels", "table"] = "levels"
    lowres: LowresConfig = field(default_factory=LowresConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        """Check that the parts fit."""
        check_ranges(self)
        require(
            self.network.lowres == (self.lowres_resolution is not None),
            f"got lowres={self.network.lowres} with lowres_resolution={self.lowres_resolution}; "
            "expected both or neither",
        )
        require(
            not self.residual or self.lowres_resolution is not None,
            "got residual=true in a base stage; expected a lowres_resolution",
        )
        tabled = isinstance(self.schedule, DiscreteScheduleConfig) and self.parametrization == "eps"
        require(
            self.arithmetic == "levels" or (tabled and self.data_std == 1 and not self.residual),
            'got arithmetic="table"; expected it with a table as schedule, parametrization="eps", '
            "data_std=1 and residual=false",
        )
        require(
            self.draft is None or self.draft.resolution == self.resolution,
            f"got draft={self.draft} in a stage of {self.resolution} pixels; expected a draft of "
            "the stage's resolution",
        )
        require(
            self.resolution % self.network.divisor == 0,
            f"got resolution {self.resolution}; expected a multiple of {self.network.divisor} "
            "(fold times the U-Net's down-sampling)",
        )
        self.check_start(self.sampling)

    def check_start(self, sampling: SamplingConfig) -> None:
        """Refuse sampling settings that start from a draft which the network does not have."""
        require(
            sampling.start == "noise" or self.draft is not None,
            f'got start="draft" for the {self.resolution} stage, whose network has no draft; '
            'expected start="noise", or a network with a draft (network.draft)',
        )

    @property
    def draft(self) -> DraftConfig | None:
        """The draft its network is conditioned on, if any."""
        return self.network.draft if isinstance(self.network, UNetConfig) else None


@dataclass(frozen=True, kw_only=True)
class CascadeConfig:
    """A cascade: the stages from coarse to fine, and the text encoder they were trained with.

    Args:
        stages: from the base to the finest.
        text_encoder: specification as `calotype.text.build_text_encoder` reads it; "none" for
            an unconditional cascade.
        name: what the cascade is called.
    """

    stages: tuple[StageConfig, ...]
    text_encoder: str
    name: str = "cascade"

    def __post_init__(self) -> None:
        """Check that each stage enlarges the one before."""
        require(len(self.stages) > 0, "got no stages; expected at least one")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            require(
                after.lowres_resolution == before.resolution,
                f"got a stage that enlarges {after.lowres_resolution} after one of "
                f"{before.resolution}; expected lowres_resolution={before.resolution}",
            )
        # A cascade may also be super-resolution alone, fed by `upscale`.


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """How pictures become training examples.

    Args:
        caption_variants: captions per picture to choose from, embedded once ahead.
        styles: style phrases or set names to train on; None = all that the data has.
        fit: pictures that are not square: "crop" (centre) or "pad".
        small: pictures smaller than the stage: "enlarge" or "skip".
        crop: side of random crops in pixels of the stage's resolution; None = whole pictures.
        crops_per_picture: crops cut from each decoded picture.
        flip: mirror pictures at random.
        broken_share: share of broken pictures above which training refuses, in [0, 1].
        missing_captions: a caption that is not in the embedding store is computed or refused.
        cache_bytes: decoded pictures kept in memory up to this size.
    """

    caption_variants: Annotated[int, Range(1, 10_000)] = 16
    styles: tuple[str, ...] | None = None
    fit: Literal["crop", "pad"] = "crop"
    small: Literal["enlarge", "skip"] = "enlarge"
    crop: Resolution | None = None
    crops_per_picture: Annotated[int, Range(1, 1024)] = 1
    flip: bool = False
    broken_share: Fraction = 0.2
    missing_captions: Literal["compute", "refuse"] = "compute"
    cache_bytes: Annotated[int, Range(0, 10**15)] = 2_500_000_000

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW or Adafactor with warm-up, constant rate and decay; all lengths in images.

    Args:
        kind: which optimizer.
        learning_rate: peak rate.
        betas: decay of the moments.
        eps: added to the denominator.
        weight_decay: decoupled decay.
        warmup_images: linear warm-up.
        decay_from: share of the run after which the rate decays, in [0, 1]; 1 = never.
        final_rate: rate at the end as a share of the peak.
        grad_clip_norm: largest gradient norm; None = no clipping.
        accumulation: micro-batches per step.
    """

    kind: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: LearningRate = 1e-4
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    eps: Annotated[float, Range(1e-30, 1.0)] = 1e-8
    weight_decay: WeightDecay = 0.01
    warmup_images: Images = 10_000
    decay_from: Fraction = 1.0
    final_rate: Fraction = 0.01
    grad_clip_norm: Annotated[float, Range(1e-6, 1e6)] | None = 1.0
    accumulation: Annotated[int, Range(1, 100_000)] = 1

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A recipe of one stage: everything that decides a training run.

    Args:
        stage: what is trained.
        text_encoder: as in `CascadeConfig`.
        data: how pictures become examples.
        optimizer: how weights move.
        levels: where noise levels are drawn.
        weighting: of the loss by noise level.
        batch_size: examples per optimizer step.
        total_images: length of the run.
        ema_halflife_images: half-life of the averaged weights.
        posthoc_ema_images: images between snapshots of the averages whose length `calotype ema`
            chooses after training; 0 = none.
        draft: how the draft is trained, before the rest; needed by a network that has one.
        lowres_estimates: train on low-resolution images as the stage before makes them, too; None =
            on true ones alone.
        lora: train low-rank adapters alone; None = all weights.
        preservation: examples of what was known before, in every batch.
        text_dropout: share of captions replaced by the null caption.
        aug_level_max: aug_level is drawn uniformly from [0, this].
        checkpoint_images: images between checkpoints.
        keep_checkpoints: newest checkpoints kept.
        grid_images: images between grids of the fixed prompts.
        validation_images: images between validations.
        grid_captions: the fixed prompts.
        trackers: where numbers and grids go beside the run folder's own files.
        seed: of everything random.
    """

    stage: StageConfig
    text_encoder: str = "minilm"
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    levels: UniformTimes | NormalLogSNR = field(default_factory=UniformTimes)
    weighting: Literal["none", "min_snr", "sigmoid"] = "none"
    batch_size: BatchSize = 64
    total_images: SomeImages = 1_000_000
    ema_halflife_images: SomeImages = 25_000
    posthoc_ema_images: Images = 0
    draft: DraftTrainingConfig | None = None
    lowres_estimates: LowresEstimatesConfig | None = None
    lora: LoraConfig | None = None
    preservation: PreservationConfig | None = None
    text_dropout: Fraction = 0.1
    aug_level_max: Fraction = 1.0
    checkpoint_images: SomeImages = 20_000
    keep_checkpoints: Annotated[int, Range(1, 1_000_000)] = 3
    grid_images: Images = 20_000
    validation_images: Images = 20_000
    grid_captions: tuple[str, ...] = ()
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0

    RETIRED = (Retired("canvas", (None,), "expected no text canvas: take the recipe emoji-64"),)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_ranges(self)
        side = self.stage.resolution if self.data.crop is None else self.data.crop
        pixels = self.batch_size * side**2
        require(
            pixels <= MOST_BATCH_PIXELS,
            f"got batch_size={self.batch_size} of {side} pixels a side, {pixels:,} pixels in all; "
            f"expected at most {MOST_BATCH_PIXELS:,}: use a smaller batch_size",
        )
        require(
            self.lowres_estimates is None or self.stage.lowres_resolution is not None,
            "got lowres_estimates for a base stage; expected them for super-resolution alone: set "
            "lowres_estimates=null",
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
            "pictures: change batch_size or preservation.share",
        )

    @property
    def preserved_images(self) -> int:
        """Pictures of a batch that come from the preservation data."""
        share = 0.0 if self.preservation is None else self.preservation.share
        return round(share * self.batch_size)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `calotype train NAME` runs: the stages in turn, coarse to fine.

    Args:
        name: what the recipe is called.
        stages: one training configuration a stage; all recipes but `tiny` have one.
        note: for people.
    """

    name: str
    stages: tuple[TrainConfig, ...]
    note: str = ""

    def __post_init__(self) -> None:
        """Check that there is something to train."""
        require(bool(self.stages), "got a recipe without stages; expected at least one")
