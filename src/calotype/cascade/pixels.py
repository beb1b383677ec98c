"""Between images as networks see them and pixels as files hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import torch
from torch import Tensor

from calotype.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 2048 * 2048
"""Largest image a stage samples in one piece; memory grows with the pixels."""

OneImage: TypeAlias = Union[np.ndarray, "Image", str, "os.PathLike[str]"]
Images: TypeAlias = Tensor | OneImage | Sequence[OneImage]
"""What is taken for images: see `as_images`."""


def to_pixels(images: Tensor) -> np.ndarray:
    """Images, (B, 3, H, W) in [-1, 1], as (B, H, W, 3) uint8."""
    scaled = ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def from_pixels(pixels: np.ndarray) -> Tensor:
    """The inverse of `to_pixels`."""
    return torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def contact_sheet(
    images: Sequence[np.ndarray], *, columns: int | None = None, gap: int = 0, paper: int = 255
) -> np.ndarray:
    """Images side by side, in rows, as one.

    Args:
        images: (H, W, 3) uint8, at least one, all of one size.
        columns: images a row; None makes the sheet nearly square.
        gap: pixels between images.
        paper: grey of what no image covers.
    """
    if columns is None:
        columns = math.ceil(math.sqrt(len(images)))
    height, width = (side + gap for side in images[0].shape[:2])
    rows = -(-len(images) // columns)
    sheet = np.full((rows * height - gap, columns * width - gap, 3), paper, dtype=np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        place = sheet[row * height :, column * width :]
        place[: image.shape[0], : image.shape[1]] = image
    return sheet


def as_images(given: Images, what: str = "image") -> Tensor:
    """Images in whatever form, as (B, 3, H, W) in [-1, 1].

    Args:
        given: a tensor, (B, 3, H, W), of floats in [-1, 1] or of uint8 from 0 to 255; or one of
            these, or several of one size in a list: a numpy array (H, W, 3), grey (H, W) or with
            alpha (H, W, 4), of uint8; an image of Pillow's; a file's path. What is transparent
            becomes white.
        what: how errors call it.

    Raises:
        UsageError: it is anything else.
    """
    if isinstance(given, Tensor):
        return _checked(given, what)
    ones: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    if not ones:
        raise UsageError(f"got no {what}; expected at least one")
    parts = [_one(one, what) for one in ones]
    if len({part.shape for part in parts}) != 1:
        sizes = sorted({f"{part.shape[1]}x{part.shape[0]}" for part in parts})
        raise UsageError(f"got {len(parts)} of {what} with the sizes {sizes}; expected one size")
    return from_pixels(np.stack(parts))


def _checked(images: Tensor, what: str) -> Tensor:
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape) < 1:
        raise UsageError(f"got {what} of shape {tuple(images.shape)}; expected (B, 3, H, W)")
    if images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    if not images.is_floating_point():
        raise UsageError(f"got {what} of {images.dtype}; expected floats in [-1, 1], or uint8")
    if not bool(images.isfinite().all()) or float(images.abs().max()) > 1.001:
        raise UsageError(f"got {what} outside [-1, 1]; expected floats scaled to [-1, 1]")
    return images


def _one(given: Any, what: str) -> np.ndarray:
    from PIL import Image

    from calotype.cascade.image_files import image_pixels, read_image

    if isinstance(given, str | os.PathLike):
        return read_image(Path(given), most_pixels=MAX_PIXELS)
    if isinstance(given, np.ndarray):
        grey = given.ndim == 2
        if given.dtype != np.uint8 or not (grey or (given.ndim == 3 and given.shape[2] in (3, 4))):
            raise UsageError(
                f"got {what} as an array {given.shape} of {given.dtype}; expected (H, W, 3) of "
                "uint8 from 0 to 255"
            )
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise UsageError(
            f"got {what} of type {type(given).__name__}; expected a tensor, a numpy array, an "
            "image of Pillow's or a path"
        )
    return image_pixels(given, most_pixels=MAX_PIXELS)


def as_mask(given: Tensor | np.ndarray | Image) -> Tensor:
    """A mask as (B, 1, H, W): a tensor as it is, or (H, W) as numpy's array or Pillow's image."""
    if isinstance(given, Tensor):
        return given
    array = np.array(given)
    if array.ndim != 2 or array.dtype != np.bool_:
        raise UsageError(
            f"got a mask {array.shape} of {array.dtype}; expected (H, W) of bool, or a tensor "
            "(B, 1, H, W) of bool"
        )
    return torch.from_numpy(array)[None, None]
