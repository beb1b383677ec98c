"""What training has to know of whatever it trains; each kind of task adds its own settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self

from calotype.config.data import DataConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.ranges import BatchSize, Images, Range, Settings, SomeImages, require

MOST_BATCH_PIXELS = 2**31  # 2048 images of 1024 pixels a side: 26 GB, and as much noise


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings, ABC):
    """How long, on what and how fast; each kind of training says what is trained.

    Args:
        data: how images become examples.
        optimizer: how weights move.
        batch_size: examples per optimizer step.
        total_images: length of the run.
        ema_halflife_images: half-life of the averaged weights.
        posthoc_ema_images: images between snapshots of the averages whose length `calotype ema`
            chooses after training; 0 = none.
        checkpoint_images: images between checkpoints.
        keep_checkpoints: newest checkpoints kept.
        grid_images: images between previews.
        validation_images: images between validations.
        trackers: where numbers and grids go beside the run folder's own files.
        seed: of everything random.
    """

    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    batch_size: BatchSize = 64
    total_images: SomeImages = 1_000_000
    ema_halflife_images: SomeImages = 25_000
    posthoc_ema_images: Images = 0
    checkpoint_images: SomeImages = 20_000
    keep_checkpoints: Annotated[int, Range(1, 1_000_000)] = 3
    grid_images: Images = 20_000
    validation_images: Images = 20_000
    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ("tensorboard",)
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        side = self.resolution if self.data.crop is None else self.data.crop
        pixels = self.batch_size * side**2
        require(
            pixels <= MOST_BATCH_PIXELS,
            f"got batch_size={self.batch_size} of {side} pixels a side, {pixels:,} pixels in all; "
            f"expected at most {MOST_BATCH_PIXELS:,}: use a smaller batch_size",
        )
        require(
            self.optimizer.text_rate == 1 or self.has_text_modules,
            f"got optimizer.text_rate={self.optimizer.text_rate:g} for a model without text "
            "modules of its own; expected 1, or a network of kind adm_unet with text",
        )

    @property
    @abstractmethod
    def resolution(self) -> int:
        """Side in pixels of the images that are trained on."""

    @property
    def has_text_modules(self) -> bool:
        """Whether the network has text modules of its own, which may have a rate of their own."""
        return False

    def settled(self, recorded: TrainConfig) -> Self:
        """Itself, where it leaves open what the data decide, with that as a run recorded it.

        Args:
            recorded: by the run that is resumed, of the same stage.
        """
        return self

    @property
    def preserved_weight(self) -> float:
        """What the loss of such images counts."""
        return 1.0

    @property
    def preserved_images(self) -> int:
        """Images of a batch that come from data to preserve."""
        return 0
