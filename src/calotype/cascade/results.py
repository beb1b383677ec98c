"""What comes out of a cascade: previews while it samples, and the finished images."""

from __future__ import annotations

import base64
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from calotype.cascade.pixels import to_pixels
from calotype.cascade.png import encode_png
from calotype.diffusion import SamplerState

if TYPE_CHECKING:
    from PIL.Image import Image

P = TypeVar("P")
T = TypeVar("T")
# A notebook keeps what it shows: at most about 10 MB.
_MOST_IMAGES, _LARGEST_SIDE = 64, 256


@dataclass(frozen=True)
class CascadeSample:
    """Finished images.

    Args:
        images: one tensor a stage, (B, 3, H, W) float32 in [-1, 1] on the CPU.
        seeds: one an image.
    """

    images: tuple[Tensor, ...]
    seeds: tuple[int, ...]

    def pil(self) -> list[Image]:
        """The images of the last stage."""
        from PIL import Image

        return [Image.fromarray(pixels) for pixels in to_pixels(self.images[-1])]

    def _repr_png_(self) -> bytes | None:
        """One image, as notebooks show it."""
        return encode_png(to_pixels(self.images[-1])[0]) if len(self.seeds) == 1 else None

    def _repr_html_(self) -> str | None:
        """Several images, as notebooks show them."""
        return _html_table(to_pixels(self.images[-1]), self.seeds) if len(self.seeds) != 1 else None


@dataclass(frozen=True)
class Preview:
    """A look at an image being sampled.

    Args:
        stage: index of the stage in the cascade.
        resolution: that stage's resolution.
        rows: which images of the batch.
        steps: steps of the stage; `state.index` runs from 0 to this.
        state: the sampler's; `state.estimate.x_hat` is what the images look like so far.
    """

    stage: int
    resolution: int
    rows: slice
    steps: int
    state: SamplerState


def drain(steps: Generator[P, None, T], show: Callable[[P], None] = lambda preview: None) -> T:
    """What a generator of previews returns, each shown; it is closed whatever happens."""
    try:
        while True:
            show(next(steps))
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        steps.close()


def without_gradients(steps: Generator[P, None, T]) -> Generator[P, None, T]:
    """The generator under `torch.no_grad()`, whose own decorator would keep what was yielded last.

    Images may be large: what a step needs no more is free when the next one begins.
    """
    try:
        while True:
            with torch.no_grad():
                preview = next(steps)
            yield preview
            del preview
    except StopIteration as end:
        return cast(T, end.value)
    finally:
        steps.close()


def _html_table(images: np.ndarray, seeds: Sequence[int]) -> str:
    """Images, (B, H, W, 3) uint8, side by side with their seeds below; the first 64, and small."""
    cells = [
        f'<figure style="margin:4px"><img alt="" src="data:image/png;base64,{_small_png(pixels)}">'
        f"<figcaption>seed {seed}</figcaption></figure>"
        for pixels, seed in zip(images[:_MOST_IMAGES], seeds, strict=False)
    ]
    if len(images) > _MOST_IMAGES:
        cells.append(f"<p>and {len(images) - _MOST_IMAGES:,} more</p>")
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(cells)}</div>'


def _small_png(pixels: np.ndarray) -> str:
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return base64.b64encode(encode_png(np.asarray(image))).decode()
