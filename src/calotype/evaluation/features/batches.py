"""Images through a network, a few at a time, in full precision on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_AT_ONCE = {"cpu": 16}
_AT_ONCE_ELSEWHERE = 64


def images_at_once(device: torch.device) -> int:
    """How many images a network is given together: more would only fill memory."""
    return _AT_ONCE.get(device.type, _AT_ONCE_ELSEWHERE)


def in_batches(images: Tensor, network: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """Features of images, as an extractor gives them.

    Args:
        images: uint8, (N, 3, H, W). Other numbers are refused: whoever has fractions must round
            them, and metrics that truncate instead (torchmetrics with `normalize=True`) darken
            every image by half a level.
        network: maps a part of them, float32 in [0, 255], to features (n, D).
        device: of the network.

    Returns:
        (N, D), float32, on the CPU.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or not len(images):
        raise ValueError(
            f"got images of {images.dtype} and shape {tuple(images.shape)}; expected uint8 and "
            "(N, 3, H, W), N at least 1: round to whole levels first"
        )
    with torch.no_grad(), torch.autocast(device.type, enabled=False), _full_precision():
        parts = torch.split(images, images_at_once(device))
        return torch.cat(
            [network(part.to(device).contiguous().float()).float().cpu() for part in parts]
        )


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TensorFloat-32: its ten bits would be seen in distances of features."""
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
