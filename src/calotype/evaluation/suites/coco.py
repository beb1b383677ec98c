"""COCO's captions as a suite, and COCO-30K: 30,000 captions of different images.

COCO (Lin et al. 2014, arXiv:1405.0312; Chen et al. 2015, arXiv:1504.00325) has about five captions
an image. Papers publish neither which 30,000 they took nor how they cropped, and each choice moves
the number: Latent Diffusion's FID is 19.1 against the validation images and 12.8 against those of
training. So the images and captions are chosen here by hash, the list can be saved and others'
lists be read (`coco_lists`), and every choice is in `Suite.choices`. The reference is the whole
validation set.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from calotype.errors import UsageError
from calotype.evaluation.suites.coco_lists import Listed, read_list
from calotype.evaluation.suites.contents import Contents, read_contents
from calotype.evaluation.suites.suite import Prompt, Suite, first_by_hash, id_hash

COCO_30K = 30_000
SIDE = 256
"""Pixels of the reference images: centre squares, averaged over areas."""
# Prompts that Imagen's "no people" leaves out (Saharia et al. 2022, table 2).
_PEOPLE = (
    "man men woman women person people child adult adults boy boys girl girls guy lady ladies "
    "someone toddler player workers spectators"
).split()
NAMES_PEOPLE = re.compile(rf"\b({'|'.join(_PEOPLE)})\b", re.IGNORECASE)


@dataclass(frozen=True)
class CocoChoices:
    """What is chosen of COCO.

    Args:
        count: captions; None = 30,000, or one an image where there are fewer.
        without_people: leave out captions with one of Imagen's words for people ("words"), or
            images with a person in this file of instances; None = keep all.
        listed: another's list of images, of captions or of both, in place of the hashes.
    """

    count: int | None = None
    without_people: Path | Literal["words"] | None = None
    listed: Path | None = None


@dataclass(frozen=True)
class Coco:
    """A suite of COCO's captions, and what it is measured against.

    Args:
        suite: its prompts' ids are the images' ids; `facts` name the image's file.
        reference: names of the files of the reference images.
    """

    suite: Suite
    reference: tuple[str, ...]


@dataclass(frozen=True)
class _Images:
    """Files' names and captions by image id; captions by their own ids."""

    files: Mapping[str, str]
    captions: Mapping[str, Mapping[str, str]]


def is_coco(data: Any) -> bool:
    """Whether JSON data are COCO's captions."""
    if not isinstance(data, dict) or not isinstance(data.get("images"), list):
        return False
    found = data.get("annotations")
    return isinstance(found, list) and all(
        isinstance(one, dict) and "caption" in one for one in found[:1]
    )


def is_coco_30k(choices: Mapping[str, Any], prompts: int, *, real: int) -> bool:
    """Whether this is what papers call COCO-30K.

    Args:
        choices: of the suite.
        prompts: how many it has.
        real: images that samples are compared with.
    """
    return (
        prompts == COCO_30K
        and choices.get("reference") == _reference_text(real, choices.get("annotations"))
        and choices.get("format") == "COCO"
        and choices.get("people") == "kept"
        and "val2014" in str(choices.get("annotations"))
    )


def read_coco(path: Path, choices: CocoChoices | None = None) -> Coco:
    """A suite of the captions in a file such as `captions_val2014.json`.

    Raises:
        UsageError: it is another file, or the choices cannot be met.
    """
    contents = read_contents(path)
    data = contents.json()
    if not is_coco(data):
        raise UsageError(f"{path} holds no captions of COCO; expected captions_val2014.json")
    return coco_suite(data, contents, choices or CocoChoices())


def coco_suite(data: Any, contents: Contents, choices: CocoChoices) -> Coco:
    """As `read_coco`, of JSON data that `is_coco`."""
    images = _images(data, contents.path)
    reference, people = list(images.files), "kept"
    if isinstance(choices.without_people, Path):
        peopled = _images_with_people(choices.without_people, images)
        reference = [image for image in reference if image not in peopled]
        people = f"images with a person in {choices.without_people.name} are left out"
    listed = None if choices.listed is None else read_list(choices.listed, images.captions)
    chosen = _one_each(images, reference) if listed is None else _of_list(images, listed)
    allowed = set(reference)
    kept = {one.id: one for one in chosen if one.id in allowed}
    if choices.without_people == "words":
        kept = {id_: one for id_, one in kept.items() if not NAMES_PEOPLE.search(one.caption)}
        people = "captions with one of Imagen's words for people (its table 2) are left out"
    prompts = _first(kept, choices, contents.path)
    made: dict[str, Any] = {
        "format": "COCO",
        "annotations": contents.path.name,
        "images": f"{len(prompts)} of {len(images.files)}, "
        + ("first by SHA-256 of the id" if listed is None else listed.how),
        "captions": "one an image, "
        + ("first by SHA-256 of its id" if listed is None or not listed.captions else listed.how),
        "people": people,
        "reference": _reference_text(len(reference), contents.path.name),
        "crop": "centre square",
        "resize": f"area average to {SIDE} x {SIDE}",
    }
    suite = Suite(_name(len(prompts), choices), prompts, contents.sha256, made)
    return Coco(suite, tuple(images.files[image] for image in reference))


def _reference_text(count: int, annotations: Any) -> str:
    return f"{count} images of {annotations}"


def _name(count: int, choices: CocoChoices) -> str:
    name = "coco-30k" if count == COCO_30K else f"coco-{count}"
    return name if choices.without_people is None else f"{name}-without-people"


def _first(kept: Mapping[str, Prompt], choices: CocoChoices, path: Path) -> tuple[Prompt, ...]:
    """As many as were asked for; in the order of a list, or of the hashes."""
    count = choices.count
    if count is None:
        count = len(kept) if choices.listed is not None else min(COCO_30K, len(kept))
    if not 1 <= count <= len(kept):
        raise UsageError(
            f"got {count:,} as the number of captions of different images of {path}; expected 1 "
            f"to {len(kept):,}"
        )
    order = list(kept)[:count] if choices.listed is not None else first_by_hash(kept, count)
    return tuple(kept[image] for image in order)


def _one_each(images: _Images, ids: Iterable[str]) -> list[Prompt]:
    """A prompt for every image with captions: the caption whose id's hash is smallest."""
    return [_prompt(images, image) for image in ids if image in images.captions]


def _of_list(images: _Images, listed: Listed) -> list[Prompt]:
    return [_prompt(images, image, listed.captions.get(image)) for image in listed.images]


def _prompt(images: _Images, image: str, caption: str | None = None) -> Prompt:
    facts: dict[str, Any] = {"image": images.files[image]}
    if caption is None:
        own = images.captions[image]
        facts["caption_id"] = min(own, key=lambda number: (id_hash(number), number))
        caption = own[facts["caption_id"]]
    return Prompt(image, caption, facts=facts)


def _images(data: Mapping[str, Any], path: Path) -> _Images:
    files: dict[str, str] = {}
    captions: dict[str, dict[str, str]] = {}
    try:
        for image in data["images"]:
            files[str(image["id"])] = str(image["file_name"])
        for one in data["annotations"]:
            caption = str(one["caption"]).strip()
            if caption:
                captions.setdefault(str(one["image_id"]), {})[str(one["id"])] = caption
    except (TypeError, KeyError) as error:
        raise UsageError(
            f"{path} is no file of COCO's captions: an image lacks its id or file_name, or a "
            f"caption its id, image_id or caption ({error})"
        ) from error
    if len(files) != len(data["images"]):
        raise UsageError(
            f"{path}: got {len(data['images']):,} images with {len(files):,} ids; expected an id "
            "of its own for each"
        )
    if unknown := next((image for image in captions if image not in files), None):
        raise UsageError(
            f"{path}: got a caption of image {unknown[:80]}, which is not among its images"
        )
    return _Images(dict(sorted(files.items())), captions)


def _images_with_people(path: Path, images: _Images) -> set[str]:
    """Ids of the images in which a person is annotated.

    Raises:
        UsageError: the file holds no instances, or those of other images.
    """
    data = read_contents(path).json()
    try:
        people = {one["id"] for one in data["categories"] if one["name"] == "person"}
        found = {
            str(one["image_id"]) for one in data["annotations"] if one["category_id"] in people
        }
        known = {str(one["id"]) for one in data["images"]} >= set(images.files)
    except (TypeError, KeyError) as error:
        raise UsageError(
            f"{path} holds no instances of COCO; expected e.g. instances_val2014.json"
        ) from error
    if not people or not known:
        reason = "has no category named person" if not people else "lacks images of the captions"
        raise UsageError(f"{path} {reason}; expected the instances of the same images")
    return found
