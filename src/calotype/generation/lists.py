"""Images of a long list of captions: by this process, several, or the actors of a Ray cluster.

The list is cut into shards of a fixed number of images, and a shard is sampled as one batch by
whoever has it: its images do not depend on who that is. Each is written under another name and
then renamed. An image that is there with the recipe it would get is not written again, and a
shard of such images is not sampled; of a shard that was broken off all are sampled again, so that
the rest comes out of the batch that it would have come out of. Any other file that has the name of
one is refused, before anything is sampled.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cascade.recipe import class_note
from calotype.cascade.results import drain
from calotype.generation.cascade import Job, open_generator
from calotype.generation.executors import Executor
from calotype.generation.generator import ImageGenerator
from calotype.generation.outputs import OWN, Output, holds_image, numbered_name
from calotype.generation.prompts import PromptFile, PromptShard, PromptShards, shard_captions
from calotype.storage.files import remove_leftovers

if TYPE_CHECKING:
    from calotype.cascade.results import Preview


@dataclass(frozen=True)
class ListJob:
    """What every process has to know.

    Args:
        settings: all but captions and seeds.
        prompts: the captions.
        repeats: images of each, with seeds `seed`, `seed` + 1, ...
        seed: of the first image.
        output: name that the images' names are made of, absolute.
        replace: whether `output` may be replaced: it was given, and for one image.
        write_captions: write a text file beside each image.
    """

    settings: Job
    prompts: PromptFile
    repeats: int
    seed: int
    output: Path
    replace: bool = False
    write_captions: bool = False

    @property
    def total(self) -> int:
        """Number of images."""
        return self.prompts.captions * self.repeats

    def place(self, number: int) -> Output:
        """Where an image goes."""
        name = numbered_name(self.output, number, self.total)
        return Output((name,), replace=self.replace, write_caption=self.write_captions)

    def seed_of(self, number: int) -> int:
        """The first seed of an image."""
        return self.seed + number % self.repeats * (self.settings.best_of or 1)

    def recipe_of(self, recipe: dict[str, Any], number: int, caption: str) -> dict[str, Any]:
        """The recipe of an image of the list, made of that of any of its images."""
        seed = self.seed_of(number)
        own = {**recipe, "caption": caption, "seed": seed}
        own |= class_note(self.settings.class_of(seed))
        return {**own, "best_of": {**own["best_of"], "seed": seed}} if "best_of" in own else own

    def check(self, recipe: dict[str, Any]) -> None:
        """Refuse files that have the name of an image of the list, and are not that image.

        Args:
            recipe: of any of its images.

        Raises:
            UsageError: there is one.
        """
        captions = (text for text in self.prompts.read() for _ in range(self.repeats))
        for number, caption in enumerate(captions):
            self.place(number).check(self.recipe_of(recipe, number, caption))

    def shards(self, size: int | None = None) -> PromptShards:
        """The list in shards of `size` images; None = as many as are sampled together."""
        return PromptShards(
            self.prompts, repeats=self.repeats, size=self.settings.group if size is None else size
        )


@dataclass(frozen=True)
class ShardReport:
    """How many images of a shard were sampled and how many were there; what all have in common."""

    made: int
    skipped: int
    common: dict[str, Any]


class ShardGenerator:
    """Holds the cascade and samples shards."""

    def __init__(self, job: ListJob, show: Callable[[Preview], None] | None = None) -> None:
        self.job = job
        self._show = show or (lambda preview: None)
        self._generator: ImageGenerator[Any] = open_generator(job.settings)

    def __call__(self, shard: PromptShard) -> ShardReport:
        """Sample the images of a shard that are not there."""
        job, generator = self.job, self._generator
        numbers = range(shard.first, shard.first + shard.count)
        captions = shard_captions(job.prompts, shard, repeats=job.repeats)
        plan = generator.plan(captions, [job.seed_of(number) for number in numbers])
        recipes = [generator.recipe(plan, row) for row in range(shard.count)]
        places = [job.place(number) for number in numbers]
        missing = []
        for row, place in enumerate(places):
            if not holds_image(place.names[0], recipes[row], whole=True):
                place.check(recipes[row])  # the list's check was before others began theirs
                missing.append(row)
            elif job.write_captions and not place.names[0].with_suffix(".txt").exists():
                place.write_text(place.names[0], recipes[row])
        made = drain(generator.generate(plan), self._show) if missing else []
        for row in missing:
            places[row].write(made[row].pixels, made[row].recipe)
        common = {key: value for key, value in recipes[0].items() if key not in OWN}
        return ShardReport(len(missing), shard.count - len(missing), common)


def generate_list(
    job: ListJob, *, size: int | None, executor: Executor, show: Callable[[Preview], None]
) -> Iterator[ShardReport]:
    """Sample what is not there of a list, shard by shard, in no fixed order.

    Args:
        job: the list.
        size: images of a shard; None = as many as are sampled together.
        executor: who samples.
        show: called with every preview, if this process samples.

    Raises:
        CalotypeError: an image cannot be written, a process died, or the captions changed.
    """
    # What killed writers of the list's images left.
    stem, ending = re.escape(job.output.stem), re.escape(job.output.suffix)
    own = re.compile(rf"{stem}(-[0-9]+)?({ending}|\.txt)")
    remove_leftovers(job.output.parent, own.fullmatch)
    shards = job.shards(size)
    here = functools.partial(ShardGenerator, show=show)
    return executor.results(shards, ShardGenerator, job, here=here)
