"""Decide, before anything is rendered, which images a recipe takes and what is said about each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from calotype.emoji.fetch import FetchedPackage
from calotype.emoji.names import Label, LabelIndex, slug
from calotype.emoji.recipe import EmojiRecipe, HeldOut, SourceConfig, Split


@dataclass(frozen=True)
class Artwork:
    """An image as its package ships it: an SVG, or the bytes of a raster file."""

    name: str
    data: bytes
    code: str | None = None


@dataclass(frozen=True)
class PlannedImage:
    """One row to be: all columns but the image, and the artwork it is rendered from."""

    key: str
    name: str
    keywords: tuple[str, ...]
    group: str
    style: str
    set: str
    license: str
    concept: str
    split: Split
    artwork: Artwork


@dataclass
class PlanReport:
    """What was left out and why; counts by set and reason, and the unmatched file names."""

    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    unmatched: list[str] = field(default_factory=list)


def read_artworks(
    package: FetchedPackage, *, raster: bool = False, codes_from: FetchedPackage | None = None
) -> list[Artwork]:
    """All images of a package that are not marked as hidden, ordered by name.

    `codes_from` is a package that names its artwork alike and gives their code points.
    """
    if raster:
        files = sorted((package.folder / "assets").glob("*.webp"))
        return [Artwork(file.stem, file.read_bytes(), file.stem) for file in files]
    icons = package.read_json("icons.json")
    codes: dict[str, str] = {}
    for code, name in (codes_from or package).read_json("chars.json").items():
        codes.setdefault(name, code)
    return [
        Artwork(name, _svg({**icons, **icon}), codes.get(name))
        for name, icon in sorted(icons["icons"].items())
        if not icon.get("hidden", False)
    ]


def _svg(icon: dict[str, object]) -> bytes:
    """A whole SVG of an icon's body; what is not square is centred in a transparent square."""
    left, top = icon.get("left", 0), icon.get("top", 0)
    box = f"{left} {top} {icon.get('width', 16)} {icon.get('height', 16)}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'width="SIZE" height="SIZE" viewBox="{box}">{icon["body"]}</svg>'
    ).encode()


def match(artwork: Artwork, labels: LabelIndex) -> Label | None:
    """The label of an image, by code points where the package has them, or else by name."""
    found = labels.by_code(artwork.code) if artwork.code is not None else None
    return found if found is not None else labels.by_name(artwork.name)


def is_taken(label: Label, recipe: EmojiRecipe) -> bool:
    """Whether the recipe wants images with this label."""
    return (
        label.group not in recipe.excluded_groups
        and label.subgroup not in recipe.excluded_subgroups
        and (recipe.skin_tones or not label.tone)
    )


def plan_set(
    source: SourceConfig,
    artworks: list[Artwork],
    labels: LabelIndex,
    *,
    recipe: EmojiRecipe,
    heldout: HeldOut,
    report: PlanReport,
) -> list[PlannedImage]:
    """The images of one set that the recipe takes, in emojibase's order, with unique keys."""
    matched: list[tuple[Label, Artwork]] = []
    seen: set[str] = set()
    for artwork in artworks:
        label = match(artwork, labels)
        if label is None:
            report.left_out[source.set, "no name"] += 1
            report.unmatched.append(f"{source.set}/{artwork.name}")
        elif not is_taken(label, recipe):
            reason = "skin tone" if label.tone and not recipe.skin_tones else "excluded group"
            report.left_out[source.set, reason] += 1
        elif artwork.code is not None and label.code in seen:
            report.left_out[source.set, "same code points"] += 1
        else:
            seen.add(label.code)
            matched.append((label, artwork))
    matched.sort(key=lambda pair: (pair[0].order, pair[0].code, pair[1].name))
    return list(_unique_keys(_row(source, label, art, heldout) for label, art in matched))


def _row(source: SourceConfig, label: Label, art: Artwork, heldout: HeldOut) -> PlannedImage:
    name = f"{label.concept}, {label.tone} skin tone" if label.tone else label.concept
    return PlannedImage(
        key=f"{source.set}/{slug(name)}",
        name=name,
        keywords=label.keywords,
        group=label.group,
        style=source.style,
        set=source.set,
        license=source.license,
        concept=label.concept,
        split=heldout.split(label.concept, source.set),
        artwork=art,
    )


def _unique_keys(images: Iterator[PlannedImage]) -> Iterator[PlannedImage]:
    seen: Counter[str] = Counter()
    for image in images:
        seen[image.key] += 1
        count = seen[image.key]
        yield image if count == 1 else replace(image, key=f"{image.key}-{count}")


def drop_without_counterpart(
    images: list[PlannedImage], concepts: set[str], report: PlanReport
) -> list[PlannedImage]:
    """Keep the images whose concept is among `concepts`; count the others."""
    kept = [image for image in images if image.concept in concepts]
    if len(kept) < len(images):
        report.left_out[images[0].set, "no counterpart"] += len(images) - len(kept)
    return kept
