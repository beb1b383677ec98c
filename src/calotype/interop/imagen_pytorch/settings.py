"""Settings of imagen-pytorch's U-Net: its 45 arguments by name, checked, and laid out by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from calotype.config.ranges import Range, Settings, require
from calotype.interop.imagen_pytorch.options import each, one_of, refuse_unless

DEFAULT_TEXT_WIDTH = 768  # google/t5-v1_1-base
PERCEIVER_POSITIONS = 512
_RESIZE_MODES = ("nearest", "nearest-exact", "bilinear", "bicubic", "area")

Count = Annotated[int, Range(1, 1 << 20)]
CountOrZero = Annotated[int, Range(0, 1 << 20)]
Kind = Literal["none", "linear", "full"]
Flags = bool | tuple[bool, ...]


@dataclass(frozen=True)
class LayerSettings:
    """One resolution of the U-Net: `inner` channels on its finer side, `outer` on its coarser one.

    The entry block attends to time and text (`cross`); after it come `blocks`, and `depth` layers
    of attention of pixels to pixels, time and text.
    """

    inner: int
    outer: int
    blocks: int
    attention: Kind
    depth: int
    cross: Kind


@dataclass(frozen=True, kw_only=True)
class UnetSettings(Settings):
    """Arguments of `Unet`; names, defaults and meanings are those of imagen-pytorch 2.1.0.

    Where that package ignores an argument: `dropout` acts here (in residual blocks),
    `layer_attns_add_text_cond=False` acts here (self-attention without time and text);
    `num_image_tokens` and `out_dim` are refused.
    """

    dim: Annotated[int, Range(8, 1 << 20)]
    text_embed_dim: int | None = DEFAULT_TEXT_WIDTH
    num_resnet_blocks: int | tuple[int, ...] = 1
    cond_dim: int | None = None
    num_image_tokens: int = 4
    num_time_tokens: Count = 2
    learned_sinu_pos_emb_dim: int = 16
    out_dim: int | None = None
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    cond_images_channels: CountOrZero = 0
    channels: Count = 3
    channels_out: int | None = None
    attn_dim_head: Count = 64
    attn_heads: Annotated[int, Range(2, 1 << 20)] = 8
    ff_mult: float = 2.0
    lowres_cond: bool = False
    layer_attns: Flags = True
    layer_attns_depth: int | tuple[int, ...] = 1
    layer_mid_attns_depth: CountOrZero = 1
    layer_attns_add_text_cond: bool = True
    attend_at_middle: bool = True
    layer_cross_attns: Flags = True
    use_linear_attn: Flags = False
    use_linear_cross_attn: Flags = False
    cond_on_text: bool = True
    max_text_len: Count = 256
    init_dim: int | None = None
    init_conv_kernel_size: int = 7
    init_cross_embed: bool = True
    init_cross_embed_kernel_sizes: tuple[int, ...] = (3, 7, 15)
    cross_embed_downsample: bool = False
    cross_embed_downsample_kernel_sizes: tuple[int, ...] = (2, 4)
    attn_pool_text: bool = True
    attn_pool_num_latents: Count = 32
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
        super().__post_init__()
        refuse_unless("num_image_tokens", self.num_image_tokens, 4, "imagen-pytorch ignores it")
        refuse_unless("out_dim", self.out_dim, None, "imagen-pytorch ignores it; use channels_out")
        one_of("resize_mode", self.resize_mode, _RESIZE_MODES)
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
        for name, stride in (
            ("init_cross_embed_kernel_sizes", 1),
            ("cross_embed_downsample_kernel_sizes", 2),
        ):
            sizes = getattr(self, name)
            fit = len(sizes) > 0 and all(n % 2 == stride % 2 and n >= stride for n in sizes)
            parity = "odd" if stride % 2 else "even"
            require(fit, f"got {name}={sizes}; expected {parity} numbers")
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
        names = "num_resnet_blocks layer_attns layer_attns_depth layer_cross_attns"
        names += " use_linear_attn use_linear_cross_attn"
        widths = (self.stem_width, *(self.dim * mult for mult in self.dim_mults))
        records = []
        for i, one in enumerate(each(self, names, len(self.dim_mults), of="layers (dim_mults)")):
            attention: Kind = "linear" if one.use_linear_attn else "none"
            cross: Kind = "full" if one.layer_cross_attns else "none"
            record = LayerSettings(
                inner=widths[i],
                outer=widths[i + 1],
                blocks=one.num_resnet_blocks,
                attention="full" if one.layer_attns else attention,
                depth=one.layer_attns_depth,
                cross="linear" if one.use_linear_cross_attn else cross,
            )
            records.append(record)
        return tuple(records)
