"""The pre-LayerNorm transformer, once for all that need one: CLIP's towers, token models, priors.

Vaswani et al. 2017, arXiv:1706.03762, with LayerNorm before attention and MLP, as in GPT-2 and
CLIP (Radford et al. 2021, arXiv:2103.00020). Embeddings and the last LayerNorm are the caller's.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.networks.attention import attend
from calotype.networks.blocks import normal
from calotype.networks.text import split_heads

Activation = Literal["gelu", "quick_gelu"]


class TransformerLayer(nn.Module):
    """Self-attention and an MLP of four times the width, LayerNorm before each, a skip around each.

    Args:
        width: of its input and output.
        heads: of attention.
        head_dim: channels of a head; None = width / heads.
        activation: of the MLP; "quick_gelu" is OpenAI CLIP's x * sigmoid(1.702 x).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        head_dim: int | None = None,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if head_dim is None and width % heads != 0:
            raise ValueError(f"got width {width} for {heads} heads; expected a multiple of heads")
        inner = width if head_dim is None else heads * head_dim
        self.heads = heads
        self.activation = activation
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner)
        self.out = nn.Linear(inner, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(
        self, x: Tensor, mask: Tensor | None, *, causal: bool, first: int | None = None
    ) -> Tensor:
        """(B, L, W) -> (B, L, W), or of the `first` tokens alone, (B, first, W).

        Mask and causal are as `scaled_dot_product_attention` takes them.
        """
        parts = self.qkv(self.norm1(x)).chunk(3, dim=2)
        queries, keys, values = (split_heads(part, self.heads) for part in parts)
        if mask is not None:
            mask = mask[..., :first, :]
        attended = attend(queries[:, :, :first], keys, values, mask, causal=causal)
        x = x[:, :first] + self.out(attended.transpose(1, 2).flatten(2))
        wide = self.widen(self.norm2(x))
        wide = F.gelu(wide) if self.activation == "gelu" else wide * torch.sigmoid(1.702 * wide)
        return cast(Tensor, x + self.narrow(wide))


class Transformer(nn.ModuleList):
    """Layers one after the other; a list of them, so that weights are named by their number.

    Where it is `causal`, a token attends only to itself and those before it; the other settings are
    those of `TransformerLayer`.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        *,
        head_dim: int | None = None,
        activation: Activation = "gelu",
        causal: bool = False,
    ) -> None:
        super().__init__(
            TransformerLayer(width, heads, head_dim=head_dim, activation=activation)
            for _ in range(layers)
        )
        self.causal = causal

    @torch.no_grad()
    def initialise(self) -> None:
        """Give weights CLIP's initial values, biases 0: what layers add begins small.

        Reference: Radford et al. 2021, section 2.4, arXiv:2103.00020; Radford et al. 2019 (GPT-2).
        """
        for layer in self:
            assert isinstance(layer, TransformerLayer)
            width, added = layer.norm1.normalized_shape[0], (2 * len(self)) ** -0.5
            for linear, std in (
                (layer.qkv, width**-0.5),
                (layer.out, width**-0.5 * added),
                (layer.widen, (2 * width) ** -0.5),
                (layer.narrow, width**-0.5 * added),
            ):
                linear.weight.copy_(normal(*linear.weight.shape, std=std))
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor, mask: Tensor | None = None, *, first: int | None = None) -> Tensor:
        """(B, L, W) -> (B, L, W), or (B, first, W).

        Args:
            x: tokens with their positions.
            mask: (B, L), True where a token may be attended to; None = all. States of the tokens
                that may not are finite, and mean nothing.
            first: of how many tokens, from the first on, the states are wanted; None = all. The
                last layer does nothing for the others.
        """
        attended = None if mask is None else mask[:, None, None]  # (B, 1, 1, L)
        if attended is not None and self.causal:
            length = x.shape[1]
            attended = attended & attended.new_ones(length, length).tril()
        for number, layer in enumerate(self, 1):
            wanted = first if number == len(self) else None
            x = layer(x, attended, causal=self.causal and mask is None, first=wanted)
        return x
