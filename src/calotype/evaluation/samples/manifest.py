"""What a sample set says of itself: who made the images, of which prompts, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calotype.config.typed_json import load_config, to_dict
from calotype.errors import UsageError
from calotype.evaluation.suites.suite import Suite
from calotype.storage.files import write_file

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, kw_only=True)
class SuiteNote:
    """The suite that was asked of: its name, the SHA-256 of its file, and what was chosen of it."""

    name: str
    sha256: str
    prompts: int
    choices: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, suite: Suite) -> SuiteNote:
        """What is noted of a suite."""
        return cls(
            name=suite.name,
            sha256=suite.sha256,
            prompts=len(suite.prompts),
            choices=suite.choices,
        )


@dataclass(frozen=True, kw_only=True)
class ShardNote:
    """One shard's file, its rows and its SHA-256."""

    file: str
    rows: int
    sha256: str

    def __post_init__(self) -> None:
        if Path(self.file).name != self.file:
            raise UsageError(f"got the shard {self.file!r:.80}; expected a file of the same folder")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sample set says of itself.

    Args:
        name: of the model, or of the folder that the images came from.
        suite: whose prompts were asked.
        count: of the images.
        each: images of a prompt; None where prompts have different numbers of them.
        seed: that all seeds were made of; None = images of others, which say none.
        size: height and width of all images; None = they differ.
        encoding: "png", "jpeg", ...; "mixed" where images differ.
        recipe: of the images, without what each has of its own: weights' hash, settings of every
            stage, how it was computed, versions; None = images of others.
        origin: how images of others were found to belong to prompts; None = sampled here.
        missing: prompts, by id, that have no image.
        shards: the files.
        format: of this file.
    """

    name: str
    suite: SuiteNote
    count: int
    each: int | None
    seed: int | None
    size: tuple[int, int] | None
    encoding: str
    shards: tuple[ShardNote, ...]
    recipe: Mapping[str, Any] | None = None
    origin: Mapping[str, Any] | None = None
    missing: tuple[str, ...] = ()
    format: int = 1

    def __post_init__(self) -> None:
        if self.format != 1:
            raise UsageError(f"got samples of format {self.format}; expected 1: update calotype")

    @property
    def weights(self) -> str:
        """One name for the weights that sampled, or "" where they are not known."""
        model = (self.recipe or {}).get("model", {})
        return str(model.get("weights", ""))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a set's manifest, which makes it whole."""
    text = json.dumps(to_dict(manifest), indent=1, ensure_ascii=True) + "\n"
    write_file(folder / MANIFEST_FILE, text.encode())


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a sample set.

    Raises:
        UsageError: there is none.
        ConfigError: it is damaged.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise UsageError(
            f"got {folder}, which holds no {MANIFEST_FILE}; expected a folder of samples that is "
            "whole: run the command that samples them again"
        )
    return load_config(path, Manifest)
