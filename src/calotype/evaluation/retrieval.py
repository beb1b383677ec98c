"""Does a sample show what was asked for? Looked up among real images, in pixels at 16x16.

A sample counts as right when its own concept is among the few real images of its style that are
nearest to it. That needs no other network, and a person can check it by looking.

Which real images it is compared with: for a trained pair of concept and style the style's
training images. For a pair that was held out, its own image is not among those and could never
be found, so the pool is the style's images of all splits, the held-out ones included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from calotype.data.resize import area_resize

THUMBNAIL_SIDE = 16
NEAREST = 5


def thumbnails(images: Tensor, side: int = THUMBNAIL_SIDE) -> Tensor:
    """Box averages of images.

    Args:
        images: (N, C, H, W), each side at least `side`.
        side: of the thumbnails, in pixels.

    Returns:
        (N, C, side, side), of the same range.

    Raises:
        ValueError: the images are smaller than the thumbnails.
    """
    if images.ndim != 4 or min(images.shape[2:]) < side:
        raise ValueError(
            f"got images of shape {tuple(images.shape)}; expected (N, C, H, W) with sides of "
            f"at least {side}"
        )
    return area_resize(images.float(), side)


def concept_rank(sample: Tensor, pool: Tensor, names: Sequence[str], *, concept: str) -> int:
    """How many images of other concepts are nearer to the sample than its own concept is.

    Args:
        sample: one thumbnail, (3, s, s).
        pool: real thumbnails, (N, 3, s, s), over the same background as was asked for.
        names: what they show, N of them.
        concept: what the sample is to show; must be in the pool.

    Returns:
        0 when its own concept is nearest (L2 distance of pixels). An image of another concept
        that is exactly as near does not count: there are equal images with two names.

    Raises:
        ValueError: shapes do not fit, numbers are not finite, or the concept is not in the pool.
    """
    if sample.shape != pool.shape[1:] or len(pool) != len(names):
        raise ValueError(
            f"got a sample {tuple(sample.shape)}, a pool {tuple(pool.shape)} and "
            f"{len(names)} names; expected (3, s, s), (N, 3, s, s) and N"
        )
    distances = (pool.double() - sample.double()).square().flatten(1).sum(1)
    if not bool(distances.isfinite().all()):
        raise ValueError("got images with numbers that are not finite; expected [-1, 1]")
    own = torch.tensor([name == concept for name in names], dtype=torch.bool)
    if not bool(own.any()):
        raise ValueError(f"got the concept {concept!r}, which the pool lacks; expected one of it")
    return int((distances[~own] < distances[own].min()).sum())
