"""Images of other programs become a sample set: each is paired with a prompt of a suite.

How, in this order: GenEval's layout (`00000/metadata.jsonl` beside `00000/samples/*.png`); captions
that the data bring (shards, `metadata.jsonl` or `.csv`, a `.txt` beside each image); the recipe or
the `parameters` text that a PNG carries; or else by sorted order, as many images a prompt.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

from PIL import Image

from calotype.cascade.image_files import FORMATS
from calotype.data.columns import Selection
from calotype.data.images import BrokenImage, decode_image
from calotype.data.open import open_part, parts
from calotype.data.source import EncodedSource
from calotype.errors import UsageError
from calotype.evaluation.samples.encoded import Encoded, write_encoded
from calotype.evaluation.samples.manifest import Manifest, SuiteNote, write_manifest
from calotype.evaluation.samples.shard import Sample, encoding_of
from calotype.evaluation.suites.suite import Suite
from calotype.storage.json_lines import read_lines

_SHOWN = 3
_PARAMETERS_END = re.compile(r"\n(Negative prompt:|Steps: )")


@dataclass(frozen=True)
class _Pairing:
    """Pairs of an image's and its prompt's number, and how they were found.

    `unknown` captions are of no prompt.
    """

    way: str
    pairs: list[tuple[int, int]]
    unknown: tuple[str, ...] = ()


def import_samples(
    source: Path, suite: Suite, out: Path, *, say: Callable[[str], None] = lambda text: None
) -> Manifest:
    """Write the images at `source`, as they are encoded, into the sample set `out`.

    Args:
        source: a folder of images, or anything that training takes.
        suite: whose prompts they are of; prompts without an image are listed in the manifest.
        out: folder of the set.
        say: told how images and prompts were paired, with the first pairs.

    Raises:
        UsageError: images cannot be paired or read, or `out` holds other samples.
        CalotypeError: the disk is full.
    """
    images = open_part(source.resolve(), parts(source)[-1], Selection(split=None, variants=1))
    order = sorted(range(len(images)), key=lambda number: _natural(images.key(number)))
    found = _paired(images, order, suite)
    if not found.pairs:
        raise UsageError(
            f"got {len(images)} images in {source}, none of a prompt of {suite.name!r}; expected "
            f"captions such as {suite.prompts[0].caption!r:.80}"
        )
    having = {prompt for _, prompt in found.pairs}
    missing = tuple(p.id for place, p in enumerate(suite.prompts) if place not in having)
    _tell(say, images, suite, found)
    if missing:
        say(f"  {len(missing)} prompts have no image, as {missing[0]!r}")
    text = json.dumps([images.fingerprint, suite.sha256, [p.id for p in suite.prompts], found.way])
    made_of = sha256(text.encode()).hexdigest()
    facts = write_encoded(out, _samples(found, suite), partial(_checked, images), made_of)
    manifest = Manifest(
        name=source.resolve().name,
        suite=SuiteNote.of(suite),
        seed=None,
        origin={"paired_by": found.way, "unknown_captions": len(found.unknown)},
        missing=missing,
        **facts,
    )
    write_manifest(out, manifest)
    return manifest


def _tell(say: Callable[[str], None], images: EncodedSource, suite: Suite, found: _Pairing) -> None:
    say(f"{len(found.pairs)} images of {images.root} paired by {found.way}, for example")
    for number, prompt in found.pairs[:_SHOWN]:
        say(f"  {images.key(number)}: {suite.prompts[prompt].caption!r:.100}")
    if found.unknown:
        say(f"  passed over: {len(found.unknown)} captions of no prompt, as {found.unknown[0]!r}")


def _samples(found: _Pairing, suite: Suite) -> list[tuple[int, Sample]]:
    """The set's rows, in the prompts' order, each with the number of its image."""
    counts: dict[int, int] = defaultdict(int)
    samples = []
    for number, place in sorted(found.pairs, key=lambda pair: pair[1]):
        prompt, index = suite.prompts[place], counts[place]
        key = f"{place:06d}-{index}"
        sample = Sample(key, prompt.caption, prompt.id, prompt.category, index, None)
        samples.append((number, sample))
        counts[place] += 1
    return samples


def _checked(images: EncodedSource, number: int, sample: Sample) -> Encoded:
    """An image's file, and its height and width; broken and animated ones are refused."""
    try:
        data = images.image_bytes(number)
        height, width = decode_image(data).shape[:2]
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            frames = int(getattr(image, "n_frames", 1))
    except BrokenImage as error:
        name = images.key(number)
        raise UsageError(f"cannot read the image {name}: {error}; mend it or move it") from error
    if frames > 1:
        name = images.key(number)
        raise UsageError(f"got {name}, which holds {frames} images; expected one: save one of them")
    return data, (height, width)


def _paired(images: EncodedSource, order: Sequence[int], suite: Suite) -> _Pairing:
    """The first way in which all images have captions, or else their order."""
    ways: dict[str, Callable[[int], str | None]] = {
        "GenEval's layout": _geneval_captions(images, order),
        "captions": lambda number: next((c.text for c in images.captions(number)), None),
        "what the PNGs carry": lambda number: _carried(images.image_bytes(number)),
    }
    for way, caption_of in ways.items():
        first = caption_of(order[0])
        if first is None:
            continue
        captions = {number: caption_of(number) for number in order}
        without = [number for number, caption in captions.items() if caption is None]
        if without:
            raise UsageError(
                f"{len(without)} of {len(order)} images have no caption ({way}), as "
                f"{images.key(without[0])}; expected one of each"
            )
        return _by_caption(way, {n: c for n, c in captions.items() if c is not None}, suite)
    count, prompts = len(order), len(suite.prompts)
    if count % prompts:
        raise UsageError(
            f"got {count} images without captions for {prompts} prompts; expected as many images "
            "of each, in the prompts' order, or captions beside them"
        )
    each = count // prompts
    pairs = [(number, place // each) for place, number in enumerate(order)]
    return _Pairing("sorted order", pairs)


def _by_caption(way: str, captions: dict[int, str], suite: Suite) -> _Pairing:
    prompts: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(suite.prompts):
        prompts[_plain(prompt.caption)].append(place)
    members: dict[str, list[int]] = defaultdict(list)
    for number, caption in captions.items():
        members[_plain(caption)].append(number)
    pairs = []
    for caption, numbers in members.items():
        places = prompts.get(caption, [])
        if places:  # prompts of one caption share its images, as evenly as they go
            shared = (i * len(places) // len(numbers) for i in range(len(numbers)))
            pairs += [(number, places[i]) for number, i in zip(numbers, shared, strict=True)]
    unknown = tuple(caption for caption in members if caption not in prompts)
    return _Pairing(way, pairs, unknown)


def _geneval_captions(images: EncodedSource, order: Sequence[int]) -> Callable[[int], str | None]:
    """Captions by `NAME/metadata.jsonl` of images NAME/samples/...; None where there is none."""
    prompts: dict[str, str | None] = {}

    def caption(number: int) -> str | None:
        name, _, rest = images.key(number).partition("/")
        if not rest.startswith("samples/"):
            return None
        if name not in prompts:
            path = images.root / name / "metadata.jsonl"
            try:
                line = next(read_lines(path), {})
            except OSError:
                line = {}
            text = line.get("prompt")
            prompts[name] = text if isinstance(text, str) else None
        return prompts[name]

    return caption


def _carried(data: bytes) -> str | None:
    """The caption that a PNG carries: calotype's recipe, or `parameters` of AUTOMATIC1111."""
    if encoding_of(data) != "png":
        return None
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            image.load()
            texts = dict(image.info)
        if isinstance(recipe := texts.get("calotype"), str):
            caption = json.loads(recipe).get("caption")
            return caption if isinstance(caption, str) else None
    except (OSError, ValueError, AttributeError, Image.DecompressionBombError):
        return None
    parameters = texts.get("parameters")
    return _PARAMETERS_END.split(parameters)[0] if isinstance(parameters, str) else None


def _plain(caption: str) -> str:
    """A caption without what programs change of it: the space around and between its words."""
    return " ".join(caption.split())


def _natural(name: str) -> list[tuple[int, int, str]]:
    """So that image-2 comes before image-10."""
    parts = re.split(r"(\d+)", name)
    return [(1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts)]
