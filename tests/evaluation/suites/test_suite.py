"""The records of suites: what is refused, and which prompts a subset keeps."""

from __future__ import annotations

import hashlib

import pytest

from calotype.errors import UsageError
from calotype.evaluation.suites.suite import LONGEST_CAPTION, Prompt, Suite, first_by_hash, subset


def _suite(*captions: str) -> Suite:
    prompts = tuple(Prompt(str(i), caption) for i, caption in enumerate(captions))
    return Suite("test", prompts, "0" * 64)


def test_a_subset_is_the_first_by_hash_in_the_suites_order() -> None:
    suite = _suite(*(f"caption {i}" for i in range(50)))
    hashes = sorted((hashlib.sha256(str(i).encode()).hexdigest(), i) for i in range(50))
    expected = sorted(i for _, i in hashes[:7])
    part = subset(suite, 7)
    assert [int(prompt.id) for prompt in part.prompts] == expected
    assert part.name == "test, 7 of 50 prompts"
    assert part.choices == {"prompts": "7 of 50, first by SHA-256 of the id"}
    assert part.sha256 == suite.sha256
    assert set(part.prompts) <= set(subset(suite, 20).prompts)


def test_the_whole_suite_is_no_subset() -> None:
    suite = _suite("a", "b")
    assert subset(suite, None) is suite
    assert subset(suite, 2) is suite


@pytest.mark.parametrize("count", [0, -1, 3])
def test_a_subset_of_an_impossible_size_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match="expected 1 to 2"):
        subset(_suite("a", "b"), count)


def test_hash_order_does_not_depend_on_the_order_of_ids() -> None:
    ids = [str(i) for i in range(30)]
    assert first_by_hash(ids, 5) == first_by_hash(reversed(ids), 5)


def test_equal_captions_are_prompts_of_their_own() -> None:
    suite = _suite("a cat", "a cat")
    assert suite.captions == ("a cat", "a cat")


def test_categories_keep_their_order() -> None:
    prompts = (
        Prompt("1", "x", "b"), Prompt("2", "y", "a"), Prompt("3", "z", "b"), Prompt("4", "w"),
    )  # fmt: skip
    assert Suite("s", prompts, "").categories == ("b", "a")


@pytest.mark.parametrize(
    "caption", ["$x^2$ and $", "<script>alert(1)</script>", "قطة تشرب الشاي", "\u202eabc", "a\tb"]
)
def test_strange_but_possible_captions_are_kept(caption: str) -> None:
    assert _suite(caption).captions == (caption,)


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        (" ", "is empty"),
        ("a\0b", "NUL"),
        ("a\ud800b", "surrogate"),
        ("x" * (LONGEST_CAPTION + 1), "got 100,001 characters"),
    ],
)
def test_impossible_captions_are_refused_in_a_line(caption: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        _suite("a", caption)
    assert "'1'" in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_an_empty_suite_and_an_id_twice_are_refused() -> None:
    with pytest.raises(UsageError, match="no prompts"):
        _suite()
    with pytest.raises(UsageError, match="2 prompts with the id 'a'"):
        Suite("test", (Prompt("a", "x"), Prompt("a", "y")), "")
