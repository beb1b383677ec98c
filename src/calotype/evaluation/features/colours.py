"""An image's mean colour as a feature of three numbers: kept as others are, for colour shift."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from calotype.evaluation.features.batches import in_batches
from calotype.evaluation.metrics.pixels import mean_colour


class MeanColour:
    """Red, green and blue, each 0 to 255, over all pixels; an `Extractor` without weights."""

    name = "colours"
    description = "mean red, green and blue"
    fingerprint = hashlib.sha256(b"mean colour 1").hexdigest()
    dimension = 3
    device = torch.device("cpu")

    def __call__(self, images: Tensor) -> Tensor:
        """Images, uint8 (N, 3, H, W), to (N, 3)."""
        return in_batches(images, lambda part: mean_colour(part.to(torch.uint8)), self.device)
