"""What ADM networks make of captions, once per image: pooled text, states, mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import TextEmbedding, TokenIds
from calotype.config.adm import AdmConfig, StatesText, TokensText, UnclipText
from calotype.networks.blocks import embedding, normal
from calotype.networks.text import split_heads
from calotype.networks.transformer import Transformer


@dataclass(frozen=True)
class AdmText:
    """What attention layers and the time embedding get.

    Args:
        states: (B, L, width).
        mask: (B, L), or None where all states count.
        pooled: added to the time embedding, (B, E), or None.
    """

    states: Tensor
    mask: Tensor | None
    pooled: Tensor | None


class StatesEncoder(nn.Module):
    """DeepFloyd IF: projected states, and attention pooling between two LayerNorms."""

    def __init__(self, text: StatesText, text_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(text_dim, text.width)
        self.pool: nn.Module | None = None
        if text.pool_heads > 0:
            self.pool = nn.Sequential(
                nn.LayerNorm(text_dim),
                MeanTokenPooling(text_dim, text.pool_heads),
                nn.Linear(text_dim, embed_dim),
                nn.LayerNorm(embed_dim),
            )

    def forward(self, text: TextEmbedding) -> AdmText:
        """All states count: these models were trained on padding, too."""
        if not bool(text.mask.any(1).all()):
            raise ValueError("got a null caption; expected the states of the empty caption for it")
        pooled = None if self.pool is None else self.pool(text.tokens)
        return AdmText(self.projection(text.tokens), None, pooled)


class MeanTokenPooling(nn.Module):
    """The mean token, moved by a learned vector, asks itself and all tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.position = nn.Parameter(normal(1, width, std=width**-0.5))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)."""
        first = tokens.mean(dim=1, keepdim=True) + self.position
        tokens = torch.cat((first, tokens), dim=1)
        queries = split_heads(self.query(first), self.heads)  # (B, heads, 1, d)
        keys = split_heads(self.key(tokens), self.heads)
        values = split_heads(self.value(tokens), self.heads)
        scale = queries.shape[3] ** -0.25
        logits = (queries * scale) @ (keys * scale).transpose(2, 3)
        # In float32 whatever the weights are, as the published model computes it.
        pooled = torch.softmax(logits.float(), dim=-1).to(values.dtype) @ values
        return pooled.transpose(1, 2).flatten(1)


class TokensEncoder(nn.Module):
    """GLIDE: a transformer over token numbers; the last token's state is the pooled text.

    Reference: Nichol et al. 2021, section 4.1, arXiv:2112.10741.
    """

    def __init__(self, text: TokensText, embed_dim: int) -> None:
        super().__init__()
        self.context = text.context
        # Initial values are CLIP's. With PyTorch's own, trained at the U-Net's rate, states grew a
        # hundredfold until captions looked alike; `OptimizerConfig.text_rate` is what cured that.
        self.tokens = embedding(text.vocabulary, text.width, std=0.02)
        self.positions = nn.Parameter(normal(text.context, text.width, std=0.01))
        self.padding = nn.Parameter(normal(text.context, text.width, std=0.01))
        self.layers = Transformer(text.width, text.heads, text.layers)
        self.layers.initialise()
        self.norm = nn.LayerNorm(text.width)
        self.to_embedding = nn.Linear(text.width, embed_dim)

    def forward(self, text: TokenIds) -> AdmText:
        """Ids (B, L), the first `context` of them; padding and missing tokens are learned."""
        text = text.padded(self.context)
        ids, mask = text.ids[:, : self.context], text.mask[:, : self.context]
        x = self.tokens(ids) + self.positions
        x = torch.where(mask[..., None], x, self.padding)
        x = self.norm(self.layers(x))
        return AdmText(x, None, self.to_embedding(x[:, -1]))


class UnclipEncoder(nn.Module):
    """Karlo: CLIP's embeddings go to the time embedding and, the image's, to four more states.

    Reference: Ramesh et al. 2022, section 2.1, arXiv:2204.06125.
    """

    def __init__(self, text: UnclipText, clip_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.extra_tokens = text.extra_tokens
        self.no_image = nn.Parameter(torch.zeros(clip_dim))
        self.text_to_embedding = nn.Linear(clip_dim, embed_dim)
        self.image_to_embedding = nn.Linear(clip_dim, embed_dim)
        self.image_to_states = nn.Linear(clip_dim, text.extra_tokens * text.width)
        self.projection = nn.Linear(clip_dim, text.width)
        self.norm = nn.LayerNorm(text.width)

    def forward(self, text: TextEmbedding) -> AdmText:
        """Tokens (B, 2 + L, D): image embedding, text embedding, states; see `UnclipText`."""
        image = torch.where(text.mask[:, :1], text.tokens[:, 0], self.no_image)
        pooled = self.image_to_embedding(image) + self.text_to_embedding(text.tokens[:, 1])
        # The published layer counts its outputs channel by channel, then token by token.
        extra = self.image_to_states(image).unflatten(1, (-1, self.extra_tokens)).transpose(1, 2)
        states = self.norm(self.projection(text.tokens[:, 2:]))
        mask = F.pad(text.mask[:, 2:], (self.extra_tokens, 0), value=True)
        return AdmText(torch.cat((extra, states), dim=1), mask, pooled)


def build_text(config: AdmConfig, embed_dim: int) -> nn.Module | None:
    """The module that reads captions; None for a network without text."""
    match config.text:
        case StatesText():
            return StatesEncoder(config.text, config.text_dim, embed_dim)
        case TokensText():
            return TokensEncoder(config.text, embed_dim)
        case UnclipText():
            return UnclipEncoder(config.text, config.text_dim, embed_dim)
        case None:
            return None
