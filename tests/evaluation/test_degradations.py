"""Distances rise the worse real images are made: by blur, by noise, by JPEG."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from calotype.evaluation.features.extractor import load_extractor
from calotype.evaluation.metrics.frechet import fid, fit_gaussian
from calotype.evaluation.metrics.kernels import kid

SIDE = 96
SHEETS = Path(__file__).parents[2] / "src/calotype/assets/default"
"""In the repository: a wheel has no sheets."""


def cuts(offset):
    """Parts of the embedded cascade's sheets, one in four of them, which hold real images."""
    found = []
    for name in ("sheet-1024-trained-pair.jpg", "sheet-1024-unseen-pair.jpg"):
        with Image.open(SHEETS / name) as file:
            sheet = file.convert("RGB")
            across, down = sheet.width // SIDE, sheet.height // SIDE
            for number in range(offset, across * down, 4):
                left, top = number % across * SIDE, number // across * SIDE
                found.append(sheet.crop((left, top, left + SIDE, top + SIDE)))
    return found[:40]


def blurred(image, level):
    return image.filter(ImageFilter.GaussianBlur(level))


def noisy(image, level):
    noise = np.random.default_rng(0).normal(0, level * 12, (SIDE, SIDE, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


def squeezed(image, level):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=(60, 20, 6, 2)[level])
    return Image.open(stream).convert("RGB")


@pytest.fixture(scope="module")
def features():
    extractor = load_extractor("lite0")

    def of(images):
        arrays = [torch.from_numpy(np.asarray(image).copy()) for image in images]
        return extractor(torch.stack(arrays).permute(0, 3, 1, 2))

    return of


@pytest.mark.slow
@pytest.mark.parametrize("made_worse", [blurred, noisy, squeezed])
def test_the_worse_the_images_the_larger_the_distance(features, made_worse):
    real, others = features(cuts(0)), cuts(2)
    gaussian = fit_gaussian(real)
    sets = [features([made_worse(image, level) for image in others]) for level in (1, 2, 3)]
    sets.insert(0, features(others))
    distances = [kid(real, found).value for found in sets]
    assert distances == sorted(distances) and distances[-1] > distances[0] + 0.01
    one = torch.zeros(len(others), dtype=torch.long)  # a single block: the value alone
    frechet = [fid(gaussian, found, blocks=one).value for found in sets]
    assert frechet == sorted(frechet)
