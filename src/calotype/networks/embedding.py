"""The embedding every residual block sees: noise level, pooled text, noise of the condition."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning, Text, token_states
from calotype.config.network import EfficientUNetConfig, UNetConfig
from calotype.networks.blocks import Attention, ScalarEmbedding, number_text_layers
from calotype.networks.text import TextConditioner, TextFeatures, WhitenedMeanPooling


class ExtraInput(nn.Module):
    """The extra channels' part of the first convolution; the same in every step, so made once.

    Args:
        channels: C of the extra input; see `Conditioning.extra`.
        width: channels of the first convolution's output.
        fold: side of the pixel squares folded into channels.
    """

    def __init__(self, channels: int, width: int, *, fold: int = 1) -> None:
        super().__init__()
        self.channels, self.fold = channels, fold
        self.convolution = nn.Conv2d(channels * fold**2, width, 3, padding=1, bias=False)

    def forward(self, extra: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H/fold, W/fold), to be added."""
        check_extra(extra, self.channels)
        x = F.pixel_unshuffle(extra.to(self.convolution.weight.dtype), self.fold)
        return cast(Tensor, self.convolution(x))


def check_extra(extra: Tensor, channels: int) -> None:
    """Raise a ValueError unless the extra input has so many channels."""
    if extra.ndim != 4 or extra.shape[1] != channels:
        raise ValueError(f"got extra channels {tuple(extra.shape)}; expected (B, {channels}, H, W)")


class ConditionEmbedding(nn.Module):
    """Sums the embeddings of all that conditions a network; owns its text conditioner.

    Args:
        config: the network's settings.
        embed_dim: width E of the embedding.
        blocks: modules of the network; those that attend are given text keys and values in this
            order.
    """

    def __init__(
        self,
        config: UNetConfig | EfficientUNetConfig,
        embed_dim: int,
        *,
        blocks: Iterable[nn.Module],
    ) -> None:
        super().__init__()
        self.level = ScalarEmbedding(-25.0, 25.0, embed_dim)
        self.aug_level = ScalarEmbedding(0.0, 1.0, embed_dim) if config.lowres else None
        self.text: TextConditioner | None = None
        if config.text_dim > 0:
            layers = number_text_layers(blocks, Attention) if config.text_tokens else None
            pooling = config.text_pooling
            self.text = TextConditioner(config.text_dim, embed_dim, pooling=pooling, layers=layers)

    def set_text_statistics(self, mean: Tensor, covariance: Tensor) -> None:
        """Statistics for whitened pooling; see `WhitenedMeanPooling.set_statistics`."""
        if self.text is None or not isinstance(self.text.pooling, WhitenedMeanPooling):
            raise ValueError("got text statistics; expected text_pooling='whitened_mean'")
        self.text.pooling.set_statistics(mean, covariance)

    def bind(
        self, cond: Conditioning, predict: Callable[[Tensor, Tensor, TextFeatures], Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Encode the captions once; returns `(z (B, 3, H, W), logsnr (B,)) -> prediction`.

        Args:
            cond: all that conditions the network.
            predict: `(images (B, 3 or 6, H, W), embedding (B, E), text) -> prediction`; behind
                the noisy images' channels it gets those of the low-resolution images.
        """
        if (self.aug_level is None) != (cond.lowres is None):
            got, wanted = ("no", "one") if cond.lowres is None else ("a", "none")
            raise ValueError(f"got {got} low-resolution image; expected {wanted} for this network")
        text = self.encode(cond.text)

        def bound(z: Tensor, logsnr: Tensor) -> Tensor:
            embedding = self(logsnr, cond.aug_level, text)
            joined = z if cond.lowres is None else torch.cat((z, cond.lowres.to(z.dtype)), dim=1)
            return predict(joined, embedding, text)

        return bound

    def encode(self, text: Text | None) -> TextFeatures:
        """What the network wants of its captions: nothing, if it is one without text."""
        if self.text is None:
            return TextFeatures()
        features: TextFeatures = self.text(token_states(text))
        return features

    def forward(self, logsnr: Tensor, aug_level: Tensor | None, text: TextFeatures) -> Tensor:
        """(B,), (B,) -> (B, E)."""
        embedding: Tensor = self.level(logsnr)
        if self.aug_level is not None:
            if aug_level is None:
                raise ValueError("got no aug_level; expected one number in [0, 1] an image")
            embedding = embedding + self.aug_level(aug_level)
        return embedding if text.pooled is None else embedding + text.pooled
