"""The data card and the attribution file that go with the shards."""

from __future__ import annotations

from typing import Any

from calotype.emoji.recipe import EmojiRecipe, SourceConfig

_LICENSES = {
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "MIT": "https://opensource.org/license/mit",
}


def data_card(recipe: EmojiRecipe, built: dict[str, Any]) -> str:
    """The README.md of a data set folder.

    Args:
        recipe: the recipe that was built.
        built: its counts, as in recipe.json: `counts`, `left_out`, `broken`.
    """
    counts = built["counts"]
    return f"""---
pretty_name: Emoji drawings with names, keywords and styles
task_categories: [text-to-image]
language: [en]
license: other
configs:
- config_name: "256"
  default: true
  data_files: "256/*.parquet"
- config_name: "1024"
  data_files: "1024/*.parquet"
---
# Emoji drawings

Emoji of {len(recipe.sets)} sets as square images with transparency, with the words for them.
Made by `calotype data emoji` from public npm packages; `recipe.json` says exactly which.

{_sets_table(recipe, counts)}

`split` is `train` ({counts.get("train", 0)} images of {counts["train_concepts"]} concepts),
`unseen_concept` ({counts.get("unseen_concept", 0)}; these concepts are in no style to be trained
on) or `unseen_pair` ({counts.get("unseen_pair", 0)}; trained on in the other styles only). Train
on rows with split `train` and no others.

## Columns

| column | what it is |
|---|---|
| key | unique and stable, such as `noto/pizza` |
| image | lossless RGBA PNG with straight alpha, as `{{bytes, path}}` |
| name | what is shown, in English |
| keywords | further words for it |
| group | emojibase's group |
| style | the phrase captions call the set's look by |
| set, license | where the image is from, and its licence |
| concept | the name without skin tone: held-out lists go by it |
| split | see above |

## How it was made

Names, keywords and groups are those of `{recipe.label_package.name}`; images that it does not
know are left out. Drawings were rendered by librsvg: 1024 pixels directly, 256 pixels at twice the
size and box-shrunk in premultiplied colour.
{_raster_note(recipe)}
Left out: {_left_out(built)}. Broken: {len(built["broken"])}.

## Limits

Emoji are a small, stylised and culturally uneven world: people are drawn in few ways and, unless
skin tones are taken, in one yellow tone; one concept has one image a style.
Attribution and licences of the images: `ATTRIBUTION.md`.
"""


def _sets_table(recipe: EmojiRecipe, counts: dict[str, int]) -> str:
    lines = ["| set | style | licence | 256x256 | 1024x1024 |", "|---|---|---|---|---|"]
    for source in map(recipe.source, recipe.sets):
        small, large = (_count(counts, size, source) for size in (256, 1024))
        lines.append(f"| {source.set} | {source.style} | {source.license} | {small} | {large} |")
    return "\n".join(lines)


def _count(counts: dict[str, int], size: int, source: SourceConfig) -> str:
    if size != 256 and source.raster:
        return "none"
    return str(counts.get(f"{size}/{source.set}", "not built"))


def _raster_note(recipe: EmojiRecipe) -> str:
    names = [source.set for source in map(recipe.source, recipe.sets) if source.raster]
    if not names:
        return ""
    return (
        f"{' and '.join(names)} ships 256x256 renders, not drawings: it has no 1024x1024 images, "
        "and a model learns\nwhat its style looks like at 1024x1024 from the other sets.\n"
    )


def _left_out(built: dict[str, Any]) -> str:
    parts = [f"{count} ({reason})" for reason, count in built["left_out"].items()]
    return ", ".join(parts) if parts else "nothing"


def attribution(recipe: EmojiRecipe) -> str:
    """The ATTRIBUTION.md of a data set folder: author, source and licence of every set."""
    lines = [
        "# Attribution",
        "",
        "The images were rendered from the packages below, and some were left out; they are "
        "otherwise unchanged.",
        "Each row of the shards names its set and licence.",
    ]
    for source in map(recipe.source, recipe.sets):
        package = f"{source.package.name}@{source.package.version}"
        lines += [
            "",
            f"## {source.set}",
            "",
            f"- by {source.author}, {source.url}",
            f"- from the npm package {package}",
            f"- licence {source.license}: {_LICENSES.get(source.license, 'see the source')}",
        ]
    label = recipe.label_package
    lines += [
        "",
        "## Names, keywords and groups",
        "",
        "- by Miles Johnson and contributors, https://github.com/milesj/emojibase; from Unicode",
        f"- from the npm package {label.name}@{label.version}",
        f"- licence MIT: {_LICENSES['MIT']}",
    ]
    return "\n".join(lines) + "\n"
