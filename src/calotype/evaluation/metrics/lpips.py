"""LPIPS with the user's AlexNet: how different two images look.

The weights of its layers (version 0.1) and the pieces come with torchmetrics; AlexNet's weights are
the file that torchvision offers for download. torchvision itself is not needed.

Reference: Zhang et al. 2018, arXiv:1801.03924; Krizhevsky 2014, arXiv:1404.5997 (this AlexNet).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.storage.reading import file_sha256

# alexnet-owt-7be5be79.pth, and the same weights in torch's earlier format.
_ALEXNET_SHA256 = ("7be5be79", "4df8aa71")
_LAYERS_SHA256 = "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0"
_CHANNELS = (64, 192, 384, 256, 256)
_ENDS = (2, 5, 8, 10, 12)  # behind each rectifier
LEAST_SIDE = 31
_PAIRS_AT_ONCE = 32


class Lpips(nn.Module):
    """The distance, of AlexNet's weights as torchvision names them (`features.0.weight`, ...)."""

    def __init__(self, alexnet: Mapping[str, Tensor]) -> None:
        super().__init__()
        pieces = _torchmetrics()
        self.scaling = pieces.ScalingLayer()
        self.features = _alexnet_features()
        self.layers = nn.ModuleList(
            pieces.NetLinLayer(count, use_dropout=True) for count in _CHANNELS
        )
        own = {name: value for name, value in alexnet.items() if name.startswith("features.")}
        try:
            self.features.load_state_dict({name[9:]: value for name, value in own.items()})
        except RuntimeError as error:
            raise UsageError(
                "the weights are not those of torchvision's AlexNet; expected the file "
                "alexnet-owt-7be5be79.pth"
            ) from error
        weights = _layer_weights(Path(str(pieces.__file__)).with_name("lpips_models") / "alex.pth")
        self.layers.load_state_dict({name[3:]: value for name, value in weights.items()})
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """How different pairs of images look.

        Args:
            x: images, (B, 3, H, W) in [-1, 1], sides of at least 31.
            y: likewise.

        Returns:
            (B,), at least 0; 0 for equal images.

        Raises:
            UsageError: the shapes differ, or the images are too small.
        """
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != 3 or min(x.shape[2:]) < LEAST_SIDE:
            raise UsageError(
                f"got images {tuple(x.shape)} and {tuple(y.shape)} for LPIPS; expected equal "
                f"shapes (B, 3, H, W) with sides of at least {LEAST_SIDE}"
            )
        parts = zip(torch.split(x, _PAIRS_AT_ONCE), torch.split(y, _PAIRS_AT_ONCE), strict=True)
        return torch.cat([self._distance(a, b) for a, b in parts])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        normalize = _torchmetrics()._normalize_tensor
        x, y = self.scaling(x), self.scaling(y)
        total = torch.zeros(len(x), dtype=x.dtype)
        for layer, start, end in zip(self.layers, (0, *_ENDS), _ENDS, strict=False):
            x, y = self.features[start:end](x), self.features[start:end](y)
            difference = (normalize(x) - normalize(y)).square()
            total = total + layer(difference).mean((1, 2, 3))
        return total

    def pairs(self, images: Tensor) -> Tensor:
        """The distances of all pairs of images, (n (n - 1) / 2,), for `diversity.over_prompts`."""
        chosen = torch.tensor(list(itertools.combinations(range(len(images)), 2)))
        parts = torch.split(chosen, _PAIRS_AT_ONCE)
        return torch.cat([self(images[part[:, 0]], images[part[:, 1]]) for part in parts])


def load_lpips(alexnet: Path) -> Lpips:
    """LPIPS with the user's file of AlexNet's weights.

    Raises:
        CalotypeError: it cannot be read, or is another file (by its SHA-256, before it is opened).
        MissingExtra: torchmetrics is not installed.
    """
    found = file_sha256(alexnet)
    if not found.startswith(_ALEXNET_SHA256):
        raise CalotypeError(
            f"{alexnet} has SHA-256 {found[:16]}…; expected {_ALEXNET_SHA256[0]}…, torchvision's "
            "alexnet-owt-7be5be79.pth"
        )
    return Lpips(torch.load(alexnet, map_location="cpu", weights_only=True))


def _alexnet_features() -> nn.Sequential:
    """The convolutions, numbered as torchvision does."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def _layer_weights(path: Path) -> dict[str, Any]:
    found = file_sha256(path, advice="install torchmetrics again")
    if found != _LAYERS_SHA256:
        raise CalotypeError(
            f"{path} has SHA-256 {found[:16]}…; expected {_LAYERS_SHA256[:16]}…: install "
            "torchmetrics 1.9 again"
        )
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights


def _torchmetrics() -> Any:
    try:
        from torchmetrics.functional.image import lpips
    except ImportError as error:
        raise MissingExtra("evaluate", "torchmetrics") from error
    return lpips
