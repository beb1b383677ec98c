"""The layers of imagen-pytorch's own U-Net, built from its settings.

In: noisy images, the log-SNR, `UnetInputs`. Out: what the network predicts, like the images. It
loads state dicts under both names of the weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.attention import PerceiverResampler, PixelTransformer
from calotype.interop.imagen_pytorch.blocks import (
    CrossEmbedding,
    FourierFeatures,
    ResidualBlock,
    UpsampleCombiner,
)
from calotype.interop.imagen_pytorch.inputs import TextState, UnetInputs
from calotype.interop.imagen_pytorch.keys import rename_in_place
from calotype.interop.imagen_pytorch.layers import DownLayer, UpLayer, resized
from calotype.interop.imagen_pytorch.options import CudaOptional
from calotype.interop.imagen_pytorch.settings import PERCEIVER_POSITIONS, UnetSettings
from calotype.networks.blocks import zero_init


class UnetLayers(CudaOptional):
    """The network of `UnetSettings`; `Unet` is the same with the other package's methods."""

    def __init__(self, settings: UnetSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.lowres_cond, self.self_cond = s.lowres_cond, s.self_cond
        if s.init_cross_embed:
            kernels = s.init_cross_embed_kernel_sizes
            self.init_conv: nn.Module = CrossEmbedding(
                s.in_channels, s.stem_width, kernels=kernels, stride=1
            )
        else:
            kernel = s.init_conv_kernel_size
            self.init_conv = nn.Conv2d(s.in_channels, s.stem_width, kernel, padding=kernel // 2)
        self.to_time_hiddens = _level_hiddens(s)
        self.to_time_cond = nn.Sequential(nn.Linear(s.time_width, s.time_width))
        self.to_time_tokens = _level_tokens(s)
        if s.lowres_cond:
            self.to_lowres_time_hiddens = _level_hiddens(s)
            self.to_lowres_time_cond = nn.Sequential(nn.Linear(s.time_width, s.time_width))
            self.to_lowres_time_tokens = _level_tokens(s)
        self.norm_cond = nn.LayerNorm(s.cond_width)
        self._build_text()
        self._build_layers()
        self.register_load_state_dict_pre_hook(rename_in_place)  # type: ignore[no-untyped-call]

    def _build_text(self) -> None:
        s = self.settings
        self.null_text_embed = nn.Parameter(torch.randn(1, s.max_text_len, s.cond_width))
        self.null_text_hidden = nn.Parameter(torch.randn(1, s.time_width))
        self.attn_pool: PerceiverResampler | None = None
        if s.attn_pool_text:
            self.attn_pool = PerceiverResampler(
                s.cond_width,
                positions=PERCEIVER_POSITIONS,
                latents=s.attn_pool_num_latents,
                heads=s.attn_heads,
                head_dim=s.attn_dim_head,
            )
        if s.cond_on_text:
            assert s.text_embed_dim is not None
            self.text_to_cond = nn.Linear(s.text_embed_dim, s.cond_width)
            self.to_text_non_attn_cond = nn.Sequential(
                nn.LayerNorm(s.cond_width),
                nn.Linear(s.cond_width, s.time_width),
                nn.SiLU(),
                nn.Linear(s.time_width, s.time_width),
            )

    def _build_layers(self) -> None:
        s = self.settings
        layers = s.layers()
        last = len(layers) - 1
        self.init_resnet_block = None
        if s.memory_efficient:
            gated = s.use_global_context_attn
            self.init_resnet_block = ResidualBlock(s, s.stem_width, s.stem_width, gated=gated)
        down = [DownLayer(s, layer, last=i == last) for i, layer in enumerate(layers)]
        up = [UpLayer(s, layers[i], skip=down[i].width, last=i == 0) for i in range(last, -1, -1)]
        self.down = nn.ModuleList(down)
        middle = layers[last].outer
        # In the middle attention always has 8 heads of 64 channels.
        self.mid_block1 = ResidualBlock(s, middle, middle, cross="full")
        self.mid_attn: PixelTransformer | None = None
        if s.attend_at_middle:
            heads, head_dim, depth = s.attn_heads, s.attn_dim_head, s.layer_mid_attns_depth
            self.mid_attn = PixelTransformer(middle, depth=depth, heads=heads, head_dim=head_dim)
        self.mid_block2 = ResidualBlock(s, middle, middle, cross="full")
        self.up = nn.ModuleList(up)
        self._build_end([layer.outer for layer in reversed(layers)], up[-1].out_width)

    def _build_end(self, map_widths: list[int], width: int) -> None:
        s = self.settings
        self.upsample_combiner: UpsampleCombiner | None = None
        if s.combine_upsample_fmaps:
            self.upsample_combiner = UpsampleCombiner(map_widths, s.dim)
            width += s.dim * len(map_widths)
        if s.init_conv_to_final_conv_residual:
            width += s.stem_width
        self.final_res_block = None
        if s.final_resnet_block:
            self.final_res_block = ResidualBlock(s, width, s.dim, gated=True)
            width = s.dim
        kernel = s.final_conv_kernel_size
        width += s.channels if s.lowres_cond else 0
        self.final_conv = zero_init(nn.Conv2d(width, s.out_channels, kernel, padding=kernel // 2))

    def encode_text(self, text_embeds: Tensor, text_mask: Tensor | None, keep: Tensor) -> TextState:
        """Captions as the layers see them; none of it depends on the noise level.

        Args:
            text_embeds: states (B, L, D); tokens beyond `max_text_len` are left out.
            text_mask: (B, L) bool, True = real token; None = all are.
            keep: (B,) bool; False = the null caption.
        """
        length = self.settings.max_text_len
        tokens = self.text_to_cond(text_embeds)[:, :length]
        pad = length - tokens.shape[1]
        tokens = nn.functional.pad(tokens, (0, 0, 0, pad))
        real = keep[:, None, None]
        if text_mask is not None:
            mask = nn.functional.pad(text_mask[:, :length].bool(), (0, pad))
            real = real & mask[..., None]
        tokens = torch.where(real, tokens, self.null_text_embed.to(tokens))
        if self.attn_pool is not None:
            tokens = self.attn_pool(tokens)
        hidden = self.to_text_non_attn_cond(tokens.mean(1))
        hidden = torch.where(keep[:, None], hidden, self.null_text_hidden.to(hidden))
        return TextState(tokens, hidden)

    def predict(
        self, x: Tensor, time: Tensor, inputs: UnetInputs, *, self_cond: Tensor | None = None
    ) -> Tensor:
        """The network with its captions encoded: (B, C, H, W), (B,) -> (B, C, H, W)."""
        self._check(x, inputs)
        t, c = self._condition(time, inputs)
        x = self.init_conv(self._joined(x, inputs, self_cond))
        stem = x
        if self.init_resnet_block is not None:
            x = self.init_resnet_block(x, t)
        skips: list[Tensor] = []
        maps: list[Tensor] = []
        for layer in self.down:
            x = layer(x, t, c, skips)
        x = self.mid_block1(x, t, c)
        if self.mid_attn is not None:
            x = self.mid_attn(x)
        x = self.mid_block2(x, t, c)
        for layer in self.up:
            x = layer(x, t, c, skips, maps)
        if self.upsample_combiner is not None:
            x = self.upsample_combiner(x, maps)
        if self.settings.init_conv_to_final_conv_residual:
            x = torch.cat((x, stem), dim=1)
        if self.final_res_block is not None:
            x = self.final_res_block(x, t)
        if inputs.lowres is not None:
            x = torch.cat((x, inputs.lowres), dim=1)
        output: Tensor = self.final_conv(x)
        return output

    def _condition(self, time: Tensor, inputs: UnetInputs) -> tuple[Tensor, Tensor]:
        """Time embedding (B, E) and tokens (B, L, D)."""
        dtype = self.null_text_hidden.dtype
        hiddens = self.to_time_hiddens(time.to(dtype))
        t = self.to_time_cond(hiddens)
        tokens = [self.to_time_tokens(hiddens)]
        if inputs.lowres_logsnr is not None and self.settings.lowres_cond:
            hiddens = self.to_lowres_time_hiddens(inputs.lowres_logsnr.to(dtype))
            t = t + self.to_lowres_time_cond(hiddens)
            tokens.append(self.to_lowres_time_tokens(hiddens))
        if inputs.text is not None:
            t = t + inputs.text.hidden
            tokens.append(inputs.text.tokens)
        return t, self.norm_cond(torch.cat(tokens, dim=1))

    def _joined(self, x: Tensor, inputs: UnetInputs, self_cond: Tensor | None) -> Tensor:
        """All images that enter, side by side in channels."""
        parts = [x]
        if self.settings.self_cond:
            parts.append(torch.zeros_like(x) if self_cond is None else self_cond)
        if inputs.lowres is not None:
            parts.append(inputs.lowres)
        if inputs.cond_images is not None:
            mode = self.settings.resize_mode
            parts.insert(0, resized(inputs.cond_images.to(x), x.shape[-1], mode))
        return torch.cat(parts, dim=1)

    def _check(self, x: Tensor, inputs: UnetInputs) -> None:
        s = self.settings
        if any(side % s.divisor for side in x.shape[2:]):
            raise UsageError(
                f"got images of {x.shape[3]}x{x.shape[2]}; expected sides that are multiples of "
                f"{s.divisor} with dim_mults={s.dim_mults}"
            )
        has_lowres = inputs.lowres is not None and inputs.lowres_logsnr is not None
        if has_lowres != s.lowres_cond:
            raise UsageError(
                f"got lowres_cond={s.lowres_cond} and "
                f"{'a' if has_lowres else 'no'} low-resolution image with its noise times; give "
                "lowres_cond_img and lowres_noise_times to networks with lowres_cond, and no others"
            )
        given = 0 if inputs.cond_images is None else inputs.cond_images.shape[1]
        if given != s.cond_images_channels:
            raise UsageError(
                f"got cond_images of {given} channels; expected cond_images_channels="
                f"{s.cond_images_channels}"
            )


def _level_hiddens(s: UnetSettings) -> nn.Sequential:
    features = s.learned_sinu_pos_emb_dim
    return nn.Sequential(
        FourierFeatures(features), nn.Linear(features + 1, s.time_width), nn.SiLU()
    )


def _level_tokens(s: UnetSettings) -> nn.Sequential:
    count = s.num_time_tokens
    return nn.Sequential(
        nn.Linear(s.time_width, s.cond_width * count), nn.Unflatten(1, (count, s.cond_width))
    )
