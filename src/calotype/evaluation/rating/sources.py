"""The sets of a study opened, and the prompts that all of them have."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from calotype.errors import UsageError
from calotype.evaluation.rating.sides import Source
from calotype.evaluation.rating.trials import Asked
from calotype.evaluation.rating.wanted import Wanted
from calotype.evaluation.samples import SampleSet, is_sample_set, open_samples
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.suites.coco import NAMES_PEOPLE
from calotype.evaluation.suites.reading import read_suite

_MOST_CAPTION = 10_000  # characters a person can be asked to read
_SIDES = (8, 2048)


@contextmanager
def opened_sources(wanted: Wanted) -> Iterator[list[Source]]:
    """The sets; plain folders of images are read into sets that last as long as the block."""
    with tempfile.TemporaryDirectory() as temporary:

        def opened(number: int, path: Path) -> SampleSet:
            if is_sample_set(path):
                return open_samples(path)
            if wanted.suite is None or not path.is_dir():
                raise UsageError(
                    f"got {path}, no sample set, as it has no manifest.json; expected one, or "
                    "a folder of images and --suite, which says the prompts they are of"
                )
            import_samples(path, read_suite(wanted.suite), out := Path(temporary) / str(number))
            return open_samples(out)

        sources = [
            Source(
                name=name,
                samples=opened(number, path),
                folder=path,
                best_of=wanted.best_of.get(name),
                transform=wanted.transforms.get(name),
            )
            for number, (name, path) in enumerate(wanted.sets.items())
        ]
        if wanted.reference is not None:
            path = wanted.reference
            samples = opened(len(sources), path)
            sources.append(Source("reference", samples, path, is_reference=True))
        yield sources


def side_of(sources: Sequence[Source], size: int | None) -> int:
    """Width and height of all images of the study."""
    if size is None:
        sizes = [source.samples.manifest.size for source in sources]
        if None in sizes:
            raise UsageError("got a set whose images differ in size; give --size in pixels")
        size = min(_SIDES[1], *(min(one) for one in sizes if one is not None))
    if not _SIDES[0] <= size <= _SIDES[1]:
        raise UsageError(f"got images of {size} pixels; expected {_SIDES[0]} to {_SIDES[1]}")
    return size


def common_prompts(sources: Sequence[Source], wanted: Wanted) -> list[Asked]:
    """The prompts that all sets have, in the order of the first."""
    known = [_asked(source.samples) for source in sources]
    common = [prompt for prompt in known[0] if all(prompt in other for other in known)]
    for source, prompts in zip(sources, known, strict=True):
        missing = [prompt for other in known for prompt in other if prompt not in prompts]
        if missing and not wanted.common:
            raise UsageError(
                f"the set {source.name!r} lacks {len(set(missing))} prompts of the others, as "
                f"{missing[0]!r}; sample them, or rate what all have with --common"
            )
    if not common:
        raise UsageError("got sets that share no prompt; expected samples of one suite")
    for prompt in common:
        captions = {prompts[prompt].caption for prompts in known}
        if len(captions) > 1:
            raise UsageError(f"got different captions of the prompt {prompt!r}; expected one suite")
        if len(known[0][prompt].caption) > _MOST_CAPTION:
            raise UsageError(
                f"got a caption of {len(known[0][prompt].caption):,} characters, of the prompt "
                f"{prompt[:80]!r}; people are asked to read at most {_MOST_CAPTION:,}"
            )
    asked = [known[0][prompt] for prompt in common]
    return [_split(prompt) for prompt in asked] if wanted.split_people else asked


def _asked(samples: SampleSet) -> dict[str, Asked]:
    return {
        sample.prompt: Asked(sample.prompt, sample.caption, sample.category)
        for sample in samples.samples
    }


def _split(prompt: Asked) -> Asked:
    name = "with people" if NAMES_PEOPLE.search(prompt.caption) else "without people"
    return dataclasses.replace(prompt, category=name)
