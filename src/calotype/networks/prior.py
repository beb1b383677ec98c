"""The prior's transformer: from a caption's CLIP states to the embedding of an image of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import TextEmbedding
from calotype.config.prior import PriorNetworkConfig
from calotype.networks.adm_blocks import TimestepMLP
from calotype.networks.transformer import Transformer


class PriorNetwork(nn.Module):
    """Predicts clean image embeddings from noisy ones.

    The sequence is: the caption's states, its embedding, the timestep, the noisy embedding, and a
    learned token whose last state is the answer; attention is causal.

    Reference: Ramesh et al. 2022, section 2.2, arXiv:2204.06125.
    """

    def __init__(self, config: PriorNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width, clip = config.width, config.clip_dim
        self.time = TimestepMLP(width, width, "silu")
        self.noisy = nn.Linear(clip, width)
        self.text_embedding = nn.Linear(clip, width)
        self.text_states = nn.Linear(clip, width)
        self.positions = nn.Parameter(torch.zeros(1, config.context + 4, width))
        self.answer = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = Transformer(width, config.heads, config.layers, causal=True)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, clip)
        # Of CLIP's embeddings in training; what is diffused has mean 0 and deviation 1.
        self.mean = nn.Parameter(torch.zeros(1, clip))
        self.std = nn.Parameter(torch.ones(1, clip))

    def bind(self, text: TextEmbedding) -> Callable[[Tensor, Tensor], Tensor]:
        """Read captions once; returns `(z (B, D), timesteps (B,)) -> x_hat (B, D)`.

        Args:
            text: tokens (B, 1 + context, D): CLIP's embedding, then its states.
        """
        if text.tokens.shape[1] != 1 + self.config.context:
            raise ValueError(
                f"got {text.tokens.shape[1]} tokens; expected 1 + {self.config.context}: the "
                "embedding, then the states"
            )
        tokens = text.tokens.to(self.head.weight.dtype)
        states, embedding = self.text_states(tokens[:, 1:]), self.text_embedding(tokens[:, :1])
        caption = torch.cat((states, embedding), dim=1)
        mask = F.pad(text.mask[:, 1:], (0, 4), value=True)

        def predict(z: Tensor, timesteps: Tensor) -> Tensor:
            time, noisy = self.time(timesteps)[:, None], self.noisy(z)[:, None]
            answer = self.answer.expand(len(z), -1, -1)
            x = torch.cat((caption, time, noisy, answer), dim=1) + self.positions
            output: Tensor = self.head(self.norm(self.layers(x, mask))[:, -1])
            return output

        return predict

    def to_clip(self, x: Tensor) -> Tensor:
        """Embeddings of CLIP from what is diffused."""
        return x * self.std + self.mean
