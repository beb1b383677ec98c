"""Images as raters see them: one size, one encoding, random names, nothing beside the pixels."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from calotype.errors import UsageError
from calotype.evaluation.rating.study import IMAGES, StudyImage, image_path

_TILES = 4
_NOISE = 60.0  # of 255
_TRANSFORMS = {"jpeg": (1, 95), "blur": (1, 100), "shrink": (2, 64)}

Pixels = NDArray[np.uint8]  # (side, side, 3)


@dataclass
class BlindImages:
    """The images of a study being made; each sample is written once, however often it is shown.

    Args:
        folder: of the study.
    """

    folder: Path
    images: list[StudyImage] = field(default_factory=list)
    _names: dict[StudyImage, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / IMAGES).mkdir()

    def add(self, facts: StudyImage, make: Callable[[], Pixels]) -> str:
        """Write an image under a name of 128 random bits; `facts` have no name and hash yet."""
        if facts in self._names:
            return self._names[facts]
        name = secrets.token_hex(16)
        data = encoded(make())
        image_path(self.folder, name).write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.images.append(replace(facts, name=name, sha256=sha256))
        self._names[facts] = name
        return name


def encoded(pixels: Pixels) -> bytes:
    """A PNG of nothing but pixels, all with the same settings."""
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGB").save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def ruined(pixels: Pixels, seed: int) -> Pixels:
    """A copy that nobody prefers: tiles in another order, under noise."""
    random = np.random.default_rng(seed)
    side = pixels.shape[0] // _TILES * _TILES
    if side == 0:
        return random.integers(0, 256, pixels.shape, dtype=np.uint8)
    step = side // _TILES
    tiles = pixels[:side, :side].reshape(_TILES, step, _TILES, step, 3).swapaxes(1, 2)
    tiles = tiles.reshape(_TILES**2, step, step, 3)[random.permutation(_TILES**2)]
    mixed = tiles.reshape(_TILES, _TILES, step, step, 3).swapaxes(1, 2).reshape(side, side, 3)
    spoilt = pixels.astype(np.float32)
    spoilt[:side, :side] = mixed
    spoilt += _NOISE * random.standard_normal(pixels.shape, dtype=np.float32)
    return spoilt.clip(0, 255).astype(np.uint8)


def read_transform(text: str) -> Callable[[Pixels], Pixels]:
    """What `jpeg:QUALITY`, `blur:RADIUS` or `shrink:FACTOR` does to an image.

    Raises:
        UsageError: it is none of them.
    """
    name, _, number = text.partition(":")
    low, high = _TRANSFORMS.get(name, (1, 0))
    if not (number.isascii() and number.isdigit() and low <= int(number) <= high):
        raise UsageError(
            f"got the transform {text!r}; expected jpeg:QUALITY (1 to 95), blur:RADIUS in pixels "
            "(1 to 100) or shrink:FACTOR (2 to 64)"
        )
    amount = int(number)

    def transform(pixels: Pixels) -> Pixels:
        image = Image.fromarray(pixels, "RGB")
        if name == "blur":
            image = image.filter(ImageFilter.GaussianBlur(amount))
        elif name == "shrink":
            small = (max(1, image.width // amount), max(1, image.height // amount))
            image = image.resize(small, Image.Resampling.BOX).resize(
                image.size, Image.Resampling.BICUBIC
            )
        else:
            buffer = io.BytesIO()
            image.save(buffer, "JPEG", quality=amount)
            image = Image.open(buffer).convert("RGB")
        return np.asarray(image)

    return transform
