"""A study: what is compared, by which trials, until when; one JSON file beside its images.

`study.json` says everything, who is who included, and is never served. Its hash is frozen with the
first answer: from then on the study can be rated and reported only as it was planned.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from calotype.config.typed_json import from_dict
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.evaluation.rating.protocols import PROTOCOLS, Protocol
from calotype.storage.reading import read_regular

FILE = "study.json"
IMAGES = "images"
FORMAT = 1
_MAX_BYTES = 2**30
_IMAGE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Side:
    """What one side of a trial shows: images of one set, by their random names."""

    set: str
    images: tuple[str, ...]


@dataclass(frozen=True)
class Control:
    """What makes a trial a control: its question, and the answers that pass."""

    question: str
    kind: str  # "caption" of another prompt, or "ruined"
    right: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One comparison, or one image to be rated.

    Args:
        id: within the study.
        prompt: id of the prompt whose images are shown first.
        caption: what raters read, once they are to.
        category: of the prompt.
        pool: of trials that belong together: raters are given one where the protocol says so.
        sides: two in the study's order of sets, or one.
        control: None = its answers count.
    """

    id: str
    prompt: str
    caption: str
    category: str | None
    pool: str
    sides: tuple[Side, ...]
    control: Control | None = None


@dataclass(frozen=True)
class Ranking:
    """Of each `count` samples in a row the scorer's best was shown; the hash is of its scores."""

    count: int
    scorer: str
    sha256: str


@dataclass(frozen=True)
class StudySet:
    """A set of samples that takes part: where it came from and what was done to it."""

    name: str
    folder: str
    sha256: str  # of its manifest
    is_reference: bool = False
    best_of: Ranking | None = None
    transform: str | None = None


@dataclass(frozen=True)
class StudyImage:
    """An image as raters see it, and the sample it was made of."""

    name: str  # random; its file is NAME.png
    sha256: str
    set: str
    key: str
    seed: int | None = None
    is_ruined: bool = False


@dataclass(frozen=True, kw_only=True)
class Study:
    """All of `study.json`."""

    protocol: str
    title: str
    created: str
    calotype: str
    seed: int
    raters: int  # planned answers of each trial
    per_rater: int | None  # most trials, controls aside, that one rater is asked
    images_per_side: int
    side_pixels: int
    condition: str
    stopping_rule: str
    consent: str
    sets: tuple[StudySet, ...]
    trials: tuple[Trial, ...]
    images: tuple[StudyImage, ...]
    format: int = FORMAT

    @cached_property
    def rules(self) -> Protocol:
        """The protocol's table."""
        return PROTOCOLS[self.protocol]

    @cached_property
    def by_id(self) -> dict[str, Trial]:
        """The trials by their ids."""
        return {trial.id: trial for trial in self.trials}

    @cached_property
    def hashes(self) -> dict[str, str]:
        """SHA-256 of the images by their names."""
        return {image.name: image.sha256 for image in self.images}

    @cached_property
    def real(self) -> tuple[Trial, ...]:
        """The trials whose answers count."""
        return tuple(trial for trial in self.trials if trial.control is None)

    @property
    def planned(self) -> int:
        """Judgements of each question and pair that the study was planned for."""
        return self.raters * len({trial.prompt for trial in self.real})

    @cached_property
    def sha256(self) -> str:
        """The hash that is frozen with the first answer."""
        return hashlib.sha256(study_bytes(self)).hexdigest()


def study_bytes(study: Study) -> bytes:
    """What `study.json` holds."""
    record = asdict(study)
    return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode("ascii")


def read_study(folder: Path) -> Study:
    """Read a study; its images are not looked at.

    Raises:
        UsageError: there is none, or it is not as calotype writes it.
    """
    path = folder / FILE
    way_out = "name a folder that calotype rate new made"
    try:
        study = from_dict(json.loads(read_regular(path, most_bytes=_MAX_BYTES)), Study)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; {way_out}") from error
    except ConfigError as error:
        raise UsageError(f"{path} is no whole study: {error}; {way_out}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}; {way_out}") from error
    _check(study, path)
    return study


def verify_images(study: Study, folder: Path) -> None:
    """Refuse a study whose images are not those it was made with.

    Raises:
        CalotypeError: one is missing or differs.
    """
    for image in study.images:
        image_bytes(study, folder, image.name)


def image_bytes(study: Study, folder: Path, name: str) -> bytes:
    """An image of a study, as it was when the study was made.

    Raises:
        CalotypeError: it is missing or differs.
    """
    path, way_out = image_path(folder, name), "put it back, or make a new study"
    try:
        data = read_regular(path, most_bytes=_MAX_BYTES)
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}; {way_out}") from error
    if hashlib.sha256(data).hexdigest() != study.hashes[name]:
        raise CalotypeError(f"the image {path} of the study has changed; {way_out}")
    return data


def image_path(folder: Path, name: str) -> Path:
    """Where an image lies."""
    return folder / IMAGES / f"{name}.png"


def _check(study: Study, path: Path) -> None:
    """Refuse by hand what the pages rely on."""
    names = {one.name for one in study.sets}
    is_whole = (
        study.format == FORMAT
        and study.protocol in PROTOCOLS
        and study.raters > 0
        and all(_IMAGE.fullmatch(name) for name in study.hashes)
        and len(study.by_id) == len(study.trials) > 0
        and all(
            side.set in names and side.images and study.hashes.keys() >= set(side.images)
            for trial in study.trials
            for side in trial.sides
        )
        and all(len(trial.sides) == 1 + study.rules.is_pair for trial in study.trials)
    )
    if not is_whole:
        raise UsageError(f"{path} is no whole study; make it anew with calotype rate new")
