"""The features that published FID, KID and Inception Scores are of, from the reference's weights.

The user brings the file (`pt_inception-2015-12-05-6726825d.pth`, of pytorch-fid or
torch-fidelity): TensorFlow's graph of 2015 as PyTorch's weights. Its resize is TensorFlow 1's,
which neither antialiases nor centres its grid; FID with another compares with no published one.

Reference: Heusel et al. 2017, arXiv:1706.08500; Parmar et al. 2022, arXiv:2104.11222 (resizing).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calotype.errors import CalotypeError
from calotype.evaluation.features.batches import in_batches
from calotype.evaluation.features.inception_network import DIMENSION, Convolution, Inception
from calotype.storage.reading import checked_bytes
from calotype.text.encoder import digest

SHA256_BEGINS = "6726825d"
_SIDE = 299
_LARGEST_FILE = 200_000_000  # the file has 96 MB
_ADVICE = (
    "get pt_inception-2015-12-05-6726825d.pth from the releases of pytorch-fid or torch-fidelity"
)


class InceptionV3:
    """The reference network of FID, averaged over positions: an `Extractor` and a `Classifier`.

    Args:
        weights: the reference file.
        device: where it runs.

    Raises:
        CalotypeError: it is another file, or cannot be read.
    """

    name = "inception"
    description = (
        f"Inception-v3 of 2015-12-05, resized to {_SIDE} x {_SIDE} as TensorFlow 1 does: bilinear, "
        "no antialiasing, grid not centred"
    )
    dimension = DIMENSION

    def __init__(self, weights: Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        data = checked_bytes(weights, SHA256_BEGINS, advice=_ADVICE, most_bytes=_LARGEST_FILE)
        self.fingerprint = digest(["inception", hashlib.sha256(data).hexdigest(), "resize 1"])
        self._network = build_inception(_state(data, weights)).to(self.device)

    def __call__(self, images: Tensor) -> Tensor:
        """Features, (N, 2048), of uint8 images, (N, 3, H, W)."""
        return in_batches(images, self._embed, self.device)

    def _embed(self, x: Tensor) -> Tensor:
        x = (tensorflow_resize(x, _SIDE) - 128) / 128
        found: Tensor = self._network(x.to(memory_format=torch.channels_last))
        return found

    @torch.no_grad()
    def logits(self, features: Tensor) -> Tensor:
        """Of the 1008 classes, without the bias, (N, 1008), from features, (N, 2048)."""
        return self._network.logits(features.to(self.device)).cpu()


def tensorflow_resize(x: Tensor, side: int) -> Tensor:
    """(N, C, H, W) -> (N, C, side, side): bilinear as TensorFlow 1 without `align_corners`.

    Pixel i of the result lies at i * length / side, for corners and not centres of pixels are
    matched; each takes from two neighbours only, however much an image shrinks.
    """
    for dim in (3, 2):
        length = x.shape[dim]
        place = torch.arange(side, dtype=torch.float32, device=x.device)
        place = place * torch.tensor(length / side, dtype=torch.float32)
        low = place.long()
        fraction = (place - low).view(-1, *[1] * (3 - dim))
        first = x.index_select(dim, low)
        second = x.index_select(dim, (low + 1).clamp_max(length - 1))
        x = first + (second - first) * fraction
    return x


def build_inception(weights: Mapping[str, Any]) -> Inception:
    """The network with weights named as in the reference file, convolutions and norms in one.

    Raises:
        CalotypeError: names, shapes or types are others, or a number is not finite.
    """
    with torch.device("meta"):
        network = Inception()
    # The reference file does not count batches; one saved again by PyTorch does.
    given = {name: x for name, x in weights.items() if not _counts(name)}
    expected = {name: x for name, x in network.state_dict().items() if not _counts(name)}
    differing = sorted(map(str, set(given) ^ set(expected)))
    if differing:
        raise CalotypeError(
            f"got weights whose names differ in {len(differing)} from the reference's (first "
            f"{differing[0]!r:.80}); {_ADVICE}"
        )
    for name, tensor in expected.items():
        found = given[name]
        if not isinstance(found, Tensor) or (found.dtype, found.shape) != (
            torch.float32, tensor.shape,
        ):  # fmt: skip
            raise CalotypeError(
                f"got another {name!r} than of float32 and shape {tuple(tensor.shape)}; {_ADVICE}"
            )
        if not bool(found.isfinite().all()):
            raise CalotypeError(f"got {name!r} with numbers that are not finite; {_ADVICE}")
    network.load_state_dict({**_counters(network), **given}, assign=True)
    network.requires_grad_(False).eval()
    for layer in network.modules():
        if isinstance(layer, Convolution) and isinstance(layer.bn, nn.BatchNorm2d):
            layer.conv = fuse_conv_bn_eval(layer.conv, layer.bn)  # one pass over memory, not two
            layer.conv.weight.data = layer.conv.weight.contiguous(memory_format=torch.channels_last)
            layer.bn = nn.Identity()
    return network


def _counts(name: object) -> bool:
    return str(name).endswith("num_batches_tracked")


def _counters(network: Inception) -> dict[str, Tensor]:
    return {name: torch.tensor(0) for name in network.state_dict() if _counts(name)}


def _state(data: bytes, path: Path) -> Mapping[str, Any]:
    try:
        found = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # what it raises of a damaged file, or of code in it, is many things
        raise CalotypeError(
            f"{path} cannot be read as weights and nothing else; {_ADVICE}"
        ) from error
    if not isinstance(found, dict):
        raise CalotypeError(f"{path} holds a {type(found).__name__}, expected weights; {_ADVICE}")
    return found
