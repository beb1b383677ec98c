"""How well a CLIP finds the caption of an image, and the image of a caption, among fifty.

Every pool holds examples of one style and of different concepts, so that neither style nor luck
helps. What a split lacks to a full pool is filled up with training examples, which are looked
through but not looked for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calotype.data.batch import BatchPlan
from calotype.data.batches import each_example
from calotype.data.painting import composite
from calotype.data.source import ExampleSource
from calotype.diffusion import PerSampleNoise, add_noise
from calotype.tasks.validation import PROBE_SEED
from calotype.vision.clip import ClipModel

POOL = 50
_WAYS = ("image to text", "text to image")
RATIOS = (0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""sigma/alpha at which a CLIP of noisy images is validated."""
_WHITE = np.full((1, 3), 255, np.float32)


@dataclass(frozen=True)
class Shown:
    """An example to look for: its image (3, R, R), first caption, concept and style."""

    image: Tensor
    caption: str
    concept: str
    style: str


@dataclass(frozen=True)
class Pool:
    """Examples of one style; the first `wanted` of them are looked for."""

    style: str
    wanted: int
    shown: tuple[Shown, ...]


Pools = Sequence[Pool]


def read_shown(source: ExampleSource, plan: BatchPlan, *, most: int) -> list[Shown]:
    """The first `most` examples of a source with captions, on white, with their first captions."""
    found = list[Shown]()
    for example in each_example(source, plan):
        if len(found) == most:
            break
        if example.captions:
            caption = example.captions[0]
            concept = caption.concept or caption.text
            x = torch.from_numpy(composite(example.image[None], _WHITE)).permute(0, 3, 1, 2)[0]
            style = caption.text.removeprefix(concept).strip(", ")
            found.append(Shown(x, caption.text, concept, style))
    return found


def make_pools(shown: Sequence[Shown], others: Sequence[Shown]) -> list[Pool]:
    """Pools of `POOL` examples of one style.

    Args:
        shown: to look for; in pools of different concepts, in their order.
        others: fill up the last pool of a style.
    """
    by_style = defaultdict[str, list[Shown]](list)
    for one in shown:
        by_style[one.style].append(one)
    pools = []
    for style, left in by_style.items():
        fill = [one for one in others if one.style == style]
        while left:
            taken = _of_different_concepts(left, POOL)
            numbers = {id(one) for one in taken}
            left = [one for one in left if id(one) not in numbers]
            pool = _of_different_concepts([*taken, *fill], POOL)
            pools.append(Pool(style, len(taken), tuple(pool)))
    return pools


def _of_different_concepts(shown: Iterable[Shown], most: int) -> list[Shown]:
    found = dict[str, Shown]()
    for one in shown:
        if len(found) < most:
            found.setdefault(one.concept, one)
    return list(found.values())


def retrieval(model: ClipModel, pools: Pools, *, ratios: Sequence[float] = ()) -> dict[str, float]:
    """Fractions found first, and among the first five: of both ways, of each way, of each style.

    Args:
        model: the CLIP.
        pools: to look in.
        ratios: sigma/alpha of noise at which it is also measured what is found first, both ways.

    Returns:
        Named "R@1", "R@1 at sigma/alpha 0.5", "image to text R@5", "noto style R@1" and so on; each
        in [0, 1].
    """
    ranks: dict[str, list[Tensor]] = defaultdict(list)
    noisy: dict[str, list[Tensor]] = defaultdict(list)
    for pool in pools:
        x = torch.stack([one.image for one in pool.shown])
        texts = model.embed_texts([one.caption for one in pool.shown])
        for way, rank in zip(_WAYS, _ranks(model.embed_images(x), texts), strict=True):
            for name in {way, "", pool.style}:
                ranks[name].append(rank[: pool.wanted])
        eps = PerSampleNoise(range(PROBE_SEED, PROBE_SEED + len(x))).normal(x.shape)
        for ratio in ratios:
            logsnr = torch.full((len(x),), -2 * math.log(ratio))
            images = model.embed_images(add_noise(x, logsnr, eps), logsnr)
            for rank in _ranks(images, texts):
                noisy[at_level(ratio)].append(rank[: pool.wanted])
    found = {f"R@{most}": _fraction(ranks[""], most) for most in (1, 5)}
    found |= {name: _fraction(rank, 1) for name, rank in noisy.items()}
    for name in (*_WAYS, *sorted(ranks.keys() - {"", *_WAYS})):
        found |= {f"{name} R@{most}": _fraction(ranks[name], most) for most in (1, 5)}
    return found


def at_level(ratio: float) -> str:
    """What the fraction found first at this sigma/alpha is called."""
    return f"R@1 at sigma/alpha {ratio:g}"


def _ranks(images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
    """At which place each image finds its caption, and each caption its image; 0 = first."""
    alike = images @ texts.T
    own = alike.diagonal()[:, None]
    return (alike >= own).sum(1) - 1, (alike.T >= own).sum(1) - 1  # a tie is no find


def _fraction(ranks: Sequence[Tensor], most: int) -> float:
    return round(float((torch.cat(list(ranks)) < most).double().mean()), 4)
