"""Settings of ADM networks: guided diffusion's own, GLIDE, DeepFloyd IF, Karlo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.network import MOST_LEVELS, Blocks, Dropout
from calotype.config.ranges import OptionalWidth, Range, Settings, Width, in_range, require

AdmAttention = Literal["none", "joined", "cross"]


@dataclass(frozen=True, kw_only=True)
class AdmLevel(Settings):
    """One resolution of an ADM network.

    Args:
        channels: feature channels.
        blocks: residual blocks on the way down; one more on the way up.
        attention: after each block: "none"; "joined", of pixels to pixels and text; "cross", of
            pixels to text alone.
    """

    channels: Width
    blocks: Blocks
    attention: AdmAttention = "none"


@dataclass(frozen=True, kw_only=True)
class StatesText(Settings):
    """Text as DeepFloyd IF takes it: the states of an encoder, padding and all.

    Args:
        width: the states are projected to this width for attention.
        pool_heads: heads of the attention pooling added to the time embedding; 0 = no pooling.
        norm: GroupNorm over the projected states in every attention layer.
    """

    width: Width
    pool_heads: OptionalWidth = 64
    norm: bool = True
    kind: Literal["states"] = "states"


@dataclass(frozen=True, kw_only=True)
class TokensText(Settings):
    """Text as GLIDE takes it: token numbers, read by the network's own transformer.

    Args:
        width: of the transformer.
        layers: of the transformer.
        heads: of its attention.
        context: tokens of a caption, padding included; padding has learned embeddings.
        vocabulary: how many tokens there are.
    """

    width: Width
    layers: Annotated[int, Range(1, 512)]
    heads: Width
    context: Width = 128
    vocabulary: Annotated[int, Range(1, 10_000_000)] = 50257
    kind: Literal["tokens"] = "tokens"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.width % self.heads == 0,
            f"got width={self.width} with heads={self.heads}; expected a multiple",
        )


@dataclass(frozen=True, kw_only=True)
class UnclipText(Settings):
    """Text as Karlo takes it: an image embedding, a text embedding and states, all of one CLIP.

    The tokens of a caption are, in this order: the image embedding (masked out where there is
    none: a learned one stands for it), the text embedding, the states.

    Args:
        width: of attention's keys and values.
        extra_tokens: tokens made of the image embedding.
    """

    width: Width
    extra_tokens: Annotated[int, Range(1, 4096)] = 4
    kind: Literal["unclip"] = "unclip"


@dataclass(frozen=True, kw_only=True)
class AdmConfig(Settings):
    """A U-Net of Dhariwal & Nichol 2021 with text, as published models vary it.

    Args:
        levels: one record a resolution, finest first; each is half as fine as the one before.
        text_dim: width of a caption's tokens, 1 for token ids; 0 = no text.
        text: what becomes of the captions; None = no text.
        classes: how many classes of images it can be told of; 0 = none. One embedding each, and
            one of the null class behind them, is added to the time embedding.
        fold: side of the pixel squares folded into channels before the first level; 1 in all
            published models.
        middle: attention in the middle.
        lowres: whether a low-resolution image is joined to the input.
        aug_level: whether its noise level is embedded.
        extra_channels: further input channels (inpainting: known image and mask, 4).
        learned_variance: three more output channels for the variance of the reverse step.
        head_dim: channels of one attention head.
        embed_dim: width of the time embedding; 0 = four times the first level's channels.
        activation: of blocks and embeddings.
        embed_activation: applied once to the sum of the embeddings; "none" = not at all.
        skip_embed_activation: blocks take the embedding as it is.
        block_divisor: what a block's sum is divided by.
        middle_divisor: the same in the middle.
        norm_groups: groups of every GroupNorm.
        norm_eps: added to variances in blocks.
        output_scale: what the prediction is multiplied by, not the variance. Where a stage's
            `data_std` is far below the spread of its images this is 1 / data_std, so that the
            network has not to learn large numbers.
        dropout: within residual blocks.
        last_step: a second network of the same kind predicts at timestep 0 (Karlo).
    """

    levels: tuple[AdmLevel, ...]
    text_dim: OptionalWidth = 0
    text: StatesText | TokensText | UnclipText | None = None
    classes: Annotated[int, Range(0, 1_000_000)] = 0
    fold: Annotated[int, Range(1, 256)] = 1
    middle: AdmAttention = "joined"
    lowres: bool = False
    aug_level: bool = False
    extra_channels: Annotated[int, Range(0, 1024)] = 0
    learned_variance: bool = False
    head_dim: Width = 64
    embed_dim: OptionalWidth = 0
    activation: Literal["silu", "gelu"] = "silu"
    embed_activation: Literal["none", "silu", "gelu"] = "none"
    skip_embed_activation: bool = False
    block_divisor: Annotated[float, Range(1e-3, 1e3)] = 1.0
    middle_divisor: Annotated[float, Range(1e-3, 1e3)] = 1.0
    norm_groups: Width = 32
    norm_eps: Annotated[float, Range(1e-12, 1.0)] = 1e-5
    output_scale: Annotated[float, Range(1e-3, 1e3)] = 1.0
    dropout: Dropout = 0.0
    last_step: bool = False
    kind: Literal["adm_unet"] = "adm_unet"

    ADDED = ("classes", "fold", "output_scale")

    def __post_init__(self) -> None:
        super().__post_init__()
        in_range("the number of levels", len(self.levels), 1, MOST_LEVELS)
        require(
            (self.text is not None) == (self.text_dim > 0),
            f"got text_dim={self.text_dim} with text={self.text}; expected both or neither",
        )
        require(self.classes != 1, "got classes=1; expected 0 (none), or at least 2")
        require(not self.aug_level or self.lowres, "got aug_level without lowres; expected both")
        for level in self.levels:
            self._check_level(level)
        uses = {self.middle, *(level.attention for level in self.levels)}
        require("cross" not in uses or self.text is not None, "got cross attention without text")

    def _check_level(self, level: AdmLevel) -> None:
        require(
            level.channels % self.norm_groups == 0,
            f"got {level.channels} channels in {self.norm_groups} groups; expected a multiple",
        )
        attends = level.attention != "none" or (level is self.levels[-1] and self.middle != "none")
        require(
            not attends or level.channels % self.head_dim == 0,
            f"got {level.channels} channels with attention heads of {self.head_dim}; expected "
            "a multiple: change channels or head_dim",
        )

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(self.fold * 2 ** (len(self.levels) - 1))

    @property
    def text_pooling(self) -> Literal["attention"]:
        """No statistics of captions are wanted; see the other networks."""
        return "attention"
