"""Preset U-Nets of imagen-pytorch, and `NullUnet`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from calotype.errors import UsageError
from calotype.interop.imagen_pytorch.options import CudaOptional
from calotype.interop.imagen_pytorch.unet import Unet


class BaseUnet64(Unet):
    """The preset for 64x64 images."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "dim": 512,
        "dim_mults": (1, 2, 3, 4),
        "num_resnet_blocks": 3,
        "layer_attns": (False, True, True, True),
        "layer_cross_attns": (False, True, True, True),
    }


class SRUnet256(Unet):
    """The preset for super-resolution to 256x256."""

    defaults: ClassVar[Mapping[str, Any]] = {
        "dim": 128,
        "dim_mults": (1, 2, 4, 8),
        "num_resnet_blocks": (2, 4, 8, 8),
        "layer_attns": (False, False, False, True),
        "layer_cross_attns": (False, False, False, True),
        "memory_efficient": True,
    }


class SRUnet1024(Unet):
    """The preset for super-resolution to 1024x1024: no self-attention but in the middle."""

    defaults: ClassVar[Mapping[str, Any]] = {**SRUnet256.defaults, "layer_attns": False}


class NullUnet(CudaOptional):
    """Holds the place of a stage that is neither trained nor sampled from."""

    lowres_cond = False
    self_cond = False

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()
        self.dummy_parameter = nn.Parameter(torch.zeros(1))

    def cast_model_parameters(self, **changes: Any) -> Self:
        """Itself."""
        return self

    def forward(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
        """`x`."""
        return x


def real_unet(unet: nn.Module, number: int) -> Unet:
    """The network; one that only holds a place is refused."""
    if not isinstance(unet, Unet):
        raise UsageError(f"U-Net {number} is a NullUnet; it can be neither trained nor sampled")
    return unet
