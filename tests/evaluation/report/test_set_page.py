"""The page of one set: what decides its numbers, failures first, and nothing from elsewhere."""

import re

import numpy as np
import pytest

from calotype.evaluation.evaluate import evaluate
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.report.figures import decimals, facts, interval, worst_first
from calotype.evaluation.report.set_page import write_set_page
from calotype.evaluation.results import CHECKED, Number, Scores
from calotype.evaluation.samples import Sample, open_samples
from calotype.evaluation.suites.suite import Prompt, Suite

CAPTIONS = ("a red <script>alert(1)</script>", "a green square", "a blue square", "a yellow square")


@pytest.fixture
def found(eyes, noisy, tmp_path):
    """Four prompts of two categories, two images each; all of p2 are found wrong, "b" is left."""
    prompts = tuple(Prompt(f"p{n}", c, "a<b>"[: 1 + 3 * (n % 2)]) for n, c in enumerate(CAPTIONS))
    suite = Suite("s & t", prompts, "0" * 64, {"crop": "centre"})
    source = noisy(tmp_path / "in", seed=1, each=2)
    for path in source.glob("*.txt"):
        name = path.name.split("-")[0]
        caption = next((c for c in CAPTIONS if name in c), None)
        if caption is None:
            path.with_suffix(".png").unlink()
            path.unlink()
        else:
            path.write_text(caption)
    options = MeasureOptions(
        side=16,
        extractors=(ExtractorSpec("lite0"),),
        clip=ExtractorSpec("clip"),
        root=tmp_path / "cache",
        checks={"a": lambda image, prompt: prompt.id != "p2"},
    )
    return evaluate(source, suite, tmp_path / "e", options), tmp_path / "e"


def test_a_page_says_what_was_found_and_how(found):
    measured, folder = found
    html = (folder / "index.html").read_text()
    assert "<script" not in html and not re.search(r"https?://|@import|url\(", html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html and "s &amp; t" in html
    for number in measured.results.numbers:
        if number.group is None:
            assert f'<th scope="row">{number.label}</th>' in html
    for name, text in facts(measured.results):
        assert f'<th scope="row">{name}</th>' in html and text.split()[0] in html
    assert ("suite: crop", "centre") in facts(measured.results)
    assert html.count("<b>wrong</b>") == 2 and "50 % right" in html
    assert "people have to say" in html  # of the other category
    first = re.search(r"<h3>a</h3>.*?<figure([^>]*)>", html, re.S)
    assert "failed" in first[1]


def test_the_same_results_give_the_same_page(found, tmp_path):
    measured, folder = found
    before = (folder / "index.html").read_text()
    size = write_set_page(folder, measured.results, measured.scores, open_samples(folder))
    after = (folder / "index.html").read_text()
    assert size == len(after.encode())
    made = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d \S+")
    assert made.sub("", before) == made.sub("", after)


def test_numbers_in_few_digits():
    assert [decimals(value) for value in (0, -1e-14, 0.12345, 1.23456, 1234.5)] == [
        "0", "0", "0.1235", "1.235", "1,234.5",
    ]  # fmt: skip
    assert decimals(float("inf")) == "inf"
    number = Number(metric="m", value=1.0, count=2, higher_is_better=None)
    assert interval(number) == ""
    both = Number(metric="m", value=1.0, count=2, higher_is_better=None, low=0.5, high=150.0)
    assert interval(both) == "0.5000 – 150.0"


def test_failures_come_first_then_what_fits_least():
    samples = tuple(Sample(f"{n}", "c", f"p{n}", None, 0, None) for n in range(5))
    right = np.array([1, 0, np.nan, 0, 1])
    fits = np.array([30.0, 20.0, 5.0, 10.0, np.nan])
    scores = Scores(samples, {CHECKED: right, "CLIP score clip": fits})
    assert worst_first(scores, range(5)) == [3, 1, 2, 4, 0]
    assert worst_first(Scores(samples, {}), [2, 0, 1]) == [0, 1, 2]
