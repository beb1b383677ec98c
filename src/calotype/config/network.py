"""Typed settings of the U-Nets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import OptionalWidth, Range, Settings, Width, in_range, require
from calotype.config.typed_json import Retired

Blocks = Annotated[int, Range(1, 128)]
Dropout = Annotated[float, Range(0.0, 0.99)]
MOST_LEVELS = 16
NO_CANVAS = (
    "expected no text canvas, which bases had before they had drafts: sample with the calotype "
    "that made this cascade, or train its base again, as the recipe emoji-64 does"
)


@dataclass(frozen=True, kw_only=True)
class LevelConfig(Settings):
    """One resolution of a U-Net.

    Args:
        channels: feature channels.
        blocks: residual blocks on the way down; see the network for the way up.
        self_attention: self-attention after each block (Efficient U-Net: after the last); text keys
            and values are concatenated to the pixels'.
        cross_attention: attention to the text alone, where there is no self-attention.
        checkpoint: recompute this level in the backward pass instead of keeping it in memory.
    """

    channels: Width
    blocks: Blocks
    self_attention: bool = False
    cross_attention: bool = False
    checkpoint: bool = False

    RETIRED = (Retired("canvas_channels", (0,), NO_CANVAS),)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.self_attention and self.cross_attention),
            "got both self_attention and cross_attention in one level; choose one: "
            "self-attention already attends to the text",
        )

    @property
    def attends(self) -> bool:
        """Whether there is attention of either kind."""
        return self.self_attention or self.cross_attention


@dataclass(frozen=True, kw_only=True)
class DraftConfig(Settings):
    """The draft of a small base: an image that a regression makes of the pooled caption.

    Args:
        width: of the regression's hidden layer; half as many features follow.
        rank: images with their transparency that it is a sum of; the colour of the ground is apart.
        resolution: its side in pixels, which is that of the stage.
        spread: it knows how far images lie from their drafts, and so makes use of known pixels.
    """

    width: Width = 1024
    rank: Annotated[int, Range(1, 4 * 1024**2)] = 1024
    resolution: Annotated[int, Range(1, 1024)] = 64
    spread: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        numbers = 4 * self.resolution**2
        require(
            1 <= self.rank <= numbers,
            f"got rank={self.rank} for a draft of {self.resolution} pixels; expected 1 to "
            f"{numbers}, the numbers of such an image with its transparency",
        )


@dataclass(frozen=True, kw_only=True)
class _UNetFields(Settings):
    """What both U-Nets have.

    Args:
        levels: one record a resolution, finest first; each is half as fine as the one before.
        text_dim: width of the text encoder's states; 0 = no text.
        fold: side of the pixel squares folded into channels before the first level.
        head_dim: channels of one attention head.
        embed_dim: width of the noise-level embedding; 0 = four times the first level's channels.
        dropout: within residual blocks.
        extra_channels: further input channels (in-painting: known image and mask, 4).
        text_pooling: how the pooled text is made: "attention" (the paper), or "whitened_mean"
            (mean of the token states, whitened with statistics of the training captions).
        text_tokens: attention sees the caption's tokens; false = the pooled text alone enters, as
            in the paper's comparison of ways to condition on text (appendix D.1).
    """

    levels: tuple[LevelConfig, ...]
    text_dim: OptionalWidth
    fold: Annotated[int, Range(1, 256)] = 1
    head_dim: Width = 64
    embed_dim: OptionalWidth = 0
    dropout: Dropout = 0.0
    extra_channels: Annotated[int, Range(0, 1024)] = 0
    text_pooling: Literal["attention", "whitened_mean"] = "attention"
    text_tokens: bool = True

    ADDED = ("text_tokens",)

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("the number of levels", len(self.levels), 1, MOST_LEVELS)
        for level in self.levels:
            if level.attends:
                _check_heads(level, self.head_dim)
            require(
                self.text_dim > 0 or not level.cross_attention,
                "got cross_attention with text_dim=0; expected a text_dim",
            )
            require(
                self.text_tokens or not level.cross_attention,
                "got cross_attention with text_tokens=false; expected levels without it: there are "
                "no tokens to attend to",
            )
        require(
            self.text_tokens or self.text_dim > 0,
            "got text_tokens=false with text_dim=0; expected a text_dim: there is no text to pool",
        )


@dataclass(frozen=True, kw_only=True)
class UNetConfig(_UNetFields):
    """The base U-Net (ADM; Saharia et al. 2022, appendix F.1).

    Args:
        lowres: whether a low-resolution image is joined to the input.
        draft: conditions the network on a draft of the image; None = no draft, as in the paper.
    """

    lowres: bool = False
    draft: DraftConfig | None = None
    kind: Literal["unet"] = "unet"

    RETIRED = (Retired("canvas_hidden", (), ""), Retired("canvas_resolution", (), ""))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.draft is None or (self.text_dim > 0 and self.text_pooling == "whitened_mean"),
            "got a draft without a frozen summary of the caption to make it of; expected text_dim "
            'above 0 and text_pooling="whitened_mean"',
        )
        if any(level.self_attention for level in self.levels):
            _check_heads(self.levels[-1], self.head_dim)  # the middle attends, too

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(self.fold * 2 ** (len(self.levels) - 1))


@dataclass(frozen=True, kw_only=True)
class EfficientUNetConfig(_UNetFields):
    """The Efficient U-Net of super-resolution stages (Saharia et al. 2022, appendix B).

    Every level halves the resolution before its blocks and doubles it after them.

    Args:
        lowres: whether a low-resolution image is joined to the input.
        stem_channels: of the first and last convolutions; 0 = as the first level.
    """

    lowres: bool = True
    stem_channels: OptionalWidth = 0
    kind: Literal["efficient_unet"] = "efficient_unet"

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(self.fold * 2 ** len(self.levels))


def _check_heads(level: LevelConfig, head_dim: int) -> None:
    require(
        level.channels % head_dim == 0,
        f"got {level.channels} channels with attention heads of {head_dim}; expected a multiple: "
        "change channels or head_dim",
    )
