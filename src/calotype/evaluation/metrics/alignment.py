"""Does a sample show its caption? CLIP score and R-precision, from stored embeddings.

Reference: Hessel et al. 2021, arXiv:2104.08718, and Saharia et al. 2022, arXiv:2205.11487 (CLIP
score, here without the factor 2.5 and without a cut at 0); Xu et al. 2018, arXiv:1711.10485
(R-precision: the own caption among 99 others).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from calotype.errors import UsageError
from calotype.evaluation.metrics.rows import Features, check_rows, take_unit, tiles

OTHERS = 99


@dataclass(frozen=True)
class Captions:
    """The captions of a suite, C of them, with their embeddings, (C, D)."""

    texts: tuple[str, ...]
    embeddings: Tensor


@dataclass(frozen=True)
class CaptionRanks:
    """How many of `others` captions fit each sample at least as well as its own: (N,) from 0."""

    ranks: Tensor
    others: int

    @property
    def first(self) -> Tensor:
        """Whether the own caption fits best, (N,) bool; their mean is R-precision."""
        return self.ranks == 0


def clip_scores(images: Features, texts: Tensor) -> Tensor:
    """100 times the cosine of each image's embedding with its own caption's.

    Args:
        images: (N, D).
        texts: (N, D), of the caption of each.

    Returns:
        (N,) float64 in [-100, 100].

    Raises:
        UsageError: the shapes differ, or a row is zero or not finite.
    """
    check_rows(images, "image", least=1)
    check_rows(texts, "caption", least=1)
    if images.shape != texts.shape:
        raise UsageError(
            f"got embeddings of images {tuple(images.shape)} and captions {tuple(texts.shape)}; "
            "expected one of each, of one model"
        )
    scores = torch.empty(len(images), dtype=torch.float64)
    for _, rows in tiles(len(images)):
        scores[rows] = 100 * (take_unit(images, rows) * take_unit(texts, rows)).sum(1)
    return scores


def caption_ranks(
    images: Features, own: Sequence[str], captions: Captions, *, seed: int = 0
) -> CaptionRanks:
    """The rank of each sample's own caption among 99 others of the suite.

    Which others depends on the caption and the seed alone, so that equal captions meet the same
    ones in any order and any number of processes. Captions that differ only in case and spaces
    count as equal, and are never among the others. One that fits exactly as well as the own counts
    against it.

    Args:
        images: embeddings, (N, D).
        own: the caption of each, N of them, all among the captions.
        captions: what the others are chosen from; of fewer than 100 different ones, all are taken.
        seed: of the choice.

    Raises:
        UsageError: a caption is missing, there is only one, or embeddings do not fit.
    """
    check_rows(images, "image", least=1)
    check_rows(captions.embeddings, "caption", least=1)
    if images.shape[1] != captions.embeddings.shape[1] or len(own) != len(images):
        raise UsageError(
            f"got embeddings of images {tuple(images.shape)} and captions "
            f"{tuple(captions.embeddings.shape)}, and {len(own)} captions of samples; expected "
            "(N, D), (C, D) and N"
        )
    places: dict[str, int] = {}
    for place, text in enumerate(captions.texts):
        places.setdefault(_plain(text), place)
    if len(places) < 2:
        raise UsageError(f"got {len(places)} different captions to rank; expected at least 2")
    count = min(OTHERS, len(places) - 1)
    names = sorted(places)
    chosen: dict[str, Tensor] = {}
    ranks = torch.zeros(len(images), dtype=torch.long)
    for row, caption in enumerate(map(_plain, own)):
        if caption not in places:
            raise UsageError(f"sample {row} has a caption that the suite lacks: {own[row]!r:.80}")
        if caption not in chosen:
            others = _choose(caption, names, count, seed)
            chosen[caption] = torch.tensor([places[name] for name in (caption, *others)])
        texts = take_unit(captions.embeddings, chosen[caption])
        fits = texts @ take_unit(images, torch.tensor([row]))[0]
        ranks[row] = (fits[1:] >= fits[0]).sum()
    return CaptionRanks(ranks, count)


def _choose(caption: str, names: Sequence[str], count: int, seed: int) -> list[str]:
    """As many others as `count`, each as likely."""
    digest = hashlib.sha256(f"{seed}\0{caption}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    order = generator.choice(len(names), count + 1, replace=False)
    return [names[number] for number in order if names[number] != caption][:count]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
