"""Evaluations that take no second: extractors that see colours alone, and images of colours."""

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # for what these tests share

from eyes import NAMED, ColourClip, ColourEye


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
