"""The data card and the attribution file that go with the shards."""

from __future__ import annotations

from importlib import resources
from typing import Any, get_args

from calotype.emoji.recipe import EmojiRecipe, Split

_LICENSES = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "MIT": "https://opensource.org/license/mit",
}


def data_card(recipe: EmojiRecipe, built: dict[str, Any]) -> str:
    """The README.md of a data set folder; `counts`, `left_out`, `broken` are as in recipe.json."""
    counts = built["counts"]
    template = (resources.files("calotype") / "configs" / "emoji_data_card.md").read_text("utf-8")
    splits = {name: counts.get(name, 0) for name in get_args(Split)}
    return template.format(
        sets=len(recipe.sets),
        table=_table(recipe, counts),
        **splits,
        train_concepts=counts["train_concepts"],
        labels=recipe.label_package.name,
        raster_note=_raster_note(recipe),
        left_out=_left_out(built),
        broken=len(built["broken"]),
    )


def _table(recipe: EmojiRecipe, counts: dict[str, int]) -> str:
    rows = []
    for source in map(recipe.source, recipe.sets):
        found = [str(counts.get(f"{size}/{source.set}", "not built")) for size in (256, 1024)]
        large = "none" if source.raster else found[1]
        rows.append([source.set, source.style, source.license, found[0], large])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _raster_note(recipe: EmojiRecipe) -> str:
    names = [source.set for source in map(recipe.source, recipe.sets) if source.raster]
    if not names:
        return ""
    return (
        f"{' and '.join(names)} ships 256x256 renders, not drawings: it has no 1024x1024 images, "
        "and a model learns\nwhat its style looks like at 1024x1024 from the other sets.\n"
    )


def _left_out(built: dict[str, Any]) -> str:
    return ", ".join(f"{n} ({why})" for why, n in built["left_out"].items()) or "nothing"


def attribution(recipe: EmojiRecipe) -> str:
    """The ATTRIBUTION.md of a data set folder: author, source and licence of every set."""
    sets = "\n".join(
        f"""
## {source.set}

- by {source.author}, {source.url}
- from the npm package {source.package.name}@{source.package.version}
- licence {source.license}: {_LICENSES.get(source.license, "see the source")}"""
        for source in map(recipe.source, recipe.sets)
    )
    label = recipe.label_package
    return f"""# Attribution

The images were rendered from the packages below, and some were left out; they are otherwise \
unchanged.
Each row of the shards names its set and licence.
{sets}

## Names, keywords and groups

- by Miles Johnson and contributors, https://github.com/milesj/emojibase; from Unicode
- from the npm package {label.name}@{label.version}
- licence MIT: {_LICENSES["MIT"]}
"""
