"""Match images of the emoji packages with emojibase's names, keywords and groups."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

from calotype.emoji.fetch import FetchedPackage

_TONES = {1: "light", 2: "medium-light", 3: "medium", 4: "medium-dark", 5: "dark"}


@dataclass(frozen=True)
class Label:
    """What emojibase says of one emoji.

    `concept` is the label without skin tone; `tone` names the skin tones, empty without one.
    """

    code: str
    concept: str
    tone: str
    keywords: tuple[str, ...]
    group: str
    subgroup: str
    order: int


class LabelIndex:
    """Labels by code points and by name."""

    def __init__(self, labels: list[Label], shortcodes: dict[str, list[str]] | None = None) -> None:
        """Index `labels`; `shortcodes` maps code points to further names of an emoji."""
        self.labels = labels
        self._by_code = {label.code: label for label in labels}
        self._by_name: dict[str, Label] = {}
        for label in labels:
            toned = f"{label.concept} {label.tone}"
            for name in (f"{toned} skin tone", toned) if label.tone else (label.concept,):
                self._by_name.setdefault(glued(name), label)
        for code, names in (shortcodes or {}).items():
            known = self._by_code.get(code_points(code))
            if known is not None:
                for name in names:
                    self._by_name.setdefault(glued(name), known)

    def by_code(self, code: str) -> Label | None:
        """The label of code points such as `1f355` or `0023-fe0f-20e3`."""
        return self._by_code.get(code_points(code))

    def by_name(self, name: str) -> Label | None:
        """The label of a file name such as `slice-of-pizza`; a trailing number is a variant."""
        numberless = re.sub(r"-\d+$", "", name)
        return self._by_name.get(glued(name)) or self._by_name.get(glued(numberless))


def code_points(code: str) -> str:
    """Code points in one spelling: upper case, four digits, without the variation selector."""
    parts = re.split(r"[-_ ]", code.upper())
    return "-".join(part.zfill(4) for part in parts if part != "FE0F")


def slug(name: str) -> str:
    """A name as part of a key: lower-case ASCII letters and digits joined by hyphens."""
    text = unicodedata.normalize("NFKD", name.replace("’", "").replace("'", ""))
    text = text.encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", text.replace("&", " and ")).strip("-")


def glued(name: str) -> str:
    """A name without any separator, to compare file names with labels."""
    return slug(name).replace("-", "")


def read_labels(package: FetchedPackage) -> LabelIndex:
    """Read the English labels of an emojibase-data package."""
    meta = package.read_json("meta/groups.json")
    labels = []
    for entry in package.read_json("en/data.json"):
        labels.append(_label(entry, entry, meta))
        labels.extend(_label(skin, entry, meta) for skin in entry.get("skins", ()))
    shortcodes: dict[str, list[str]] = {}
    for preset in ("cldr", "emojibase", "emojibase-legacy", "iamcal", "github", "joypixels"):
        for code, names in package.read_json(f"en/shortcodes/{preset}.json").items():
            shortcodes.setdefault(code, []).extend([names] if isinstance(names, str) else names)
    return LabelIndex(labels, shortcodes)


def _label(entry: dict[str, Any], parent: dict[str, Any], meta: dict[str, Any]) -> Label:
    tones = entry.get("tone", ())
    tones = [tones] if isinstance(tones, int) else list(tones)
    return Label(
        code=code_points(entry["hexcode"]),
        concept=parent["label"],
        tone=" and ".join(_TONES[tone] for tone in tones),
        keywords=tuple(parent.get("tags", ())),
        group=meta["groups"].get(str(parent.get("group")), "component"),
        subgroup=meta["subgroups"].get(str(parent.get("subgroup")), "component"),
        order=entry.get("order", 10**6),
    )
