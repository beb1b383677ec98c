"""A suite of a data set's own captions: for each prompt there is a real image.

With them a score of samples has one beside it of what samples are to be.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from calotype.cascade.png import encode_png
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import open_part
from calotype.errors import UsageError
from calotype.evaluation.reference import ImageList, Which, check_images, real_images
from calotype.evaluation.samples.encoded import Encoded, write_encoded
from calotype.evaluation.samples.manifest import Manifest, SuiteNote, write_manifest
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.samples.sample_set import SampleSet
from calotype.evaluation.samples.shard import Sample
from calotype.evaluation.suites.suite import Prompt, Suite, first_by_hash


@dataclass(frozen=True)
class RealSuite:
    """Prompts, and the real image of each, in the same order."""

    suite: Suite
    images: ImageList


def real_suite(
    data: Path, count: int, *, side: int, split: str | None, grammar: CaptionGrammar
) -> RealSuite:
    """The first captions of `count` images of a data set, chosen by hash of their names.

    Args:
        data: anything that training takes.
        count: of the images.
        side: pixels of the images, which decides among shards by size.
        split: that is taken, where there are splits; None = all.
        grammar: makes captions of rows that have none but name, keywords and style.

    Raises:
        UsageError: there are fewer images, or one has no caption.
    """
    which = Which(split, count)
    check_images(data, least=count, side=side, which=which)
    images = _in_hash_order(real_images(data, side=side, which=which))
    part = images.data
    source = open_part(part.path, part.part, replace(part.selection, grammar=grammar))
    prompts = []
    for number, key in zip(images.numbers, images.names, strict=True):
        caption = next((one.text for one in source.captions(number)), "")
        if not caption.strip():
            raise UsageError(
                f"got the image {key!r:.200} of {data} without a caption; expected data in which "
                "every image has one"
            )
        prompts.append(Prompt(key, caption))
    name = f"captions of {data.resolve().name}"
    choices = {
        "prompts": f"{count} of {part.length}, first by SHA-256 of the image's name",
        "captions": "the first of each image",
        "split": split,
    }
    texts = json.dumps([[prompt.id, prompt.caption] for prompt in prompts])
    digest = sha256(texts.encode("utf-8", "surrogatepass")).hexdigest()
    return RealSuite(Suite(name, tuple(prompts), digest, choices), images)


def _in_hash_order(images: ImageList) -> ImageList:
    """The same images, so that the first few are as different as all are."""
    order = first_by_hash(images.names, len(images))
    known = {name: place for place, name in enumerate(images.names)}
    places = [known[name] for name in order]
    return replace(
        images,
        numbers=tuple(images.numbers[place] for place in places),
        names=tuple(order),
        hashes=tuple(images.hashes[place] for place in places),
    )


def write_real_samples(folder: Path, real: RealSuite, side: int) -> SampleSet:
    """Write the real images, `side` pixels wide, as a sample set; what is there is kept.

    Raises:
        UsageError: `folder` holds other samples.
        CalotypeError: it cannot be written to.
    """

    def read(number: int, sample: Sample) -> Encoded:
        pixels = real.images.pixels([number], side)[0].permute(1, 2, 0).numpy()
        return encode_png(pixels), (side, side)

    rows = [
        (number, Sample(f"{number:06d}-0", prompt.caption, prompt.id, prompt.category, 0, None))
        for number, prompt in enumerate(real.suite.prompts)
    ]
    write_prompts(folder, real.suite)
    made_of = json.dumps([real.images.fingerprint, real.suite.sha256, side])
    facts = write_encoded(folder, rows, read, sha256(made_of.encode()).hexdigest())
    manifest = Manifest(
        name=f"real images of {real.images.data.path.name}",
        suite=SuiteNote.of(real.suite),
        seed=None,
        origin={"paired_by": "the data's own captions"},
        **facts,
    )
    write_manifest(folder, manifest)
    return SampleSet(folder, manifest)
