"""Sample a suite's prompts into sample sets: one, or several that differ in their settings.

The work list is cut into shards of a fixed number of images. A shard is written once, under its
name, when it is whole, and is found there by the next run; whoever samples it, its images come out
of the same batches. Settings that share their first stages share what those sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cascade.pixels import to_pixels
from calotype.cascade.png import encode_png
from calotype.cascade.recipe import image_id
from calotype.cascade.results import drain
from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.samples.manifest import (
    Manifest,
    ShardNote,
    SuiteNote,
    write_manifest,
)
from calotype.evaluation.samples.prompts import read_prompts
from calotype.evaluation.samples.shard import (
    SHARD_IMAGES,
    Sample,
    shard_note,
    shard_path,
    write_sample_shard,
)
from calotype.evaluation.suites.suite import Suite
from calotype.generation.cascade import CascadeGenerator, Job
from calotype.generation.executors import Executor
from calotype.generation.generator import ImageGenerator, Made
from calotype.generation.variants import sample_variants
from calotype.launch import launched_place
from calotype.storage.reading import file_sha256

if TYPE_CHECKING:
    from calotype.cascade.results import Preview

_ENCODERS = 4
"""Threads that encode images, which holds no lock."""


@dataclass(frozen=True)
class SetJob:
    """One of the sets: its folder, absolute, what samples it, and the recipe that all images have.

    Args:
        folder: of the set.
        settings: as `open` of the job takes them.
        common: recipe of its images, but for what each has of its own.
    """

    folder: Path
    settings: Any
    common: dict[str, Any]


@dataclass(frozen=True)
class SampleJob:
    """What every process has to know.

    Args:
        sets: at least one; several are of one cascade, and differ in sampling settings alone.
        open: loads what samples; a function of a module.
        prompts: file of the prompts, absolute, as `write_prompts` wrote it.
        total: of the images of a set.
        each: images of a prompt.
        seed: of which all seeds are made.
        shard_images: of a shard.
    """

    sets: tuple[SetJob, ...]
    open: Callable[[Any], ImageGenerator[Any]]
    prompts: Path
    total: int
    each: int
    seed: int
    shard_images: int = SHARD_IMAGES

    @property
    def shards(self) -> range:
        """Numbers of all shards."""
        return range(-(-self.total // self.shard_images))

    @property
    def captioned(self) -> bool:
        """Whether what samples is told the prompts; a cascade without text takes none."""
        settings = self.sets[0].settings
        return not isinstance(settings, Job) or settings.model.config.text_encoder != "none"

    def made_of(self, own: SetJob) -> str:
        """One hexadecimal name for all that decides the images of a set."""
        parts = [
            image_id({**own.common, "caption": "", "seed": 0}),
            file_sha256(self.prompts),
            [self.each, self.seed, self.shard_images],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def seed_of(prompt: str, index: int, *, seed: int) -> int:
    """The seed of image `index` of the prompt with this id.

    It depends on nothing else, so that part of a suite, or more images of a prompt, have the images
    of the whole.
    """
    digest = hashlib.sha256(f"{seed} {index} {prompt}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:7])


@dataclass(frozen=True)
class _Encoded:
    """An image whose pixels are let go of once they are encoded."""

    recipe: dict[str, Any]
    size: tuple[int, ...]
    png: Future[bytes]

    @classmethod
    def of(cls, made: Made, encoders: ThreadPoolExecutor) -> _Encoded:
        return cls(made.recipe, made.pixels.shape[:2], encoders.submit(encode_png, made.pixels))


class ShardSampler:
    """Holds what samples, and samples shards of all sets."""

    def __init__(self, job: SampleJob, show: Callable[[Preview], None] | None = None) -> None:
        self.job = job
        self._show = show or (lambda preview: None)
        self._prompts = read_prompts(job.prompts)
        self._made_of = [job.made_of(own) for own in job.sets]
        self._generator: ImageGenerator[Any] | None = None  # a rerun may have nothing to sample

    def __call__(self, number: int) -> int:
        """Sample what is not there of a shard; how many images it has."""
        job = self.job
        paths = [shard_path(own.folder, number) for own in job.sets]
        there = [
            shard_note(path, made_of) is not None
            for path, made_of in zip(paths, self._made_of, strict=True)
        ]
        first = number * job.shard_images
        samples = [self._sample(n) for n in range(first, min(first + job.shard_images, job.total))]
        if all(there):
            return len(samples)
        for path, done in zip(paths, there, strict=True):
            if not done and path.exists():
                raise UsageError(
                    f"{path} holds samples of other settings, or is damaged; choose another folder "
                    "with -o, or move it away"
                )
        missing = [place for place, done in enumerate(there) if not done]
        with ThreadPoolExecutor(_ENCODERS, thread_name_prefix="calotype-png") as encoders:
            made = self._sampled(samples, missing, encoders)
        for place in missing:
            images = [one.png.result() for one in made[place]]
            common, size = _common(made[place][0].recipe), list(made[place][0].size)
            note = {"made_of": self._made_of[place], "recipe": common, "size": size}
            seeded = [
                replace(sample, seed=one.recipe["seed"])  # of the best, where several were sampled
                for sample, one in zip(samples, made[place], strict=True)
            ]
            write_sample_shard(paths[place], seeded, images, note)
        return len(samples)

    def _sample(self, number: int) -> Sample:
        """Row `number` of the set."""
        prompt, index = self._prompts[number // self.job.each], number % self.job.each
        seed = seed_of(prompt.id, index, seed=self.job.seed)
        key = f"{number // self.job.each:06d}-{index}"
        return Sample(key, prompt.caption, prompt.id, prompt.category, index, seed)

    def _sampled(
        self, samples: Sequence[Sample], places: Sequence[int], encoders: ThreadPoolExecutor
    ) -> dict[int, list[_Encoded]]:
        """The images of a shard for the sets at `places`, group by group.

        A group is encoded while the next one is sampled.
        """
        job = self.job
        if self._generator is None:
            self._generator = job.open(job.sets[0].settings)
        generator = self._generator
        made: dict[int, list[_Encoded]] = {place: [] for place in places}
        for start in range(0, len(samples), generator.group):
            group = samples[start : start + generator.group]
            captions = [sample.caption if job.captioned else "" for sample in group]
            seeds = [sample.seed or 0 for sample in group]
            found: Iterable[list[Made]]
            if len(job.sets) == 1:
                plan = generator.plan(captions, seeds)
                found = [drain(generator.generate(plan), self._show)]
            else:
                assert isinstance(generator, CascadeGenerator)
                found = _variants(generator, job, places, captions, seeds)
            for place, images in zip(places, found, strict=True):
                made[place] += [_Encoded.of(one, encoders) for one in images]
        return made


def _common(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without what each image has of its own; whether the best were chosen stays."""
    common = {key: value for key, value in recipe.items() if key not in ("caption", "seed")}
    if "best_of" in common:
        own = ("seed", "scores")
        common["best_of"] = {k: v for k, v in common["best_of"].items() if k not in own}
    return common


def _variants(
    generator: CascadeGenerator,
    job: SampleJob,
    places: Sequence[int],
    captions: Sequence[str],
    seeds: Sequence[int],
) -> Iterator[list[Made]]:
    """The images of a group for each of several sets of one cascade."""
    plans = []
    for place in places:
        settings: Job = job.sets[place].settings
        options = settings.options(captions, seeds)
        plans.append(generator.cascade.plan(captions, seeds=seeds, **options))
    for plan, images in zip(plans, sample_variants(generator.cascade, plans), strict=True):
        yield [
            Made(pixels, generator.recipe(plan, row))
            for row, pixels in enumerate(to_pixels(images))
        ]


def sample_sets(
    job: SampleJob,
    suite: Suite,
    *,
    executor: Executor,
    show: Callable[[Preview], None],
    on_shard: Callable[[int], None],
) -> None:
    """Sample what is not there of all sets, and write their manifests.

    Args:
        job: the work.
        suite: whose prompts were written with `write_prompts`.
        executor: who samples.
        show: called with every preview, if this process samples.
        on_shard: called with the number of images of each shard that is there.

    Raises:
        UsageError: a folder holds other samples.
        CalotypeError: an image cannot be made or written, or a process died.
    """
    here = partial(ShardSampler, show=show)
    for images in executor.results(list(job.shards), ShardSampler, job, here=here):
        on_shard(images)
    if launched_place().rank > 0:
        return
    for own in job.sets:
        write_manifest(own.folder, _manifest(job, own, suite))


def _manifest(job: SampleJob, own: SetJob, suite: Suite) -> Manifest:
    """What is to be said of a set whose shards are all there."""
    made_of, paths = job.made_of(own), [shard_path(own.folder, number) for number in job.shards]
    notes, shards = [], []
    for path in paths:
        note = shard_note(path, made_of)
        if note is None:
            raise CalotypeError(f"{path} was written and is gone or damaged; sample it again")
        notes.append(note)
        shards.append(ShardNote(file=path.name, rows=note["rows"], sha256=file_sha256(path)))
    recipe, (height, width) = notes[0]["recipe"], notes[0]["size"]
    return Manifest(
        name=str(recipe["model"]["name"]),
        suite=SuiteNote.of(suite),
        count=job.total,
        each=job.each,
        seed=job.seed,
        size=(height, width),
        encoding="png",
        shards=tuple(shards),
        recipe=recipe,
    )
