"""Extractors that see colours alone: what they say of images can be told beforehand.

Images of one colour are points in a cube; CLIP's captions are named colours, so that a sample fits
its caption exactly if it has the colour that the caption names.
"""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

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


@pytest.fixture
def eyes(monkeypatch):
    """No extractor is read: "lite0" and "clip" see colours. The calls of each name are counted."""
    from calotype.evaluation.features import extractor

    counted = {"lite0": 0, "clip": 0}
    real = extractor.load_extractor

    def load(name, *, weights=None, device="cpu"):
        if name not in counted:
            return real(name, weights=weights, device=device)
        counted[name] += 1
        return ColourClip() if name == "clip" else ColourEye(name)

    monkeypatch.setattr(extractor, "load_extractor", load)
    extractor._kept.cache_clear()
    yield counted
    extractor._kept.cache_clear()


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    """Eight images of 16x16, each of a colour, with captions; `suite.txt` beside asks for them."""
    folder = tmp_path_factory.mktemp("colours")
    (folder / "real").mkdir()
    for name, colour in NAMED.items():
        Image.new("RGB", (16, 16), colour).save(folder / "real" / f"{name}.png")
        (folder / "real" / f"{name}.txt").write_text(f"a {name} square")
    captions = [f"a {name} square\n" for name in NAMED]
    (folder / "suite.txt").write_text("".join(captions))
    return folder


@pytest.fixture
def noisy():
    """Write images: `noisy(folder, seed=1)`; a caption of colours beside each, with its own."""

    def write(folder, *, seed, size=16, each=1, kind="png", noise=40):
        random = np.random.default_rng(seed)
        folder.mkdir(parents=True)
        for (name, colour), index in itertools.product(NAMED.items(), range(each)):
            shift = random.integers(-noise, noise + 1, (size, size, 3))
            pixels = (np.array(colour) + shift).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}-{index}.{kind}")
            (folder / f"{name}-{index}.txt").write_text(f"a {name} square")
        return folder

    return write
