"""How well a CLIP finds the caption of an image, and the image of a caption, among fifty.

Every pool holds examples of one style and of different concepts, so that neither style nor luck
helps. What a split lacks to a full pool is filled up with training examples, which are looked
through but not looked for.
"""

from __future__ import annotations

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
from calotype.vision.clip import ClipModel

POOL = 50
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


def retrieval(model: ClipModel, pools: Pools) -> dict[str, float]:
    """Fractions found first, and among the first five: of both ways, of each way, of each style.

    Returns:
        Named "R@1", "image to text R@5", "noto style R@1" and so on; each in [0, 1].
    """
    ranks: dict[str, list[Tensor]] = defaultdict(list)
    for pool in pools:
        images = model.embed_images(torch.stack([one.image for one in pool.shown]))
        texts = model.embed_texts([one.caption for one in pool.shown])
        alike = images @ texts.T
        for way, scores in (("image to text", alike), ("text to image", alike.T)):
            own = scores.diagonal()[:, None]
            rank = ((scores >= own).sum(1) - 1)[: pool.wanted]  # a tie is no find
            for name in {way, "", pool.style}:
                ranks[name].append(rank)
    found = {}
    for name in ("", "image to text", "text to image", *sorted(ranks.keys() - {""})):
        rank = torch.cat(ranks[name])
        for most in (1, 5):
            found[f"{name} R@{most}".strip()] = round(float((rank < most).double().mean()), 4)
    return found
