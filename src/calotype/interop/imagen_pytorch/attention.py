"""Attention as imagen-pytorch has it: cosine similarities times 8, a null key and value.

Self-attention has many query heads and one key-value head; tokens of time and text are joined to
its keys. The linear variants attend to channels (Shen et al. 2018, arXiv:1812.01243).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.networks.text import split_heads

SIMILARITY_SCALE = 8.0
LINEAR_DROPOUT = 0.05


class GainNorm(nn.Module):
    """LayerNorm without a bias: over the last axis, or over the channels of every pixel."""

    def __init__(self, width: int, *, pixels: bool = False) -> None:
        super().__init__()
        self.g = nn.Parameter(torch.ones(width, 1, 1) if pixels else torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C), or (B, C, h, w); same."""
        if self.g.ndim == 1:
            return F.layer_norm(x, (x.shape[-1],), weight=self.g, eps=1e-5)
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return (x - mean) * (variance + 1e-5).rsqrt() * self.g


def _cosine_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, N, d) and keys and values of H heads or one -> (B, N, H d)."""
    k, v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
    attended = F.scaled_dot_product_attention(q, k, v, scale=SIMILARITY_SCALE)
    return attended.transpose(1, 2).flatten(2)


class PerceiverAttention(nn.Module):
    """Attention of latents to tokens and to each other."""

    def __init__(self, width: int, *, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(width, heads * head_dim * 2, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_out = nn.Sequential(
            nn.Linear(heads * head_dim, width, bias=False), nn.LayerNorm(width)
        )

    def forward(self, latents: Tensor, x: Tensor) -> Tensor:
        """(B, M, D), tokens (B, L, D) -> (B, M, D)."""
        latents = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat((self.norm(x), latents), dim=1)).chunk(2, dim=-1)
        q = F.normalize(split_heads(self.to_q(latents), self.heads), dim=-1) * self.q_scale
        k = F.normalize(split_heads(keys, self.heads), dim=-1) * self.k_scale
        output: Tensor = self.to_out(_cosine_attention(q, k, split_heads(values, self.heads)))
        return output


def _feed_forward(width: int, mult: float, *, pixels: bool = False) -> nn.Sequential:
    """Two layers with norms, on tokens or on pixels."""
    hidden = int(width * mult)

    def linear(inputs: int, outputs: int) -> nn.Module:
        if pixels:
            return nn.Conv2d(inputs, outputs, 1, bias=False)
        return nn.Linear(inputs, outputs, bias=False)

    return nn.Sequential(
        GainNorm(width, pixels=pixels),
        linear(width, hidden),
        nn.GELU(),
        GainNorm(hidden, pixels=pixels),
        linear(hidden, width),
    )


class TransformerLayer(nn.Module):
    """Attention and a feed-forward network, each with a residual connection."""

    def __init__(self, attend: nn.Module, feed: nn.Module) -> None:
        super().__init__()
        self.attend = attend
        self.feed = feed

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """(B, ...) -> same."""
        x = x + self.attend(x, c)
        output: Tensor = x + self.feed(x)
        return output


class PerceiverResampler(nn.Module):
    """Tokens of any number -> a fixed number of latents; four of them come from the mean token.

    Reference: Alayrac et al. 2022 (Flamingo), arXiv:2204.14198.
    """

    def __init__(
        self, width: int, *, positions: int, latents: int, heads: int, head_dim: int
    ) -> None:
        super().__init__()
        self.mean_latents = 4
        self.pos_emb = nn.Embedding(positions, width)
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.to_latents_from_mean_pooled_seq = nn.Sequential(
            GainNorm(width), nn.Linear(width, width * self.mean_latents)
        )
        self.layers = nn.ModuleList(
            TransformerLayer(
                PerceiverAttention(width, heads=heads, head_dim=head_dim), _feed_forward(width, 4)
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, latents + 4, D)."""
        placed = x + self.pos_emb.weight[: x.shape[1]]
        mean = self.to_latents_from_mean_pooled_seq(x.mean(1))
        mean = mean.unflatten(1, (self.mean_latents, -1))
        latents = torch.cat((mean, self.latents.expand(x.shape[0], -1, -1)), dim=1)
        for layer in self.layers:
            latents = layer(latents, placed)
        return latents


class CrossAttention(nn.Module):
    """Attention of pixels to tokens.

    Pixels have C = `channels`, tokens D = `cond_width`. With `own_keys` keys and values are the
    pixels' own, of one head, and those of tokens are joined to them; D = 0 is without tokens.
    """

    def __init__(
        self, channels: int, cond_width: int, *, heads: int, head_dim: int, own_keys: bool = False
    ) -> None:
        super().__init__()
        inner = heads * head_dim
        self.heads, self.kv_heads = heads, 1 if own_keys else heads
        kv_width = 2 * self.kv_heads * head_dim
        self.norm = GainNorm(channels)
        self.null_kv = nn.Parameter(torch.randn(2, head_dim))
        self.to_q = nn.Linear(channels, inner, bias=False)
        self.to_kv = nn.Linear(channels if own_keys else cond_width, kv_width, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_dim))
        self.k_scale = nn.Parameter(torch.ones(head_dim))
        self.to_context: nn.Sequential | None = None
        if own_keys and cond_width > 0:
            self.to_context = nn.Sequential(
                nn.LayerNorm(cond_width), nn.Linear(cond_width, kv_width)
            )
        self.to_out = nn.Sequential(nn.Linear(inner, channels, bias=False), GainNorm(channels))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """(B, N, C), (B, L, D) -> (B, N, C)."""
        x = self.norm(x)
        k, v = self._keys_values(x, c)
        output: Tensor = self.to_out(self._attend(split_heads(self.to_q(x), self.heads), k, v))
        return output

    def _keys_values(self, x: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The learned null key and value before the others, (B, H, L, d) each."""
        k, v = self._split(self.to_kv(c))
        null = self.null_kv[:, None, None, None].expand(-1, *k.shape[:2], -1, -1)
        return torch.cat((null[0], k), dim=2), torch.cat((null[1], v), dim=2)

    def _split(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        k, v = (split_heads(part, self.kv_heads) for part in kv.chunk(2, dim=-1))
        return k, v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q = F.normalize(q, dim=-1) * self.q_scale
        return _cosine_attention(q, F.normalize(k, dim=-1) * self.k_scale, v)


class Attention(CrossAttention):
    """Attention of pixels to pixels, and to tokens where they have a width."""

    def __init__(self, channels: int, *, heads: int, head_dim: int, cond_width: int = 0) -> None:
        super().__init__(channels, cond_width, heads=heads, head_dim=head_dim, own_keys=True)

    def _keys_values(self, x: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        k, v = super()._keys_values(x, x)
        if self.to_context is None or c is None:
            return k, v
        context_k, context_v = self._split(self.to_context(c))
        return torch.cat((context_k, k), dim=2), torch.cat((context_v, v), dim=2)


class LinearCrossAttention(CrossAttention):
    """Cross-attention whose cost does not grow with pixels times tokens.

    The scales of `CrossAttention` are there but not used, as in the other package.
    """

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _linear_attention(q, k, v, SIMILARITY_SCALE).transpose(1, 2).flatten(2)


def _linear_attention(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """(B, H, N, d), (B, H, L, d) -> (B, H, N, d)."""
    context = k.softmax(dim=-2).transpose(-2, -1) @ v
    return (q.softmax(dim=-1) * scale) @ context


class LinearAttention(nn.Module):
    """Linear attention of pixels to pixels and tokens, with depth-wise convolutions."""

    def __init__(self, channels: int, *, heads: int, head_dim: int, cond_width: int = 0) -> None:
        super().__init__()
        self.heads = heads
        self.scale = head_dim**-0.5
        inner = heads * head_dim
        self.norm = GainNorm(channels, pixels=True)
        self.to_q = _separable(channels, inner)
        self.to_k = _separable(channels, inner)
        self.to_v = _separable(channels, inner)
        self.to_context: nn.Sequential | None = None
        if cond_width > 0:
            self.to_context = nn.Sequential(
                nn.LayerNorm(cond_width), nn.Linear(cond_width, inner * 2, bias=False)
            )
        self.to_out = nn.Sequential(
            nn.Conv2d(inner, channels, 1, bias=False), GainNorm(channels, pixels=True)
        )

    def forward(self, x: Tensor, c: Tensor | None) -> Tensor:
        """(B, C, h, w), (B, L, D) -> (B, C, h, w)."""
        h = self.norm(x)
        q, k, v = (
            split_heads(layer(h).flatten(2).transpose(1, 2), self.heads)
            for layer in (self.to_q, self.to_k, self.to_v)
        )
        if self.to_context is not None and c is not None:
            context_k, context_v = self.to_context(c).chunk(2, dim=-1)
            k = torch.cat((k, split_heads(context_k, self.heads)), dim=2)
            v = torch.cat((v, split_heads(context_v, self.heads)), dim=2)
        attended = _linear_attention(q, k, v, self.scale)
        maps = attended.transpose(2, 3).reshape(x.shape[0], -1, *x.shape[2:])
        output: Tensor = self.to_out(F.silu(maps))
        return output


def _separable(channels: int, inner: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(LINEAR_DROPOUT),
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False),
    )


class PixelTransformer(nn.Module):
    """Transformer layers over the pixels of a feature map."""

    def __init__(
        self,
        channels: int,
        *,
        depth: int,
        heads: int,
        head_dim: int,
        ff_mult: float = 2.0,
        cond_width: int = 0,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.linear = linear
        kind = LinearAttention if linear else Attention
        self.layers = nn.ModuleList(
            TransformerLayer(
                kind(channels, heads=heads, head_dim=head_dim, cond_width=cond_width),
                _feed_forward(channels, ff_mult, pixels=linear),
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """(B, C, h, w), (B, L, D) -> (B, C, h, w)."""
        h = x if self.linear else x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            h = layer(h, c)
        return h if self.linear else h.transpose(1, 2).reshape(x.shape)
