"""Write what a data set folder holds: recipe.json, the data card and the attribution file.

Counts come from the shards on disk, so that a folder built in several runs is described whole.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from calotype.config.typed_json import to_dict
from calotype.emoji.data_card import attribution, data_card
from calotype.emoji.plan import PlanReport
from calotype.emoji.recipe import EmojiRecipe
from calotype.emoji.shards import read_columns
from calotype.storage.files import write_file
from calotype.storage.reading import read_object


def write_notes(
    out: Path, recipe: EmojiRecipe, plan: PlanReport, *, integrity: dict[str, str]
) -> dict[str, int]:
    """Describe the data set in `out`; returns the counts by size and set, split, and concepts.

    Recipe and plan are of this run, as is `integrity`, the hash of each package by name@version.

    Raises:
        CalotypeError: the notes cannot be written.
    """
    counts, present, broken = _count_shards(out)
    described = recipe.with_sets([s.set for s in recipe.sources if s.set in present] or None)
    old = _previous(out)
    left_out = {k: n for k, n in old["left_out"].items() if k.split(": ")[0] not in recipe.sets}
    left_out |= {f"{name}: {why}": n for (name, why), n in plan.left_out.items()}
    unmatched = [k for k in old["unmatched"] if k.split("/")[0] not in recipe.sets]
    built = {
        "recipe": to_dict(described),
        "packages": old["packages"] | integrity,
        "counts": counts,
        "left_out": dict(sorted(left_out.items())),
        "broken": broken,
        "unmatched": sorted([*unmatched, *plan.unmatched]),
    }
    text = json.dumps(built, indent=1, ensure_ascii=False)
    write_file(out / "recipe.json", f"{text}\n".encode())
    write_file(out / "README.md", data_card(described, built).encode())
    write_file(out / "ATTRIBUTION.md", attribution(described).encode())
    return counts


def _count_shards(out: Path) -> tuple[dict[str, int], set[str], list[str]]:
    images: Counter[str] = Counter()
    splits: dict[str, str] = {}
    concepts: set[str] = set()
    broken: list[str] = []
    present: set[str] = set()
    for file in sorted(out.glob("*/*-[0-9]*.parquet")):
        columns, note = read_columns(file, ["key", "set", "split", "concept"])
        size = file.parent.name
        images.update(f"{size}/{name}" for name in columns["set"])
        present.update(columns["set"])
        splits |= dict(zip(columns["key"], columns["split"], strict=True))
        rows = zip(columns["concept"], columns["split"], strict=True)
        concepts |= {concept for concept, split in rows if split == "train"}
        broken += [f"{size}/{key}" for key in note["broken"]]
    counts = {**dict(sorted(images.items())), **Counter(splits.values())}
    return counts | {"train_concepts": len(concepts)}, present, broken


def _previous(out: Path) -> dict[str, Any]:
    empty: dict[str, Any] = {"packages": {}, "left_out": {}, "unmatched": []}
    return empty | read_object(out / "recipe.json")
