"""How text enters a network: pooled into the noise-level embedding, as keys and values.

None of it depends on the noise level, so `TextConditioner` computes it once per image. Padding
never changes the result; a caption without tokens (the null caption) sees a learned null token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import TextEmbedding
from calotype.networks.attention import attend


@dataclass(frozen=True)
class TextKeysValues:
    """Text keys and values of one attention layer.

    Args:
        keys: (B, heads, L, d).
        values: (B, heads, L, d).
        mask: (B, 1, 1, L), True where a token counts; None = all count.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


@dataclass(frozen=True)
class TextFeatures:
    """Everything a network wants of its captions; empty for a network without text.

    Args:
        pooled: added to the noise-level embedding, (B, E).
        keys_values: one record an attention layer that attends to text, in the network's order.
    """

    pooled: Tensor | None = None
    keys_values: tuple[TextKeysValues, ...] = ()


class AttentionPooling(nn.Module):
    """Attention-pooled text: the mean token asks all tokens (and a null token).

    Reference: Saharia et al. 2022, appendix D.1 (pooled text conditioning with attention).
    """

    def __init__(self, text_dim: int, *, head_dim: int = 64) -> None:
        super().__init__()
        self.heads = max(1, text_dim // head_dim) if text_dim % head_dim == 0 else 1
        self.norm = nn.LayerNorm(text_dim)
        self.null = nn.Parameter(torch.zeros(1, 1, text_dim))
        self.query = nn.Linear(text_dim, text_dim)
        self.key_value = nn.Linear(text_dim, 2 * text_dim)

    def forward(self, text: TextEmbedding) -> Tensor:
        """(B, L, D) -> (B, D)."""
        tokens = with_null(self.norm(text.tokens), self.null)
        mask = F.pad(text.mask, (1, 0), value=True)
        mean = masked_mean(tokens, mask)
        query = split_heads(self.query(mean)[:, None], self.heads)
        keys, values = self.key_value(tokens).chunk(2, dim=2)
        keys, values = split_heads(keys, self.heads), split_heads(values, self.heads)
        pooled = attend(query, keys, values, mask[:, None, None])
        return pooled.transpose(1, 2).flatten(1)


class WhitenedMeanPooling(nn.Module):
    """Mean of the token states, whitened with statistics of the training captions.

    Frozen encoders put most of their variance into few directions; whitening lets a small
    network see the rest. The null caption is the zero vector.
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, text_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(text_dim))
        self.register_buffer("whitening", torch.zeros(text_dim, text_dim).fill_diagonal_(1))

    @torch.no_grad()
    def set_statistics(self, mean: Tensor, covariance: Tensor, *, ridge: float = 0.02) -> None:
        """Whiten with mean (D,) and covariance (D, D).

        `ridge`, a fraction of the mean eigenvalue, is added to all: directions that captions hardly
        use are not blown up to unit variance.

        The symmetric (ZCA) root is used, so that the result does not depend on the sign of
        eigenvectors.
        """
        # On the CPU: some devices have neither float64 nor eigenvalues.
        values, vectors = torch.linalg.eigh(covariance.cpu().double())
        values = values.clamp_min(0.0)
        # The floor is for captions that are all alike: their covariance is zero.
        values = (values + ridge * values.mean()).clamp_min(1e-12)
        whitening = (vectors * values.rsqrt()) @ vectors.T
        self.mean.copy_(mean)
        self.whitening.copy_(whitening)

    def forward(self, text: TextEmbedding) -> Tensor:
        """(B, L, D) -> (B, D), of about unit variance over captions."""
        pooled = (masked_mean(text.tokens, text.mask) - self.mean) @ self.whitening
        return pooled * text.mask.any(1, keepdim=True)


class TextProjection(nn.Module):
    """Text keys and values of one attention layer."""

    def __init__(self, text_dim: int, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.key_value = nn.Linear(text_dim, 2 * channels)

    def forward(self, tokens: Tensor, mask: Tensor) -> TextKeysValues:
        """(B, L, D), (B, L) -> keys and values (B, heads, L, d)."""
        parts = self.key_value(tokens).chunk(2, dim=2)
        keys, values = (split_heads(part, self.heads) for part in parts)
        return TextKeysValues(keys, values, mask[:, None, None])


class TextLayer(Protocol):
    """An attention layer that wants text."""

    heads: int
    out: nn.Linear


class TextConditioner(nn.Module):
    """Turns captions' token states into `TextFeatures`, once per image.

    Args:
        text_dim: width D of the token states.
        embed_dim: width E of the noise-level embedding.
        pooling: how the pooled text is made.
        layers: those that attend to the tokens; None = the pooled text alone is wanted.
    """

    def __init__(
        self,
        text_dim: int,
        embed_dim: int,
        *,
        pooling: Literal["attention", "whitened_mean"],
        layers: Sequence[TextLayer] | None,
    ) -> None:
        super().__init__()
        self.pooling: AttentionPooling | WhitenedMeanPooling = (
            AttentionPooling(text_dim) if pooling == "attention" else WhitenedMeanPooling(text_dim)
        )
        self.to_embedding = nn.Sequential(
            nn.Linear(text_dim, embed_dim), nn.SiLU(), nn.Linear(embed_dim, embed_dim)
        )
        self.projections: nn.ModuleList | None = None
        if layers is not None:
            self.norm = nn.LayerNorm(text_dim)
            self.null = nn.Parameter(torch.zeros(1, 1, text_dim))
            self.projections = nn.ModuleList(
                TextProjection(text_dim, layer.out.out_features, layer.heads) for layer in layers
            )

    def forward(self, text: TextEmbedding) -> TextFeatures:
        """Everything the network wants of its captions."""
        dtype = next(self.to_embedding.parameters()).dtype
        text = TextEmbedding(text.tokens.to(dtype), text.mask)
        pooled = self.to_embedding(self.pooling(text))
        if self.projections is None:
            return TextFeatures(pooled)
        tokens = with_null(self.norm(text.tokens), self.null)
        mask = F.pad(text.mask, (1, 0), value=True)
        return TextFeatures(
            pooled=pooled,
            keys_values=tuple(project(tokens, mask) for project in self.projections),
        )


def join_text(
    own: Sequence[Tensor], text: TextKeysValues | None, *, text_first: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Keys, values and mask of pixels (if any) and text (if any), for attention to both.

    Args:
        own: keys and values of the pixels, (B, heads, hw, d) each; empty for attention to the text
            alone.
        text: keys and values of the text; None = none.
        text_first: which comes first, as in published models.
    """
    if text is None:
        if not own:
            raise ValueError("got no text for attention to text alone; expected a text embedding")
        return own[0], own[1], None
    if not own:
        return text.keys, text.values, text.mask
    pixels = own[0].shape[2]
    pairs = ((own[0], text.keys), (own[1], text.values))
    keys, values = (torch.cat(pair[::-1] if text_first else pair, 2) for pair in pairs)
    if text.mask is None:
        return keys, values, None
    padding = (0, pixels) if text_first else (pixels, 0)
    return keys, values, F.pad(text.mask, padding, value=True)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """Mean over real tokens, (B, L, D) -> (B, D); zero where there are none."""
    weights = mask.to(tokens.dtype)[..., None]
    return (tokens * weights).sum(1) / weights.sum(1).clamp_min(1.0)


def with_null(tokens: Tensor, null: Tensor) -> Tensor:
    """Put the learned null token (1, 1, D) before the tokens (B, L, D)."""
    return torch.cat((null.expand(tokens.shape[0], -1, -1).to(tokens.dtype), tokens), dim=1)


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, L, C) -> (B, heads, L, C / heads)."""
    batch, length, channels = x.shape
    return x.reshape(batch, length, heads, channels // heads).transpose(1, 2)
