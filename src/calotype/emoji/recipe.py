"""The settings of the emoji recipe: what is taken, from where, and what is held out."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Literal

from calotype.config.typed_json import load_config
from calotype.errors import ConfigError, UsageError

_PACKAGE = Path(str(resources.files("calotype")))
Split = Literal["train", "unseen_concept", "unseen_pair"]


@dataclass(frozen=True, kw_only=True)
class PackageConfig:
    """An npm package pinned by version and, where given, by its `integrity` (sha512-...)."""

    name: str
    version: str
    integrity: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One emoji set.

    Args:
        set: its short name, the first part of every key.
        style: the phrase captions call it by.
        raster: its images are 256x256 files named by code points; otherwise they are SVG.
        codes_from: a set that names its artwork alike and knows their code points.
        counterparts: keep only concepts that one of these sets has too (the origin of the others
            is not proven by the licence).
        drop_duplicates: leave out images whose pixels repeat an earlier one of the set.
    """

    set: str
    package: PackageConfig
    style: str
    license: str
    author: str
    url: str
    raster: bool = False
    codes_from: str | None = None
    counterparts: tuple[str, ...] = ()
    drop_duplicates: bool = False

    @property
    def related(self) -> tuple[str, ...]:
        """The other sets whose packages are read to build this one."""
        codes_from = () if self.codes_from is None else (self.codes_from,)
        return (*self.counterparts, *codes_from)


@dataclass(frozen=True, kw_only=True)
class EmojiRecipe:
    """Which images are taken.

    Args:
        sets: names of the sources to build.
        excluded_groups, excluded_subgroups: emojibase's names of groups left out.
        skin_tones: take skin-tone variants as well.
        label_package: the package of names, keywords and groups.
        sources: every set that is known.
    """

    sets: tuple[str, ...]
    excluded_groups: tuple[str, ...]
    excluded_subgroups: tuple[str, ...]
    skin_tones: bool
    label_package: PackageConfig
    sources: tuple[SourceConfig, ...]

    def __post_init__(self) -> None:
        """Check that every set is known and none is named twice."""
        known = [source.set for source in self.sources]
        for name in [*self.sets, *(n for s in self.sources for n in s.related)]:
            if name not in known:
                raise ConfigError(f"got the emoji set {name!r}; expected one of {known}")
        if not self.sets or len(set(self.sets)) != len(self.sets):
            raise ConfigError(f"got sets={list(self.sets)}; name at least one set, each once")

    def source(self, name: str) -> SourceConfig:
        """The source of a set by its name."""
        return next(source for source in self.sources if source.set == name)

    def with_sets(self, sets: Sequence[str] | None) -> EmojiRecipe:
        """The same recipe for other sets; None keeps them."""
        if sets is None:
            return self
        try:
            return replace(self, sets=tuple(sets))
        except ConfigError as error:
            raise UsageError(str(error)) from error


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Concepts never trained on: in no style (`unseen_concept`) or not in one (`unseen_pair`)."""

    note: str
    unseen_concept: tuple[str, ...]
    unseen_pair: dict  # type: ignore[type-arg]  # names, checked by `load_heldout`

    def split(self, concept: str, emoji_set: str) -> Split:
        """Where an image of `concept` in `emoji_set` belongs."""
        name = normalised(concept)
        if name in self.unseen_concept:
            return "unseen_concept"
        return "unseen_pair" if self.unseen_pair.get(name) == emoji_set else "train"


def normalised(name: str) -> str:
    """A name for comparison: case, typographic quotes, dashes and spacing do not count."""
    table = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "‑": "-"})
    text = unicodedata.normalize("NFKC", name).translate(table).replace("\ufe0f", "")
    return " ".join(text.casefold().split())


def load_recipe(path: Path | None = None) -> EmojiRecipe:
    """Read a recipe; None is the one installed with the package."""
    if path is not None:
        return load_config(path, EmojiRecipe)
    return load_config(_PACKAGE / "configs" / "emoji_recipe.json", EmojiRecipe)


def load_heldout(path: Path | None = None) -> HeldOut:
    """Read the held-out list; None is the one installed with the package."""
    path = _PACKAGE / "assets" / "heldout.json" if path is None else path
    raw = load_config(path, HeldOut)
    pairs = {normalised(k): v for k, v in raw.unseen_pair.items() if isinstance(v, str)}
    if len(pairs) != len(raw.unseen_pair):
        raise ConfigError(f"{path}: unseen_pair must map each concept, named once, to a set name")
    return replace(
        raw, unseen_concept=tuple(map(normalised, raw.unseen_concept)), unseen_pair=pairs
    )
