"""How images show themselves in a notebook."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from calotype.cascade.png import encode_png

if TYPE_CHECKING:
    import numpy as np

# A notebook keeps what it shows: at most about 10 MB.
_MOST_IMAGES, _LARGEST_SIDE = 64, 256


def html_table(images: np.ndarray, seeds: Sequence[int]) -> str:
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
    import numpy as np
    from PIL import Image

    image = Image.fromarray(pixels)
    image.thumbnail((_LARGEST_SIDE, _LARGEST_SIDE))
    return base64.b64encode(encode_png(np.asarray(image))).decode()
