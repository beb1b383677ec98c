"""Captions: fractions, determinism, articles, and colours that are named are the ones painted."""

from collections import Counter

import pytest

from calotype.data.example import Caption
from calotype.emoji.captions import (
    ALWAYS_SAID,
    BACKGROUND_COLOURS,
    caption_variants,
    on_background,
    plain_keywords,
    spoken,
    with_article,
)

STYLE = "glossy gradient style"
KEYWORDS = ("cheese", "food", "slice", "pizza", "g2g")


PIZZA = [
    "pizza, glossy gradient style",
    "pizza, glossy gradient style",
    "pizza, glossy gradient style",
    "pizza, glossy gradient style",
    "pizza icon, glossy gradient style",
    "pizza, glossy gradient style, food, slice",
    "a picture of a pizza",
    "a pizza",
    "pizza, glossy gradient style, on a yellow background",
    "a pizza, glossy gradient style, on an orange background",
    "pizza, glossy gradient style, on a red background",
    "pizza, glossy gradient style, on an orange background",
]


def variants(key, count=12, style=STYLE):
    return caption_variants("pizza", KEYWORDS, style, key=key, count=count)


def test_first_is_name_and_style_on_white():
    for i in range(50):
        assert variants(f"noto/{i}")[0] == Caption("pizza, glossy gradient style", None)


def test_same_key_same_captions_and_other_keys_differ():
    assert variants("noto/pizza") == variants("noto/pizza")
    assert len({variants(f"k{i}") for i in range(20)}) == 20


def test_captions_of_a_key_never_change():
    # Embedded defaults were trained with these: a change here is a change of the training set.
    texts = [caption.text for caption in variants("noto/pizza")]
    assert texts[0] == "pizza, glossy gradient style"
    assert texts == PIZZA


@pytest.mark.parametrize("count", [1, 2, 12, 16])
def test_count(count):
    assert len(variants("key", count)) == count


def test_zero_captions_are_refused():
    with pytest.raises(ValueError, match="got count=0"):
        variants("key", 0)


def test_fractions_are_those_promised():
    plain = f"pizza, {STYLE}"
    kinds: Counter[str] = Counter()
    for i in range(500):
        for caption in variants(f"key {i}"):
            if caption.background is not None:
                kinds["background"] += 1
            elif caption.text == plain:
                kinds["plain"] += 1
            elif STYLE not in caption.text:
                kinds["no style"] += 1
            elif any(word in caption.text for word in ("cheese", "food", "slice")):
                kinds["keywords"] += 1
            else:
                kinds["sentence"] += 1
    fractions = {kind: count / 6000 for kind, count in kinds.items()}
    expected = {"plain": 0.36, "sentence": 0.12, "keywords": 0.08, "no style": 0.12}
    assert fractions == pytest.approx(expected | {"background": 0.32}, abs=0.01)


def test_one_style_alone_may_go_unsaid():
    """Bare names are of one style, so that they are no blend of five."""
    for style in ALWAYS_SAID:
        for i in range(100):
            assert all(style in caption.text for caption in variants(f"key {i}", style=style))
    own = [caption.text for i in range(100) for caption in variants(f"key {i}", style="oils")]
    assert "pizza" in own  # and in sets of somebody else


def test_every_form_is_used():
    texts = {caption.text for i in range(500) for caption in variants(f"key {i}")}
    for text in (
        "a pizza, glossy gradient style",
        "a picture of a pizza, glossy gradient style",
        "glossy gradient style pizza",
        "a drawing of a pizza in glossy gradient style",
        "pizza icon, glossy gradient style",
        "pizza",
        "a pizza",
        "pizza, glossy gradient style, cheese",
        "cheese, pizza, glossy gradient style",
        "pizza, glossy gradient style, on an orange background",
    ):
        assert text in texts
    assert not any("g2g" in text for text in texts)


def test_named_background_is_the_painted_one():
    seen = set()
    for i in range(300):
        for caption in variants(f"key {i}"):
            named = [c for c in BACKGROUND_COLOURS if caption.text.endswith(f" {c} background")]
            if caption.background is None:
                assert not named
            else:
                colour = max(named, key=len)  # "light blue", not "blue"
                assert BACKGROUND_COLOURS[colour] == caption.background
                seen.add(colour)
    assert seen == set(BACKGROUND_COLOURS)


def test_colours_can_be_told_apart():
    colours = list(BACKGROUND_COLOURS.values())
    for i, a in enumerate(colours):
        assert all(0 <= v <= 255 for v in a)
        for b in [*colours[i + 1 :], (255, 255, 255)]:
            assert sum(abs(x - y) for x, y in zip(a, b, strict=True)) >= 60


def test_without_a_style_no_caption_has_a_stray_comma():
    for i in range(100):
        for caption in variants(f"key {i}", style=""):
            assert not caption.text.endswith((",", " ")) and ", ," not in caption.text
            assert not caption.text.startswith((",", " ")) and "  " not in caption.text


def test_no_keywords():
    captions = caption_variants("fox", (), STYLE, key="k", count=50)
    assert all("fox" in caption.text for caption in captions)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pizza", "a pizza"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("umbrella", "an umbrella"),
        ("hourglass done", "an hourglass done"),
        ("ewe", "a ewe"),
        ("one-piece swimsuit", "a one-piece swimsuit"),
        ("unamused face", "an unamused face"),
        ("OK hand", "an OK hand"),
        ("x-ray", "an x-ray"),
        ("SOS button", "an SOS button"),
        ("FREE button", "a FREE button"),
        ("ATM sign", "an ATM sign"),
        ("cherries", "cherries"),
        ("cooked rice", "cooked rice"),
        ("sheaf of rice", "a sheaf of rice"),
        ("octopus", "an octopus"),
        ("compass", "a compass"),
        ("scissors", "scissors"),
        ("ten o’clock", "ten o’clock"),
        ("eight-thirty", "eight-thirty"),
        ("hammer and wrench", "a hammer and wrench"),
        ("people wrestling", "people wrestling"),
        ("person lifting weights", "a person lifting weights"),
        ("cat with tears of joy", "a cat with tears of joy"),
        ("Santa Claus", "Santa Claus"),
        ("Statue of Liberty", "the Statue of Liberty"),
        ("man: bald", "a bald man"),
        ("woman: red hair", "a woman with red hair"),
        ("person walking: facing right", "a person walking, facing right"),
    ],
)
def test_articles(name, expected):
    assert with_article(name) == expected


def test_spoken_leaves_plain_names_alone():
    assert spoken("red apple") == "red apple"


def test_article_of_a_colour():
    assert on_background("fox", "orange") == "fox, on an orange background"
    assert on_background("fox", "light blue") == "fox, on a light blue background"


def test_plain_keywords():
    assert plain_keywords("red apples", ["apple", "143", "uh", "Fruit", "fruit", "red fruit"]) == (
        "fruit",
        "red fruit",
    )
