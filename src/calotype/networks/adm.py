"""The ADM network: guided diffusion's, GLIDE's, DeepFloyd IF's, Karlo's; it takes timesteps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import (
    NULL_CLASS,
    Conditioning,
    Text,
    TextEmbedding,
    token_ids,
    token_states,
)
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.networks.adm_blocks import AdmAttentionLayer, AdmResidual, TimestepMLP, activation
from calotype.networks.adm_text import AdmText, TokensEncoder, build_text
from calotype.networks.blocks import Block, GroupNorm, embedding, number_text_layers, zero_init
from calotype.networks.embedding import check_extra
from calotype.networks.text import TextKeysValues
from calotype.networks.u_shape import UShape

# Timesteps of the low-resolution image's noise: aug_level 1 is this one.
AUG_TIMESTEPS = 1000


class AdmUNet(UShape):
    """Predicts from noisy images at timesteps of the schedule they were trained with.

    Down: blocks of a level, then a block that halves; a middle of block, attention, block; up: one
    block more a level, each with the skip of its mirror image, then a block that doubles.

    Reference: Dhariwal & Nichol 2021, section 3, arXiv:2105.05233.
    """

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.config = config
        levels = config.levels
        first = levels[0].channels
        self._embed_dim = config.embed_dim if config.embed_dim > 0 else 4 * first
        inputs = 3 + config.extra_channels + (3 if config.lowres else 0)
        square = config.fold**2
        timestep = partial(TimestepMLP, first, self._embed_dim, config.activation)
        self.time = timestep()
        self.aug_level = timestep() if config.aug_level else None
        self.text = build_text(config, self._embed_dim)
        self.classes: nn.Embedding | None = None
        if config.classes > 0:
            self.classes = embedding(config.classes + 1, self._embed_dim)
        self.embed_act = activation(config.embed_activation)
        self.stem = nn.Conv2d(square * inputs, first, 3, padding=1)
        deepest = [replace(levels[-1], attention=kind) for kind in (config.middle, "none")]
        middle = (self._block(it.channels, it, divisor=config.middle_divisor) for it in deepest)
        self.build(levels, block=self._block, resampler=self._resampler, middle=middle)
        outputs = 6 if config.learned_variance else 3
        self.head = nn.Sequential(
            GroupNorm(config.norm_groups, first, eps=config.norm_eps),
            activation(config.activation),
            zero_init(nn.Conv2d(first, square * outputs, 3, padding=1)),
        )
        attending = [] if config.text is None else self.modules()
        self._attending = tuple(number_text_layers(attending, AdmAttentionLayer))

    def _block(self, in_channels: int, level: AdmLevel, *, divisor: float | None = None) -> Block:
        config, channels, kind = self.config, level.channels, level.attention
        residual = AdmResidual(config, in_channels, channels, self._embed_dim, divisor=divisor)
        attention = None if kind == "none" else AdmAttentionLayer(config, channels, kind)
        return Block(residual, attention)

    def _resampler(self, channels: int, *, kind: Literal["down", "up"]) -> Block:
        residual = AdmResidual(self.config, channels, channels, self._embed_dim, resample=kind)
        return Block(residual, None)

    def forward(self, z: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """(B, 3, H, W), (B,) -> (B, 3 or, with a learned variance, 6, H, W)."""
        return self.bind(cond)(z, timesteps)

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """Compute what captions and classes decide; returns `(z, timesteps) -> prediction`."""
        text, classes = self._encode(cond.text), self._embed_classes(cond.classes)
        pooled, keys_values = None, tuple[TextKeysValues, ...]()
        if text is not None:
            keys_values = tuple(layer.project(text.states, text.mask) for layer in self._attending)
            pooled = text.pooled

        def predict(z: Tensor, timesteps: Tensor) -> Tensor:
            embedding = self._embedding(timesteps, cond.aug_level, (pooled, classes))
            inputs = F.pixel_unshuffle(self._inputs(z, cond), self.config.fold)
            x = self.through(self.stem(inputs), lambda block, x: block(x, embedding, keys_values))
            output = F.pixel_shuffle(self.head(x), self.config.fold)
            if self.config.output_scale == 1:
                return output
            return torch.cat((output[:, :3] * self.config.output_scale, output[:, 3:]), dim=1)

        return predict

    def _encode(self, text: Text | None) -> AdmText | None:
        if self.text is None:
            return None
        if isinstance(self.text, TokensEncoder):
            return cast(AdmText, self.text(token_ids(text)))
        text = token_states(text)
        text = TextEmbedding(text.tokens.to(self.stem.weight.dtype), text.mask)
        return cast(AdmText, self.text(text))

    def _embed_classes(self, classes: Tensor | None) -> Tensor | None:
        """(B,) -> (B, E), or (1, E), the null class, where nobody says; None without classes."""
        if self.classes is None:
            return None
        last = self.classes.num_embeddings - 1  # the null class
        if classes is None:
            return self.classes.weight[last:]
        return cast(Tensor, self.classes(torch.where(classes == NULL_CLASS, last, classes)))

    def _embedding(
        self, timesteps: Tensor, aug_level: Tensor | None, added: Sequence[Tensor | None]
    ) -> Tensor:
        embedding: Tensor = self.time(timesteps)
        if self.aug_level is not None:
            if aug_level is None:
                raise ValueError("got no aug_level; expected one number in [0, 1] an image")
            embedding = embedding + self.aug_level((aug_level * AUG_TIMESTEPS).round())
        for one in added:
            if one is not None:
                embedding = embedding + one
        return cast(Tensor, self.embed_act(embedding))

    def _inputs(self, z: Tensor, cond: Conditioning) -> Tensor:
        """Noisy images, what is known of them, the low-resolution images: in this order."""
        parts = [z]
        if self.config.extra_channels > 0:
            count = self.config.extra_channels
            extra = z.new_zeros(len(z), count, *z.shape[2:]) if cond.extra is None else cond.extra
            check_extra(extra, count)
            parts.append(extra.to(z))
        if self.config.lowres:
            if cond.lowres is None:
                raise ValueError("got no low-resolution image; expected one for this network")
            parts.append(cond.lowres.to(z))
        return torch.cat(parts, dim=1)


class AdmPair(nn.Module):
    """Two networks of one kind: the second answers at timestep 0, where images are finished."""

    def __init__(self, config: AdmConfig) -> None:
        super().__init__()
        self.first = AdmUNet(config)
        self.last = AdmUNet(config)

    def forward(self, z: Tensor, timesteps: Tensor, cond: Conditioning) -> Tensor:
        """As `AdmUNet`."""
        return self.bind(cond)(z, timesteps)

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """As `AdmUNet`; all timesteps of a call should be 0, or none."""
        first, last = self.first.bind(cond), self.last.bind(cond)

        def predict(z: Tensor, timesteps: Tensor) -> Tensor:
            return last(z, timesteps) if bool((timesteps == 0).all()) else first(z, timesteps)

        return predict
