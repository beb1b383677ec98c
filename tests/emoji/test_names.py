"""Names: images find their labels by code points or name, and skin tones are told apart."""

import pytest

from calotype.emoji.names import Label, LabelIndex, code_points, slug


def label(code, concept, tone=""):
    return Label(code, concept, tone, (), "people-body", "person", 1)


INDEX = LabelIndex(
    [
        label("1F44B", "waving hand"),
        label("1F44B-1F3FB", "waving hand", "light"),
        label("1F45E", "man’s shoe"),
        label("1FA85", "piñata"),
        label("0023-20E3", "keycap: #"),
        label("1F355", "pizza"),
    ],
    {"1F355": ["slice_of_pizza", "waving_hand"], "FFFF": ["nothing"]},
)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("1f355", "1F355"), ("0023-fe0f-20e3", "0023-20E3"), ("23-20e3", "0023-20E3")],
)
def test_code_points(code, expected):
    assert code_points(code) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("man’s shoe", "mans-shoe"), ("piñata", "pinata"), ("kiss: man, man", "kiss-man-man")],
)
def test_slug(name, expected):
    assert slug(name) == expected


@pytest.mark.parametrize(
    ("name", "concept", "tone"),
    [
        ("waving-hand", "waving hand", ""),
        ("waving-hand-light", "waving hand", "light"),
        ("waving-hand-light-skin-tone", "waving hand", "light"),
        ("wavinghand", "waving hand", ""),
        ("mans-shoe", "man’s shoe", ""),
        ("pinata", "piñata", ""),
        ("slice-of-pizza", "pizza", ""),
        ("pizza-2", "pizza", ""),
    ],
)
def test_by_name(name, concept, tone):
    found = INDEX.by_name(name)
    assert (found.concept, found.tone) == (concept, tone)


def test_unknown_names_and_codes():
    assert INDEX.by_name("cracking-face") is None
    assert INDEX.by_code("1F9FF") is None
    assert INDEX.by_code("23-fe0f-20e3").concept == "keycap: #"
