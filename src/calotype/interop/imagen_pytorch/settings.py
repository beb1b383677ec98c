"""Settings of imagen-pytorch's U-Net: its 45 arguments by name, checked, and laid out by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from calotype.config.ranges import in_range, require
from calotype.errors import ConfigError
from calotype.interop.imagen_pytorch.options import per_item, refuse_unless

DEFAULT_TEXT_WIDTH = 768  # google/t5-v1_1-base
PERCEIVER_POSITIONS = 512
_SIMPLE_RANGES = {
    "dim": 8,
    "num_time_tokens": 1,
    "channels": 1,
    "attn_dim_head": 1,
    "max_text_len": 1,
    "attn_pool_num_latents": 1,
    "layer_mid_attns_depth": 0,
    "cond_images_channels": 0,
}
_RESIZE_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")

Kind = Literal["none", "linear", "full"]
Flags = bool | tuple[bool, ...]


@dataclass(frozen=True)
class LayerSettings:
    """One resolution of the U-Net.

    Args:
        inner: channels on its finer side.
        outer: channels on its coarser side.
        blocks: residual blocks beside the entry block.
        attention: attention of pixels to pixels, time and text.
        depth: transformer layers of it.
        cross: attention to time and text inside the entry block.
    """

    inner: int
    outer: int
    blocks: int
    attention: Kind
    depth: int
    cross: Kind


@dataclass(frozen=True, kw_only=True)
class UnetSettings:
    """Arguments of `Unet`; names, defaults and meanings are those of imagen-pytorch 2.1.0.

    Where that package ignores an argument: `dropout` acts here (in residual blocks),
    `layer_attns_add_text_cond=False` acts here (self-attention without time and text);
    `num_image_tokens` and `out_dim` are refused.
    """

    dim: int
    text_embed_dim: int | None = DEFAULT_TEXT_WIDTH
    num_resnet_blocks: int | tuple[int, ...] = 1
    cond_dim: int | None = None
    num_image_tokens: int = 4
    num_time_tokens: int = 2
    learned_sinu_pos_emb_dim: int = 16
    out_dim: int | None = None
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    cond_images_channels: int = 0
    channels: int = 3
    channels_out: int | None = None
    attn_dim_head: int = 64
    attn_heads: int = 8
    ff_mult: float = 2.0
    lowres_cond: bool = False
    layer_attns: Flags = True
    layer_attns_depth: int | tuple[int, ...] = 1
    layer_mid_attns_depth: int = 1
    layer_attns_add_text_cond: bool = True
    attend_at_middle: bool = True
    layer_cross_attns: Flags = True
    use_linear_attn: Flags = False
    use_linear_cross_attn: Flags = False
    cond_on_text: bool = True
    max_text_len: int = 256
    init_dim: int | None = None
    init_conv_kernel_size: int = 7
    init_cross_embed: bool = True
    init_cross_embed_kernel_sizes: tuple[int, ...] = (3, 7, 15)
    cross_embed_downsample: bool = False
    cross_embed_downsample_kernel_sizes: tuple[int, ...] = (2, 4)
    attn_pool_text: bool = True
    attn_pool_num_latents: int = 32
    dropout: float = 0.0
    memory_efficient: bool = False
    init_conv_to_final_conv_residual: bool = False
    use_global_context_attn: bool = True
    scale_skip_connection: bool = True
    final_resnet_block: bool = True
    final_conv_kernel_size: int = 3
    self_cond: bool = False
    resize_mode: str = "nearest"
    combine_upsample_fmaps: bool = False
    pixel_shuffle_upsample: bool = True

    def __post_init__(self) -> None:
        """Check ranges, and that the parts fit."""
        for name, lowest in _SIMPLE_RANGES.items():
            in_range(name, getattr(self, name), lowest, 1 << 20)
        refuse_unless("num_image_tokens", self.num_image_tokens, 4, "imagen-pytorch ignores it")
        refuse_unless("out_dim", self.out_dim, None, "imagen-pytorch ignores it; use channels_out")
        require(self.attn_heads > 1, f"got attn_heads={self.attn_heads}; expected at least 2")
        require(len(self.dim_mults) > 0, "got no dim_mults; expected one number a resolution")
        require(0 <= self.dropout < 1, f"got dropout={self.dropout}; expected [0, 1)")
        require(
            self.learned_sinu_pos_emb_dim % 2 == 0 and self.learned_sinu_pos_emb_dim > 0,
            f"got learned_sinu_pos_emb_dim={self.learned_sinu_pos_emb_dim}; expected even",
        )
        require(
            not self.cond_on_text or self.text_embed_dim is not None,
            "got cond_on_text=True without text_embed_dim; give the width of the text states",
        )
        require(
            not self.attn_pool_text or self.max_text_len <= PERCEIVER_POSITIONS,
            f"got max_text_len={self.max_text_len}; expected at most {PERCEIVER_POSITIONS} with "
            "attn_pool_text",
        )
        require(
            self.resize_mode in _RESIZE_MODES,
            f"got resize_mode={self.resize_mode!r}; expected one of {_RESIZE_MODES}",
        )
        _check_kernels("init_cross_embed_kernel_sizes", self.init_cross_embed_kernel_sizes, 1)
        _check_kernels(
            "cross_embed_downsample_kernel_sizes", self.cross_embed_downsample_kernel_sizes, 2
        )
        self.layers()

    @property
    def cond_width(self) -> int:
        """Width of the time and text tokens."""
        return self.dim if self.cond_dim is None else self.cond_dim

    @property
    def time_width(self) -> int:
        """Width of the embedding every residual block sees."""
        return self.dim * (8 if self.lowres_cond else 4)

    @property
    def stem_width(self) -> int:
        """Channels after the first convolution."""
        return self.dim if self.init_dim is None else self.init_dim

    @property
    def in_channels(self) -> int:
        """Channels of all images that enter."""
        images = 1 + int(self.lowres_cond) + int(self.self_cond)
        return self.channels * images + self.cond_images_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.channels if self.channels_out is None else self.channels_out

    @property
    def divisor(self) -> int:
        """Image sides must be multiples of this many pixels."""
        return int(2 ** (len(self.dim_mults) - (0 if self.memory_efficient else 1)))

    def layers(self) -> tuple[LayerSettings, ...]:
        """The settings of every resolution, finest first."""
        count = len(self.dim_mults)
        widths = (self.stem_width, *(self.dim * mult for mult in self.dim_mults))

        def each(name: str) -> tuple[Any, ...]:
            return per_item(name, getattr(self, name), count, of="layers (dim_mults)")

        linear_cross = each("use_linear_cross_attn")
        cross = [a or b for a, b in zip(each("layer_cross_attns"), linear_cross, strict=True)]
        return tuple(
            LayerSettings(
                inner=widths[i],
                outer=widths[i + 1],
                blocks=each("num_resnet_blocks")[i],
                attention=_kind(full=each("layer_attns")[i], linear=each("use_linear_attn")[i]),
                depth=each("layer_attns_depth")[i],
                cross=_kind(full=cross[i] and not linear_cross[i], linear=linear_cross[i]),
            )
            for i in range(count)
        )


def _kind(*, full: bool, linear: bool) -> Kind:
    if full:
        return "full"
    return "linear" if linear else "none"


def _check_kernels(name: str, sizes: tuple[int, ...], stride: int) -> None:
    if len(sizes) == 0 or any(size % 2 != stride % 2 or size < stride for size in sizes):
        parity = "odd" if stride % 2 else "even"
        raise ConfigError(f"got {name}={sizes}; expected {parity} numbers")
