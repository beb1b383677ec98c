"""The best of several images of a caption: candidates at the first stage, ranked by a CLIP.

The best alone is enlarged. This is how DALL-E's samples were chosen: Ramesh et al. 2021, section
2.6, arXiv:2102.12092.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.generation.generator import Made, StagedGenerator
from calotype.vision.clip import ClipFile, ClipModel, load_clip

if TYPE_CHECKING:
    from calotype.cascade.results import Preview


@dataclass(frozen=True)
class BestOfPlan:
    """Images that are each the best of `count` candidates; those of an image follow one another."""

    captions: tuple[str, ...]
    count: int
    candidates: Any

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        size: tuple[int, int] = self.candidates.size
        return size

    def rows(self, rows: slice) -> BestOfPlan:
        """The plan of some of the images."""
        start, stop, _ = rows.indices(len(self.captions))
        part = self.candidates.rows(slice(start * self.count, stop * self.count))
        return BestOfPlan(self.captions[rows], self.count, part)


class BestOf:
    """An `ImageGenerator` that makes each image `count` times, and keeps the best.

    Args:
        inner: makes the candidates.
        clip: ranks them.
        count: candidates of an image; their seeds are the image's and those that follow.
    """

    def __init__(self, inner: StagedGenerator[Any], clip: ClipModel, count: int) -> None:
        self.inner = inner
        self.clip = clip
        self.count = count
        self.group = max(1, inner.group // count)

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> BestOfPlan:
        """What is to be made; nothing is computed."""
        repeated = [caption for caption in captions for _ in range(self.count)]
        following = [seed + number for seed in seeds for number in range(self.count)]
        return BestOfPlan(tuple(captions), self.count, self.inner.plan(repeated, following))

    def generate(self, plan: BestOfPlan) -> Generator[Preview, None, list[Made]]:
        """The best of each image's candidates, with the scores of all in its recipe."""
        images = yield from self.inner.begin(plan.candidates)
        repeated = [caption for caption in plan.captions for _ in range(self.count)]
        scores = self.clip.scores(images, repeated).view(-1, self.count)
        best = scores.argmax(1).tolist()
        rows = [number * self.count + place for number, place in enumerate(best)]
        seeds = [self.inner.recipe(plan.candidates, row)["seed"] for row in rows]
        chosen = self.inner.plan(plan.captions, seeds)
        made = yield from self.inner.finish(chosen, images[rows])
        for number, one in enumerate(made):
            ranked = [round(score, 3) for score in scores[number].tolist()]
            one.recipe["best_of"] = {**self.recipe(plan, number)["best_of"], "scores": ranked}
        return made

    def recipe(self, plan: BestOfPlan, row: int) -> dict[str, Any]:
        """The recipe of the first candidate, and what it is the first of; scores are not known."""
        recipe = self.inner.recipe(plan.candidates, row * self.count)
        return with_best_of(recipe, self.count, self.clip.file)


def best_of(
    inner: StagedGenerator[Any], count: int | None, clip: str | Path | None
) -> StagedGenerator[Any] | BestOf:
    """The generator itself, or with a `count` one that keeps the best by the CLIP `clip`."""
    return inner if count is None else BestOf(inner, load_clip(clip), count)


def with_best_of(recipe: dict[str, Any], count: int, clip: ClipFile) -> dict[str, Any]:
    """A recipe of the first candidate as that of the best of `count`."""
    note = {"count": count, "seed": recipe["seed"], "clip": clip.name, "clip_sha256": clip.sha256}
    return {**recipe, "best_of": note}
