"""imagen-pytorch's own U-Net.

One class for programs written for that package and for its converted checkpoints; it loads state
dicts under both names of the weights. In: noisy images, the log-SNR, text states, an image of
low resolution. Out: what the network predicts, like the images.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.attention import PerceiverResampler, PixelTransformer
from calotype.interop.imagen_pytorch.blocks import (
    CrossEmbedding,
    FourierFeatures,
    UpsampleCombiner,
)
from calotype.interop.imagen_pytorch.device import CudaOptional
from calotype.interop.imagen_pytorch.guidance import Guidance
from calotype.interop.imagen_pytorch.inputs import TextState, UnetInputs
from calotype.interop.imagen_pytorch.keys import rename_in_place
from calotype.interop.imagen_pytorch.layers import (
    DownLayer,
    UpLayer,
    middle_block,
    plain_block,
    resized,
)
from calotype.interop.imagen_pytorch.options import read_options, to_json
from calotype.interop.imagen_pytorch.settings import PERCEIVER_POSITIONS, UnetSettings
from calotype.networks.blocks import zero_init


class Unet(CudaOptional):
    """The U-Net of imagen-pytorch 2.1.0; its arguments are the fields of `UnetSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range, or one that package ignores.
    """

    defaults: ClassVar[Mapping[str, Any]] = {}
    """What a preset sets; arguments override it."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__()
        settings = read_options(
            UnetSettings, {**self.defaults, **arguments}, owner=type(self).__name__
        )
        self.settings = settings
        width = settings.time_width
        if settings.init_cross_embed:
            kernels = settings.init_cross_embed_kernel_sizes
            self.init_conv: nn.Module = CrossEmbedding(
                settings.in_channels, settings.stem_width, kernels=kernels, stride=1
            )
        else:
            kernel = settings.init_conv_kernel_size
            self.init_conv = nn.Conv2d(
                settings.in_channels, settings.stem_width, kernel, padding=kernel // 2
            )
        self.to_time_hiddens = _level_hiddens(settings)
        self.to_time_cond = nn.Sequential(nn.Linear(width, width))
        self.to_time_tokens = _level_tokens(settings)
        if settings.lowres_cond:
            self.to_lowres_time_hiddens = _level_hiddens(settings)
            self.to_lowres_time_cond = nn.Sequential(nn.Linear(width, width))
            self.to_lowres_time_tokens = _level_tokens(settings)
        self.norm_cond = nn.LayerNorm(settings.cond_width)
        self._build_text()
        self._build_layers()
        self._build_end()
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
        gated = s.use_global_context_attn
        self.init_resnet_block = (
            plain_block(s, s.stem_width, s.stem_width, gated=gated) if s.memory_efficient else None
        )
        down = [DownLayer(s, layer, last=i == last) for i, layer in enumerate(layers)]
        up = [UpLayer(s, layers[i], skip=down[i].width, last=i == 0) for i in range(last, -1, -1)]
        self.down = nn.ModuleList(down)
        middle = layers[last].outer
        self.mid_block1 = middle_block(s, middle)
        self.mid_attn = (
            PixelTransformer(
                middle,
                depth=s.layer_mid_attns_depth,
                heads=s.attn_heads,
                head_dim=s.attn_dim_head,
            )
            if s.attend_at_middle
            else None
        )
        self.mid_block2 = middle_block(s, middle)
        self.up = nn.ModuleList(up)
        self._widths_up = [layer.outer for layer in reversed(layers)]
        self._width_end = up[-1].out_width

    def _build_end(self) -> None:
        s = self.settings
        width = self._width_end
        self.upsample_combiner: UpsampleCombiner | None = None
        if s.combine_upsample_fmaps:
            self.upsample_combiner = UpsampleCombiner(self._widths_up, s.dim)
            width += s.dim * len(self._widths_up)
        if s.init_conv_to_final_conv_residual:
            width += s.stem_width
        self.final_res_block = None
        if s.final_resnet_block:
            self.final_res_block = plain_block(s, width, s.dim, gated=True)
            width = s.dim
        kernel = s.final_conv_kernel_size
        width += s.channels if s.lowres_cond else 0
        self.final_conv = zero_init(nn.Conv2d(width, s.out_channels, kernel, padding=kernel // 2))

    @property
    def lowres_cond(self) -> bool:
        """Whether it is told a low-resolution image."""
        return self.settings.lowres_cond

    @property
    def self_cond(self) -> bool:
        """Whether it is told its own last estimate."""
        return self.settings.self_cond

    def cast_model_parameters(self, **changes: Any) -> Self:
        """This network, or a new one where the settings differ (its weights start anew)."""
        own = {**dataclasses.asdict(self.settings), "channels_out": self.settings.out_channels}
        if all(own[name] == value for name, value in changes.items()):
            return self
        return type(self)(**{**own, **changes})

    def to_config_and_state_dict(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Its arguments as plain data, and its weights."""
        return to_json(self.settings), self.state_dict()

    @classmethod
    def from_config_and_state_dict(
        cls, config: Mapping[str, Any], state_dict: Mapping[str, Tensor]
    ) -> Self:
        """The network of `to_config_and_state_dict`; names of imagen-pytorch's weights fit, too."""
        unet = cls(**config)
        unet.load_state_dict(dict(state_dict))
        return unet

    def persist_to_file(self, path: str | Path) -> None:
        """Write it into one safetensors file; the suffix does not matter."""
        from calotype.interop.imagen_pytorch.files import save_unet

        save_unet(self, Path(path))

    @classmethod
    def hydrate_from_file(cls, path: str | Path) -> Self:
        """Read a file of `persist_to_file`; imagen-pytorch's own: `calotype convert`.

        Raises:
            CalotypeError: no such file, a pickle, or one that does not fit.
        """
        from calotype.interop.imagen_pytorch.files import read_unet

        config, weights = read_unet(Path(path))
        return cls.from_config_and_state_dict(config, weights)

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
        return TextState(
            tokens, torch.where(keep[:, None], hidden, self.null_text_hidden.to(hidden))
        )

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        *,
        lowres_cond_img: Tensor | None = None,
        lowres_noise_times: Tensor | None = None,
        text_embeds: Tensor | None = None,
        text_mask: Tensor | None = None,
        cond_images: Tensor | None = None,
        self_cond: Tensor | None = None,
        cond_drop_prob: float = 0.0,
    ) -> Tensor:
        """Predict for noisy images (B, C, H, W) at log-SNR `time` (B,).

        Args:
            x: noisy images.
            time: their level, as the network was trained: log-SNR, or ln(sigma) / 4.
            lowres_cond_img: (B, C, H, W), enlarged and noised.
            lowres_noise_times: the log-SNR of that noise, (B,).
            text_embeds: (B, L, D).
            text_mask: (B, L) bool.
            cond_images: (B, C', h, w).
            self_cond: the last estimate of the clean images; None = zeros.
            cond_drop_prob: chance of the null caption, for each image, from torch's global
                generator.
        """
        text = None
        if text_embeds is not None and self.settings.cond_on_text:
            keep = torch.rand(len(x)) >= cond_drop_prob
            text = self.encode_text(text_embeds, text_mask, keep.to(x.device))
        inputs = UnetInputs(text, lowres_cond_img, lowres_noise_times, cond_images)
        return self.predict(x, time, inputs, self_cond=self_cond)

    def forward_with_cond_scale(
        self,
        x: Tensor,
        time: Tensor,
        *,
        cond_scale: float = 1.0,
        remove_parallel_component: bool = True,
        keep_parallel_frac: float = 0.0,
        **kwargs: Any,
    ) -> Tensor:
        """`forward`, guided away from the null caption; see `Guidance`."""
        output: Tensor = self.forward(x, time, **kwargs)
        guidance = Guidance(cond_scale, remove_parallel_component, keep_parallel_frac)
        if guidance.off:
            return output
        return guidance(output, self.forward(x, time, **{**kwargs, "cond_drop_prob": 1.0}))

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
        for layer in self.down:
            x = layer(x, t, c, skips)
        x = self.mid_block1(x, t, c)
        if self.mid_attn is not None:
            x = self.mid_attn(x)
        x = self.mid_block2(x, t, c)
        x, maps = self._way_up(x, t, c, skips)
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

    def _way_up(
        self, x: Tensor, t: Tensor, c: Tensor, skips: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        scale = 2**-0.5 if self.settings.scale_skip_connection else 1.0
        maps = []
        for layer in self.up:
            assert isinstance(layer, UpLayer)
            x = layer.entry(torch.cat((x, skips.pop() * scale), dim=1), t, c)
            for block in layer.blocks:
                x = block(torch.cat((x, skips.pop() * scale), dim=1), t)
            if layer.attention is not None:
                x = layer.attention(x, c)
            maps.append(x)
            if layer.after is not None:
                x = layer.after(x)
        return x, maps

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
        told = inputs.lowres is not None and inputs.lowres_logsnr is not None
        if told != s.lowres_cond:
            raise UsageError(
                f"got lowres_cond={s.lowres_cond} and "
                f"{'a' if told else 'no'} low-resolution image with its noise times; give "
                "lowres_cond_img and lowres_noise_times to networks with lowres_cond, and no others"
            )
        given = 0 if inputs.cond_images is None else inputs.cond_images.shape[1]
        if given != s.cond_images_channels:
            raise UsageError(
                f"got cond_images of {given} channels; expected cond_images_channels="
                f"{s.cond_images_channels}"
            )


Unet.__signature__ = inspect.signature(UnetSettings)  # type: ignore[attr-defined]


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
