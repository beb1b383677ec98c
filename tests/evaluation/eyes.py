"""Extractors that see colours alone: what they say of images can be told beforehand.

Images of one colour are points in a cube; CLIP's captions are named colours, so that a sample fits
its caption exactly if it has the colour that the caption names.
"""

from __future__ import annotations

import hashlib

import torch

NAMED = {
    "red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0),
    "cyan": (0, 255, 255), "pink": (255, 0, 255), "grey": (128, 128, 128), "rose": (255, 0, 128),
}  # fmt: skip


class ColourEye:
    """Mean colours of the four quarters: 12 numbers."""

    description = "mean colours of four quarters"
    dimension = 12
    device = torch.device("cpu")

    def __init__(self, name="lite0", version=""):
        self.name = name
        self.fingerprint = hashlib.sha256(f"{name} {version}".encode()).hexdigest()

    def __call__(self, images):
        assert images.dtype == torch.uint8
        return torch.nn.functional.adaptive_avg_pool2d(images.float() + 1, 2).flatten(1)


class ColourClip(ColourEye):
    """The mean colour, a direction; captions have that of the colour they name first."""

    description = "the mean colour"
    dimension = 3

    def __init__(self):
        super().__init__("clip-colours")
        self.captions_fingerprint = self.fingerprint

    def __call__(self, images):
        return torch.nn.functional.normalize(images.float().mean((2, 3)) + 1e-3)

    def embed_captions(self, captions):
        colours = [
            next((c for n, c in NAMED.items() if n in caption), (1, 2, 3)) for caption in captions
        ]
        return torch.nn.functional.normalize(torch.tensor(colours).float() + 1e-3)
