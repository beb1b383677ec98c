"""CLIP: an image tower and a text tower in one space, and how they are trained.

Reference: Radford et al. 2021, arXiv:2103.00020.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from calotype.config.augmentation import ImageAugmentation
from calotype.config.ranges import Range, Resolution, Settings, Width, require
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.training import TrainConfig

Count = Annotated[int, Range(1, 4096)]


@dataclass(frozen=True, kw_only=True)
class ImageTowerConfig(Settings):
    """A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929).

    Args:
        resolution: side of the images in pixels; others are resized to it.
        patch: side of the squares that become tokens.
        width: of the tokens.
        layers: transformer blocks.
        heads: of each.
        head_dim: channels of a head; None = width / heads.
    """

    resolution: Resolution
    patch: Count
    width: Width
    layers: Count
    heads: Count
    head_dim: Width | None = None
    kind: Literal["vit"] = "vit"

    ADDED = ("head_dim", "kind")  # after the first CLIPs were written
    ASSUMED = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patch(self.resolution, self.patch)
        check_heads(self.width, self.heads, self.head_dim)

    @property
    def patches(self) -> int:
        """Tokens of an image, the class token apart."""
        return (self.resolution // self.patch) ** 2


@dataclass(frozen=True, kw_only=True)
class ConvTowerConfig(Settings):
    """A small residual network (He et al. 2016, arXiv:1512.03385), whose blocks ADM has, too.

    Args:
        resolution: side of the images in pixels; others are resized to it.
        patch: side of the squares that become pixels of the first level.
        channels: of each level; each but the first has half the resolution of the one before.
        blocks: residual blocks of a level.
    """

    resolution: Resolution
    patch: Count
    channels: tuple[Width, ...]
    blocks: Count = 2
    kind: Literal["conv"] = "conv"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.channels) > 0, "got channels=[]; expected at least one level")
        check_patch(self.resolution, self.patch * 2 ** (len(self.channels) - 1))


@dataclass(frozen=True, kw_only=True)
class TextTowerConfig(Settings):
    """A transformer over the token states of a frozen encoder, or over token ids.

    Over ids it is causal, and the state of the end-of-text token is the caption's, as in the
    paper; over states every token sees every other, and their mean is.

    Args:
        width: of the tokens.
        layers: transformer blocks.
        heads: of each.
        context: most tokens of a caption.
        states: width of the encoder's token states; None for ids.
        vocabulary: number of token ids; None for states.
        head_dim: channels of a head; None = width / heads.
    """

    width: Width
    layers: Count
    heads: Count
    context: Count = 77
    states: Width | None = None
    vocabulary: Annotated[int, Range(1, 10_000_000)] | None = None
    head_dim: Width | None = None

    ADDED = ("head_dim",)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.width, self.heads, self.head_dim)
        require(
            (self.states is None) != (self.vocabulary is None),
            f"got states={self.states} and vocabulary={self.vocabulary}; expected one of them",
        )


def check_patch(resolution: int, patch: int) -> None:
    """Refuse a resolution that squares do not fill."""
    require(
        resolution % patch == 0,
        f"got resolution {resolution} with patch={patch}; expected a multiple of it",
    )


def check_heads(width: int, heads: int, head_dim: int | None) -> None:
    """Refuse a width that heads do not divide, where it decides theirs."""
    require(
        head_dim is not None or width % heads == 0,
        f"got width={width} with heads={heads}; expected a multiple of it, or a head_dim",
    )


@dataclass(frozen=True, kw_only=True)
class NoiseConfig(Settings):
    """The noisy images of a CLIP that guides samplers (Nichol et al. 2021, section 2.3).

    Levels of training are whole timesteps of a table, all equally often, and uniform times of
    another schedule. A clean image is told to be at the least noisy level of the schedule.

    Args:
        told: how the image tower learns the level: as log-SNR, through a small MLP; as the
            timestep, each with an embedding of its own; or not at all.
        schedule: of the levels: that of the stage that is guided.
    """

    told: Literal["logsnr", "timestep", "untold"] = "logsnr"
    schedule: Literal["cosine", "linear"] | DiscreteScheduleConfig = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.told != "timestep" or isinstance(self.schedule, DiscreteScheduleConfig),
            f"got told='timestep' with schedule={self.schedule!r}, which has no table; expected a "
            'schedule of kind "discrete", or told="logsnr"',
        )


@dataclass(frozen=True, kw_only=True)
class ClipConfig(Settings):
    """Both towers.

    Args:
        image: reads images.
        text: reads captions.
        embed_dim: width of the common space.
        activation: of both; "quick_gelu" is OpenAI's.
        loss: "info_nce" (softmax over the batch, temperature learned) or "siglip" (a sigmoid a
            pair, with a bias; Zhai et al. 2023, arXiv:2303.15343).
        noise: of the images; None = they are clean.
    """

    image: ImageTowerConfig | ConvTowerConfig
    text: TextTowerConfig
    embed_dim: Width
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    loss: Literal["info_nce", "siglip"] = "info_nce"
    noise: NoiseConfig | None = None

    ADDED = ("noise",)


@dataclass(frozen=True, kw_only=True)
class ClipTraining(TrainConfig):
    """Training of a CLIP.

    Args:
        clip: what is trained.
        text_encoder: the frozen encoder whose token states are read, or the tokenizer of ids, as
            `calotype.text.build_text_encoder` reads it.
        augmentation: of the images.
        patch_dropout: fraction of an image's patches that a step leaves out (Li et al. 2022,
            arXiv:2212.00794): training is faster by as much.
        text_noise: standard deviation of noise on the encoder's token states, as a fraction of
            theirs.
    """

    kind: Literal["clip"] = "clip"
    clip: ClipConfig
    text_encoder: str = "minilm"
    augmentation: ImageAugmentation = field(default_factory=ImageAugmentation)
    patch_dropout: Annotated[float, Range(0.0, 0.95)] = 0.0
    text_noise: Annotated[float, Range(0.0, 10.0)] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.batch_size > 1,
            "got batch_size=1 for CLIP, whose loss contrasts the rows of a batch; expected at "
            "least 2, better 256",
        )
        require(self.data.crop is None, "got data.crop for CLIP; expected null: see augmentation")
        require(
            self.patch_dropout == 0 or self.clip.image.kind == "vit",
            f"got patch_dropout={self.patch_dropout} for an image tower of convolutions, which "
            "look at all of an image; expected 0",
        )

    @property
    def kept_patches(self) -> int | None:
        """How many patches of an image a step looks at; None = all."""
        if self.patch_dropout == 0 or self.clip.image.kind == "conv":
            return None
        return max(1, round((1 - self.patch_dropout) * self.clip.image.patches))

    @property
    def resolution(self) -> int:
        """Of the image tower."""
        return self.clip.image.resolution
