"""CLIP of noisy images: two transformers that embed captions and noisy images in one space.

The image tower is conditioned on the noise level, so that its gradient can guide a sampler at every
step. Reference: Nichol et al. 2021, section 2.3, arXiv:2112.10741; CLIP: Radford et al. 2021,
arXiv:2103.00020.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import torch
from torch import Tensor, nn

from calotype.conditioning import TokenIds
from calotype.config.ranges import Range, Settings, Width, require
from calotype.networks.transformer import Transformer

# Mean and spread of red, green and blue in CLIP's training images, of values 0 to 255.
_COLOUR_MEAN = (122.77, 116.75, 104.09)
_COLOUR_STD = (68.50, 66.63, 70.32)
Count = Annotated[int, Range(1, 10_000_000)]


@dataclass(frozen=True, kw_only=True)
class TowerConfig(Settings):
    """One transformer: its width, layers and heads (whose width may differ from width / heads)."""

    width: Width
    layers: Width
    heads: Width
    head_dim: Width


@dataclass(frozen=True, kw_only=True)
class NoisedCLIPConfig(Settings):
    """Settings of `NoisedCLIP`.

    Args:
        text: the captions' transformer.
        image: the images' transformer.
        vocabulary: number of token ids.
        context: tokens of a caption, marks and padding included.
        resolution: side of the images.
        patch: side of the squares that become tokens.
        timesteps: noise levels it was trained with.
        embed_dim: width of the common space.
        logit_scale: what similarities are multiplied by.
    """

    text: TowerConfig
    image: TowerConfig
    vocabulary: Count
    context: Count
    resolution: Count
    patch: Count
    timesteps: Count
    embed_dim: Count
    logit_scale: Annotated[float, Range(0.0, 1e6)] = 100.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.resolution % self.patch == 0,
            f"got resolution {self.resolution} with patches of {self.patch}; expected a multiple",
        )


class NoisedCLIP(nn.Module):
    """Both transformers; embeddings are unit vectors."""

    def __init__(self, config: NoisedCLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.text = _TextTower(config)
        self.image = _ImageTower(config)

    def embed_text(self, text: TokenIds) -> Tensor:
        """Ids between marks -> (B, E)."""
        return _unit(self.text(text))

    def embed_image(self, z: Tensor, timestep: Tensor) -> Tensor:
        """Noisy images (B, 3, R, R) and their steps, (B,) integers -> (B, E)."""
        return _unit(self.image(z, timestep))


class _TextTower(nn.Module):
    def __init__(self, config: NoisedCLIPConfig) -> None:
        super().__init__()
        width = config.text.width
        self.tokens = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Parameter(torch.zeros(config.context, width))
        self.blocks = _transformer(config.text, causal=True)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.embed_dim, bias=False)

    def forward(self, text: TokenIds) -> Tensor:
        # Attention is causal and padding comes last: it cannot be seen.
        x = self.blocks(self.tokens(text.ids) + self.positions[: text.ids.shape[1]])
        last = x[torch.arange(len(x), device=x.device), text.mask.sum(1) - 1]
        return cast(Tensor, self.out(self.norm(last)))


class _ImageTower(nn.Module):
    def __init__(self, config: NoisedCLIPConfig) -> None:
        super().__init__()
        width, patch = config.image.width, config.patch
        count = (config.resolution // patch) ** 2
        self.timesteps = nn.Embedding(config.timesteps, width)
        self.patches = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.positions = nn.Parameter(torch.zeros(1 + count, width))
        self.norm_in = nn.LayerNorm(width)
        self.blocks = _transformer(config.image, causal=False)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.embed_dim, bias=False)

    def forward(self, z: Tensor, timestep: Tensor) -> Tensor:
        # The token that is read at the end begins as the noise level.
        first = self.timesteps(timestep)[:, None]
        mean, std = (z.new_tensor(c)[:, None, None] for c in (_COLOUR_MEAN, _COLOUR_STD))
        patches = self.patches(((z + 1) * 127.5 - mean) / std).flatten(2).transpose(1, 2)
        x = self.blocks(self.norm_in(torch.cat((first, patches), dim=1) + self.positions))
        return cast(Tensor, self.out(self.norm(x[:, 0])))


def _transformer(config: TowerConfig, *, causal: bool) -> Transformer:
    width, heads = config.width, config.heads
    return Transformer(width, heads, config.layers, head_dim=config.head_dim, causal=causal)


def _unit(x: Tensor) -> Tensor:
    return cast(Tensor, x / (torch.linalg.vector_norm(x, dim=-1, keepdim=True) + 1e-12))
