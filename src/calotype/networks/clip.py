"""CLIP: two networks that bring images and captions into one space.

Reference: Radford et al. 2021, section 2.4, arXiv:2103.00020; of noisy images: Nichol et al. 2021,
section 2.3, arXiv:2112.10741; the sigmoid loss's bias: Zhai et al. 2023, arXiv:2303.15343.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Text, TokenIds
from calotype.config.clip import (
    ClipConfig,
    ConvTowerConfig,
    ImageTowerConfig,
    NoiseConfig,
    TextTowerConfig,
)
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.networks.blocks import ResidualBlock, ScalarEmbedding, embedding, group_norm, normal
from calotype.networks.text import masked_mean
from calotype.networks.transformer import Activation, Transformer

# Mean and standard deviation of red, green and blue in CLIP's training images, of [0, 1].
COLOUR_MEAN = (0.48145466, 0.4578275, 0.40821073)
COLOUR_STD = (0.26862954, 0.26130258, 0.27577711)
LARGEST_SCALE = 100.0
"""Of similarities, of the softmax (Radford et al. 2021, section 2.5)."""


class Clip(nn.Module):
    """Both towers and the loss's own parameters; embeddings are unit vectors."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        embed_dim, noise, tower = config.embed_dim, config.noise, config.image
        self.image: ImageTower | ConvTower
        if isinstance(tower, ConvTowerConfig):
            self.image = ConvTower(tower, embed_dim, noise)
        else:
            self.image = ImageTower(tower, embed_dim, noise, activation=config.activation)
        self.text = TextTower(config.text, embed_dim, config.activation)
        siglip = config.loss == "siglip"
        self.log_scale = nn.Parameter(torch.full((1,), math.log(10 if siglip else 1 / 0.07)))
        self.bias = nn.Parameter(torch.full((1,), -10.0)) if siglip else None

    @property
    def loss_parameters(self) -> Tensor:
        """What the loss itself learns: log of the scale, and SigLIP's bias, (1,) or (2,)."""
        return torch.cat([self.log_scale, *([] if self.bias is None else [self.bias])])

    @property
    def scale(self) -> float:
        """What the loss multiplies similarities by."""
        scale = float(self.log_scale.detach().exp())
        return scale if self.bias is not None else min(scale, LARGEST_SCALE)

    def embed_image(
        self, z: Tensor, level: Tensor | None = None, patches: Tensor | None = None
    ) -> Tensor:
        """Images (B, 3, R, R) in [-1, 1], noisy or not -> (B, E).

        Args:
            z: images.
            level: of noise as the network is told it, (B,): log-SNR, or int64 timesteps; None for
                one that is told nothing.
            patches: numbers of the patches that are looked at, (B, K) int64; None = all.
        """
        return _unit(self.image(z, level, patches))

    def embed_text(self, text: Text) -> Tensor:
        """Captions, as ids or states -> (B, E)."""
        tokens, mask = text.ids if isinstance(text, TokenIds) else text.tokens, text.mask
        return _unit(self.text(tokens, mask))


class ImageTower(nn.Module):
    """Squares of an image and a class token, whose last state is the image's.

    The class token begins with the noise level, where the network is told of it.
    """

    def __init__(
        self,
        config: ImageTowerConfig,
        embed_dim: int,
        noise: NoiseConfig | None,
        *,
        activation: Activation,
    ) -> None:
        super().__init__()
        width = config.width
        self.level = _level_embedding(noise, width)
        self.patches = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=False)
        self.class_token = nn.Parameter(normal(width, std=width**-0.5))
        self.positions = nn.Parameter(normal(1 + config.patches, width, std=width**-0.5))
        self.norm_in = nn.LayerNorm(width)
        self.layers = Transformer(
            width, config.heads, config.layers, head_dim=config.head_dim, activation=activation
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, embed_dim, bias=False)

    def forward(self, z: Tensor, level: Tensor | None, patches: Tensor | None) -> Tensor:
        """(B, 3, R, R) in [-1, 1] -> (B, E); see `Clip.embed_image`."""
        # As a product: the convolution's gradient by the image takes four times as long on a CPU.
        squares = F.pixel_unshuffle(_normalised(z), self.patches.stride[0])
        tokens = F.linear(squares.flatten(2).transpose(1, 2), self.patches.weight.flatten(1))
        tokens = tokens + self.positions[1:]  # (B, P, W)
        if patches is not None:
            tokens = tokens.gather(1, patches[..., None].expand(-1, -1, tokens.shape[2]))
        first = _with_level(self.class_token + self.positions[0], self.level, level, len(z))
        first = first[:, None].to(tokens.dtype)
        tokens = self.layers(self.norm_in(torch.cat((first, tokens), dim=1)), first=1)
        return cast(Tensor, self.out(self.norm(tokens[:, 0])))


class ConvTower(nn.Module):
    """Residual blocks of ADM, each level at half the resolution, and the mean over pixels.

    What the blocks' norms are scaled and shifted by begins with the noise level, where the network
    is told of it; else it is learned, and the same for all images.
    """

    def __init__(self, config: ConvTowerConfig, embed_dim: int, noise: NoiseConfig | None) -> None:
        super().__init__()
        before, width = config.channels[0], config.channels[-1]
        self.level = _level_embedding(noise, width)
        self.embedding = nn.Parameter(torch.randn(width))
        self.stem = nn.Conv2d(3, before, config.patch, stride=config.patch)
        self.blocks = nn.ModuleList()
        for number, channels in enumerate(config.channels):
            for place in range(config.blocks):
                halved = number > 0 and place == 0
                resample: Literal["none", "down"] = "down" if halved else "none"
                self.blocks.append(ResidualBlock(before, channels, width, resample=resample))
                before = channels
        self.norm = group_norm(width)
        self.out = nn.Linear(width, embed_dim, bias=False)

    def forward(self, z: Tensor, level: Tensor | None, patches: Tensor | None) -> Tensor:
        """(B, 3, R, R) in [-1, 1] -> (B, E); it looks at all of an image."""
        assert patches is None
        embedding = _with_level(self.embedding, self.level, level, len(z))
        x = self.stem(_normalised(z).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            x = block(x, embedding)
        return cast(Tensor, self.out(F.silu(self.norm(x)).mean((2, 3))))


class TextTower(nn.Module):
    """A transformer over an encoder's token states, or over token ids; see `TextTowerConfig`."""

    def __init__(self, config: TextTowerConfig, embed_dim: int, activation: Activation) -> None:
        super().__init__()
        self.context = config.context
        width = config.width
        self.tokens: nn.Module
        if config.vocabulary is not None:
            self.tokens = embedding(config.vocabulary, width, std=0.02)
        else:
            states = config.states
            assert states is not None
            self.tokens = nn.Sequential(nn.LayerNorm(states), nn.Linear(states, width))
        self.positions = nn.Parameter(normal(config.context, width, std=0.01))
        causal = config.vocabulary is not None
        self.layers = Transformer(
            width,
            config.heads,
            config.layers,
            head_dim=config.head_dim,
            activation=activation,
            causal=causal,
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, embed_dim, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, E).

        Args:
            tokens: ids (B, L) int64, the last real one of which ends the text, or states (B, L, D).
            mask: True = real token, (B, L) bool; a caption may have none.
        """
        tokens, mask = tokens[:, : self.context], mask[:, : self.context].clone()
        mask[:, 0] |= ~mask.any(1)  # attention needs something to look at
        x = self.tokens(tokens) + self.positions[: tokens.shape[1]]
        if self.layers.causal:
            # Padding comes last, and nothing before it sees it.
            x = self.norm(self.layers(x))
            ends = mask.long().cumsum(1).argmax(1)
            x = x[torch.arange(len(x), device=x.device), ends]
        else:
            x = self.norm(self.layers(x, mask))
            x = masked_mean(x, mask)
        return cast(Tensor, self.out(x))


def _level_embedding(noise: NoiseConfig | None, width: int) -> nn.Module | None:
    """Of what the network is told of the level, (B,) -> (B, W); None = it is told nothing."""
    if noise is None or noise.told == "untold":
        return None
    if noise.told == "logsnr":
        return ScalarEmbedding(-25.0, 25.0, width)
    assert isinstance(noise.schedule, DiscreteScheduleConfig)
    return embedding(noise.schedule.steps, width, std=width**-0.5)


def _with_level(
    start: Tensor, embedding: nn.Module | None, level: Tensor | None, count: int
) -> Tensor:
    """`start`, (W,), and the embedded level of each image, (count, W)."""
    if (embedding is None) != (level is None):
        got, wanted = ("no", "one") if level is None else ("a", "none")
        raise ValueError(f"got {got} noise level; expected {wanted} for this CLIP")
    return start.expand(count, -1) if embedding is None else start + embedding(level)


def _normalised(x: Tensor) -> Tensor:
    """Images in [-1, 1] as CLIP's networks see them."""
    mean, std = (x.new_tensor(c)[:, None, None] for c in (COLOUR_MEAN, COLOUR_STD))
    return ((x + 1) / 2 - mean) / std


def _unit(x: Tensor) -> Tensor:
    """Unit vectors, in float32 at least."""
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1)
