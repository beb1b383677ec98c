"""emoji-11: the choice depends on keys alone, and each category asks for what it says."""

import functools
import random
import re
from dataclasses import replace

import pytest

from calotype.emoji.captions import BACKGROUND_COLOURS, GRAMMAR
from calotype.emoji.eleven import wording
from calotype.emoji.eleven.__main__ import main
from calotype.emoji.eleven.choice import A_CATEGORY, CAPTIONS_TRAINED, CATEGORIES, choose
from calotype.emoji.eleven.suite import emoji_suite, suite_file
from calotype.emoji.prompts import ImageRow
from calotype.emoji.recipe import load_heldout
from calotype.errors import UsageError

SETS = {
    "noto": "noto style",
    "twemoji": "flat twemoji style",
    "fluent": "glossy gradient style",
    "fluent-flat": "flat fluent style",
    "fluent-3d": "3d render style",
}


def invented_rows():
    """A hundred invented concepts in three styles, with more keywords than captions say."""
    rng = random.Random(5)

    def word():
        return "".join(rng.choice("bdgklmnprtvz") + rng.choice("aeiou") for _ in range(4))

    rows = []
    for number in range(100):
        name, keywords = word(), tuple(word() for _ in range(12))
        for place, (emoji_set, style) in enumerate(list(SETS.items())[:3]):
            split = "train"
            if number < 20:
                split = "unseen_concept"
            elif number < 50 and place == number % 3:
                split = "unseen_pair"
            rows.append(
                ImageRow(
                    key=f"{emoji_set}/{name}",
                    name=name,
                    style=style,
                    set=emoji_set,
                    license="MIT",
                    concept=name,
                    split=split,  # type: ignore[arg-type]
                    keywords=keywords,
                    group="objects",
                )
            )
    return rows


ROWS = invented_rows()
CHOSEN = choose(ROWS)
SUITE = emoji_suite()


def of(category, prompts=SUITE.prompts):
    return [prompt for prompt in prompts if prompt.category == category]


def test_the_installed_file_has_eleven_categories_of_twenty():
    assert SUITE.name == "emoji-11" and len(SUITE.prompts) == 220
    assert SUITE.categories == tuple(CATEGORIES) and len(SUITE.categories) == 11
    assert all(len(of(category)) == A_CATEGORY == 20 for category in SUITE.categories)
    assert len(SUITE.sha256) == 64
    assert len(set(SUITE.captions)) == 220


def test_the_choice_is_the_same_in_any_order_of_rows():
    mixed = random.Random(1).sample(ROWS, len(ROWS))
    assert mixed != ROWS and suite_file(mixed) == suite_file(ROWS)


def test_the_choice_depends_on_keys():
    """Other licences choose the same; other keys choose others."""
    chosen = [prompt.facts["key"] for prompt in CHOSEN]
    licences = [replace(row, license="CC0") for row in ROWS]
    assert [prompt.facts["key"] for prompt in choose(licences)] == chosen
    renamed = [replace(row, key=f"{row.key}-2") for row in ROWS]
    assert [prompt.facts["key"][:-2] for prompt in choose(renamed)] != chosen


def test_held_out_prompts_are_of_held_out_images_and_no_others_are():
    heldout = load_heldout()
    for prompt in SUITE.prompts:
        split = heldout.split(prompt.facts["concept"], prompt.facts["key"].split("/")[0])
        wanted = {"unseen pairs": "unseen_pair", "unseen concepts": "unseen_concept"}
        assert split == wanted.get(prompt.category, "train"), prompt.id
        if "other_key" in prompt.facts:
            other = prompt.facts["other_concept"], prompt.facts["other_key"].split("/")[0]
            assert heldout.split(*other) == "train"


def test_held_out_rows_are_chosen_for_their_categories():
    split = {row.key: row.split for row in ROWS}
    for prompt in CHOSEN:
        wanted = {"unseen pairs": "unseen_pair", "unseen concepts": "unseen_concept"}
        assert split[prompt.facts["key"]] == wanted.get(prompt.category, "train")


@functools.cache
def trained_words():
    captions = [
        caption.text.lower()
        for row in ROWS
        if row.split == "train"
        for caption in GRAMMAR.make(
            row.name, row.keywords, row.style, key=row.key, count=CAPTIONS_TRAINED
        )
    ]
    return set(re.findall("[a-z]+", " ".join(captions)))


def test_no_rare_word_was_trained_on():
    known = trained_words()
    rare = of("rare words", CHOSEN)
    assert len(rare) == 20
    by_concept = {row.concept: row.keywords for row in ROWS}
    for prompt in rare:
        assert prompt.facts["keyword"] in prompt.caption
        assert prompt.facts["keyword"] in by_concept[prompt.facts["concept"]]
        assert prompt.facts["keyword"] not in known


def test_descriptions_leave_out_the_name_and_use_trained_words():
    known = trained_words()
    for prompt in of("descriptions", CHOSEN):
        assert set(prompt.facts["keywords"]) <= known and len(prompt.facts["keywords"]) == 3
    for prompt in of("descriptions"):
        words = set(prompt.facts["concept"].lower().split()) - {"in", "of", "with", "not", "face"}
        said = re.findall("[a-z]+", prompt.caption.removesuffix(prompt.facts["style"]).lower())
        assert not words & set(said), prompt.caption


def test_styles_are_asked_of_the_same_concepts():
    asked = {}
    for prompt in of("styles"):
        asked.setdefault(prompt.facts["concept"], set()).add(prompt.facts["style"])
    assert len(asked) == 4 and all(styles == set(SETS.values()) for styles in asked.values())


def test_captions_say_what_the_facts_say():
    for prompt in SUITE.prompts:
        assert prompt.facts["style"] in prompt.caption
    for prompt in of("background colour"):
        colour = prompt.facts["colour"]
        assert f"{colour} background" in prompt.caption
        assert tuple(prompt.facts["rgb"]) == BACKGROUND_COLOURS[colour]
    assert {prompt.facts["colour"] for prompt in of("background colour")} == {*BACKGROUND_COLOURS}
    for prompt in of("object colour"):
        assert f" {prompt.facts['colour']} {prompt.facts['concept']}" in f" {prompt.caption}"
    for prompt in of("counting"):
        word = wording.NUMBER_WORDS[prompt.facts["count"]]
        assert f"{word} {wording.plural(prompt.facts['concept'])}" in prompt.caption
    for prompt in of("misspellings"):
        assert prompt.facts["misspelt"] in prompt.caption
        assert prompt.facts["name"] not in prompt.caption
    for prompt in of("position"):
        place, relation = prompt.facts.get("place"), prompt.facts.get("relation")
        words = wording.RELATIONS[relation] if place is None else wording.PLACES[place]
        assert words in prompt.caption


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("fox", "foxes"),
        ("computer mouse", "computer mice"),
        ("strawberry", "strawberries"),
        ("key", "keys"),
        ("kitchen knife", "kitchen knives"),
        ("tropical fish", "tropical fish"),
        ("snowman", "snowmen"),
    ],
)
def test_plurals(one, many):
    assert wording.plural(one) == many


def distance(a, b):
    """Levenshtein's distance, with a swap of neighbours as one step."""
    table = {(i, 0): i for i in range(len(a) + 1)} | {(0, j): j for j in range(len(b) + 1)}
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            table[i, j] = min(
                table[i - 1, j] + 1,
                table[i, j - 1] + 1,
                table[i - 1, j - 1] + (a[i - 1] != b[j - 1]),
            )
            if i > 1 and j > 1 and a[i - 2 : i] == b[j - 2 : j][::-1]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return table[len(a), len(b)]


def test_a_misspelling_is_one_error_that_makes_no_word():
    for name in ("guitar", "speech balloon", "person shrugging", "strawberry"):
        wrong = wording.misspelt(name, {"guitars"})
        assert distance(name, wrong) == 1 and wrong[0] == name[0]
        assert wording.misspelt(name, {*wrong.split()}) != wrong
    assert all(
        distance(prompt.facts["name"], prompt.facts["misspelt"]) == 1
        for prompt in of("misspellings")
    )
    with pytest.raises(ValueError, match="five letters"):
        wording.misspelt("cat", set())


def test_the_command_refuses_a_set_that_is_too_small(data, tmp_path, capsys):
    assert main(["--data", str(data), "--out", str(tmp_path / "suite.json")]) == 2
    assert "expected 20" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="got 0 prompts"):
        suite_file([])
