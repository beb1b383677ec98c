"""Networks: a noisy image, its noise level and a `Conditioning` go in, a prediction comes out.

They know nothing of schedules, samplers, files or captions as strings. May import `config` and
`conditioning` only. What does not depend on the noise level (text keys and values, pooled text,
draft) is computed once in `bind` and used by every call of what it returns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from calotype.conditioning import Conditioning
from calotype.config.adm import AdmConfig
from calotype.config.network import EfficientUNetConfig, UNetConfig
from calotype.config.stage import NetworkConfig
from calotype.errors import ConfigError
from calotype.networks.adm import AdmPair, AdmUNet
from calotype.networks.efficient_unet import EfficientUNet
from calotype.networks.prior import PriorNetwork
from calotype.networks.unet import UNet

__all__ = [
    "AdmPair", "AdmUNet", "DenoisingNetwork", "EfficientUNet", "PriorNetwork", "UNet",
    "build_network",
]  # fmt: skip
MOST_NUMBERS = 20_000_000_000
"""Weights of a network; published ones for images have a quarter of it."""


class DenoisingNetwork(Protocol):
    """What a stage needs of a network."""

    def __call__(self, z: Tensor, logsnr: Tensor, cond: Conditioning) -> Tensor:
        """Predict from noisy images z, (B, 3, H, W), at logsnr, (B,) (ADM: at timesteps)."""

    def bind(self, cond: Conditioning) -> Callable[[Tensor, Tensor], Tensor]:
        """Compute once what only the conditioning decides; returns `(z, logsnr) -> prediction`."""


def build_network(config: NetworkConfig) -> nn.Module:
    """The network a config describes, freshly initialised.

    Raises:
        ConfigError: it would have more than `MOST_NUMBERS` weights; no memory has been asked for.
    """
    with torch.device("meta"):
        planned = _build(config)
    count = sum(tensor.numel() for tensor in (*planned.parameters(), *planned.buffers()))
    if count > MOST_NUMBERS:
        raise ConfigError(
            f"got a network of {count:,} weights; expected at most {MOST_NUMBERS:,}: use fewer "
            "channels, blocks or levels, or a smaller text_dim or draft"
        )
    return planned if torch.get_default_device().type == "meta" else _build(config)


def _build(config: NetworkConfig) -> nn.Module:
    match config:
        case UNetConfig():
            return UNet(config)
        case EfficientUNetConfig():
            return EfficientUNet(config)
        case AdmConfig():
            return AdmPair(config) if config.last_step else AdmUNet(config)
