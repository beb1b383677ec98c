"""The held-out list: every name is found, and nothing held out is ever a training row."""

import json
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from calotype.config.typed_json import from_dict, to_dict
from calotype.emoji.names import slug
from calotype.emoji.prompts import COUNTS, ImageRow, choose_prompts, load_prompts
from calotype.emoji.recipe import EmojiRecipe, load_heldout, load_recipe, normalised
from calotype.errors import ConfigError, UsageError

LETTERS = {"noto": "n", "twemoji": "t", "fluent": "f", "fluent-flat": "l", "fluent-3d": "d"}
FILE = json.loads((Path(__file__).parent / "emoji_concepts.json").read_text(encoding="utf-8"))
RAW = json.loads((resources.files("calotype") / "assets" / "heldout.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def rows():
    """The rows of the default recipe's set, as it was built."""
    recipe, heldout = load_recipe(), load_heldout()
    return [
        ImageRow(
            key=f"{name}/{slug(concept)}",
            name=concept,
            set=name,
            license="",
            concept=concept,
            style=recipe.source(name).style,
            split=heldout.split(concept, name),
        )
        for concept, letters in FILE["concepts"].items()
        for name, letter in LETTERS.items()
        if letter in letters
    ]


def test_the_counts_of_the_default_set(rows):
    splits = Counter(row.split for row in rows)
    assert splits == {"train": 6335, "unseen_concept": 309, "unseen_pair": 183}
    assert len({row.name for row in rows if row.split == "train"}) == 1321
    assert len({row.key for row in rows}) == len(rows)


def test_every_held_out_name_is_a_label():
    labels = {normalised(name) for name in [*FILE["concepts"], *FILE["other_labels"]]}
    named = [*RAW["unseen_concept"], *RAW["unseen_pair"]]
    assert [name for name in named if normalised(name) not in labels] == []
    known = {source.set for source in load_recipe().sources}
    assert set(RAW["unseen_pair"].values()) <= known


def test_no_training_row_is_held_out(rows):
    train = {(row.name, row.key.split("/")[0]) for row in rows if row.split == "train"}
    assert not {name for name, _ in train} & set(RAW["unseen_concept"])
    assert not train & set(RAW["unseen_pair"].items())


def test_held_out_rows_that_exist_are_marked(rows):
    splits = {(row.name, row.key.split("/")[0]): row.split for row in rows}
    for (name, emoji_set), split in splits.items():
        if name in RAW["unseen_concept"]:
            assert split == "unseen_concept"
        elif RAW["unseen_pair"].get(name) == emoji_set:
            assert split == "unseen_pair"
        else:
            assert split == "train"


def test_spelling_does_not_let_a_concept_through():
    heldout = load_heldout()
    assert heldout.split("Man's  Shoe", "noto") == "unseen_concept"
    assert heldout.split("Frog", "emojione") == "unseen_concept"
    assert heldout.split("BANANA", "fluent-3d") == "unseen_pair"
    assert heldout.split("banana", "noto") == "train"


def test_committed_prompts_are_the_chosen_ones(rows):
    assert load_prompts() == choose_prompts(reversed(rows))


def test_prompts_are_of_their_groups(rows):
    splits = {row.key: row.split for row in rows}
    prompts = load_prompts()
    assert Counter(prompt.group for prompt in prompts) == COUNTS
    assert len({prompt.key for prompt in prompts}) == len(prompts) == 256
    bare = [prompt.prompt for prompt in prompts if prompt.group == "bare_name"]
    assert len(set(bare)) == len(bare) and not any(":" in prompt for prompt in bare)
    for prompt in prompts:
        wanted = "unseen_pair" if prompt.group == "unseen_pair" else "train"
        assert splits[prompt.key] == wanted
        assert (prompt.background is not None) == (prompt.group == "background")


def test_a_pair_list_with_a_wrong_value_is_an_error(tmp_path):
    path = tmp_path / "heldout.json"
    path.write_text('{"note": "", "unseen_concept": [], "unseen_pair": {"cat": 3}}')
    with pytest.raises(ConfigError, match="unseen_pair"):
        load_heldout(path)


def test_recipe_round_trip_and_unknown_sets():
    recipe = load_recipe()
    assert from_dict(to_dict(recipe), EmojiRecipe) == recipe
    assert len(recipe.sources) == 9
    assert all(source.package.integrity for source in recipe.sources)
    with pytest.raises(UsageError, match=r"'blob'; expected one of \['noto'"):
        recipe.with_sets(["blob"])
    with pytest.raises(UsageError, match="at least one set"):
        recipe.with_sets([])
