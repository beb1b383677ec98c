"""Only what was found in the same way is compared; what can be made equal is."""

import dataclasses
import io
import re
import shlex
import shutil
import sys

import numpy as np
import pytest
from eyes import NAMED
from PIL import Image

from calotype.errors import UsageError
from calotype.evaluation.compare import (
    differences,
    made_equal,
    open_entries,
    refuse_unequal,
)
from calotype.evaluation.evaluate import evaluate
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.report.compare_page import write_compare_page
from calotype.evaluation.scorers import parse_scorer
from calotype.evaluation.suites.suite import Prompt, Suite

NAMES = list(NAMED)


def suite_of(captions, name="colours"):
    prompts = [Prompt(f"p{n}", caption, "ab"[n % 2]) for n, caption in enumerate(captions)]
    return Suite(name, tuple(prompts), str(len(captions)) * 64)


SUITE = suite_of([f"a {name} square" for name in NAMES])


@pytest.fixture
def evaluated(eyes, colours, tmp_path):
    """Evaluate a folder of images; its folder."""

    def run(source, name, suite=SUITE, **changes):
        settings = {
            "side": 16,
            "extractors": (ExtractorSpec("lite0"),),
            "clip": ExtractorSpec("clip"),
            "reference": colours / "real",
            "root": tmp_path / "cache",
            **changes,
        }
        evaluate(source, suite, tmp_path / name, MeasureOptions(**settings))
        return tmp_path / name

    return run


def test_equal_sets_are_compared_and_the_sign_says_which_is_better(
    evaluated, colours, noisy, tmp_path
):
    exact = evaluated(colours / "real", "exact")
    worse = evaluated(noisy(tmp_path / "in", seed=1, noise=120), "worse")
    entries = open_entries([exact, worse])
    assert [entry.name for entry in entries] == ["exact", "worse"]
    refuse_unequal(entries)
    found = {one.score: one for one in differences(entries)}
    score = found["CLIP score clip-colours"]
    assert score.name == "worse" and score.estimate.count == 8
    means = [entry.results.number("CLIP score", "clip-colours").value for entry in entries]
    assert score.estimate.value == pytest.approx(means[1] - means[0]) and means[1] < means[0]
    assert score.estimate.low < score.estimate.value < score.estimate.high
    backwards = {one.score: one for one in differences(entries[::-1])}
    assert backwards["CLIP score clip-colours"].estimate.value == -score.estimate.value


@pytest.fixture
def unequal(evaluated, colours, noisy, tmp_path):
    """A set, and what makes another one unequal to it."""
    one = noisy(tmp_path / "one", seed=1)

    def other(what):
        name, again = f"other-{what}", noisy(tmp_path / f"in-{what}", seed=2)
        if what == "suites":
            return evaluated(again, name, dataclasses.replace(SUITE, sha256="f" * 64))
        if what == "numbers of images":
            return evaluated(noisy(tmp_path / "two", seed=2, each=2), name)
        if what == "image sizes":
            return evaluated(noisy(tmp_path / "large", seed=2, size=24), name)
        if what == "encodings":
            return evaluated(noisy(tmp_path / "jpegs", seed=2, kind="jpg"), name)
        if what == "sides before features":
            return evaluated(again, name, side=8)
        if what == "extractors":
            return evaluated(again, name, clip=None)
        return evaluated(again, name, reference=noisy(tmp_path / "real", seed=9))

    return evaluated(one, "first"), other


REMEDIES = {
    "suites": "evaluate them alike",
    "numbers of images": "--common",
    "image sizes": "--recode",
    "encodings": "--recode",
    "sides before features": "--side",
    "extractors": "--features and --clip",
    "references": "--reference",
}


@pytest.mark.parametrize("what", REMEDIES)
def test_what_was_not_found_alike_is_refused_with_its_remedy(unequal, what):
    first, other = unequal
    entries = open_entries([first, other(what)])
    with pytest.raises(UsageError, match=f"different {what}.*{REMEDIES[what]}") as caught:
        refuse_unequal(entries)
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError):  # in whichever order
        refuse_unequal(entries[::-1])


@pytest.mark.parametrize("what", ["numbers of images", "image sizes", "encodings"])
def test_what_can_be_made_equal_is(unequal, what, tmp_path):
    first, other = unequal
    entries = open_entries([first, other(what)])
    how = {"common": what == "numbers of images", "recode": None if what[0] == "n" else "png"}
    made = made_equal(entries, tmp_path / "parts", **how, say=lambda text: None)
    refuse_unequal(made)
    manifests = [entry.samples.manifest for entry in made]
    assert [m.count for m in manifests] == [8, 8] and {m.size for m in manifests} == {(16, 16)}
    assert {m.encoding for m in manifests} == {"png"}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "parts").rglob("*.parquet")}
    again = made_equal(entries, tmp_path / "parts", **how, say=lambda text: None)
    assert [a.results.numbers for a in again] == [m.results.numbers for m in made]
    kept = {p: t for p, t in before.items() if p.name != "scores.parquet"}
    assert len(kept) == 2 and all(p.stat().st_mtime_ns == t for p, t in kept.items())


def test_images_encoded_again_are_the_images(unequal, tmp_path):
    first, other = unequal
    entries = open_entries([first, other("encodings")])
    made = made_equal(entries, tmp_path / "parts", common=False, recode="png", say=lambda t: None)
    for before, after in zip(entries, made, strict=True):
        for row in range(8):
            one, two = (
                np.asarray(Image.open(io.BytesIO(entry.samples.encoded(row))).convert("RGB"))
                for entry in (before, after)
            )
            assert np.array_equal(one, two)
    as_jpeg = made_equal(entries, tmp_path / "j", common=False, recode="jpeg", say=lambda t: None)
    assert {entry.samples.manifest.encoding for entry in as_jpeg} == {"jpeg"}


def test_sets_without_a_prompt_in_common(evaluated, colours, noisy, tmp_path):
    one = evaluated(noisy(tmp_path / "in", seed=1), "one")
    other = suite_of([f"a {name} square" for name in NAMES])
    other = dataclasses.replace(
        other, prompts=tuple(dataclasses.replace(p, id=f"q{p.id}") for p in other.prompts)
    )
    two = evaluated(noisy(tmp_path / "in2", seed=2), "two", other)
    with pytest.raises(UsageError, match="no prompt in common"):
        made_equal(
            open_entries([one, two]), tmp_path / "p", common=True, recode=None, say=lambda t: None
        )
    assert not (tmp_path / "p").exists()


def test_names_tell_folders_apart(evaluated, colours, tmp_path):
    one = evaluated(colours / "real", "one")
    for parent in ("x", "y"):
        shutil.copytree(one, tmp_path / parent / "same")
    entries = open_entries([tmp_path / "x" / "same", tmp_path / "y" / "same"])
    assert [entry.name for entry in entries] == ["x-same", "y-same"]
    with pytest.raises(UsageError, match="one folder twice"):
        open_entries([one, one])
    with pytest.raises(UsageError, match="at least two"):
        open_entries([one])


def test_the_page_shows_failures_first_and_loads_nothing(evaluated, colours, noisy, tmp_path):
    captions = ["a red <script>alert(1)</script> square", *SUITE.captions[1:]]
    suite = suite_of(captions)
    source = noisy(tmp_path / "in", seed=1)
    (source / "red-0.txt").write_text(captions[0])
    both = [
        evaluated(source, name, suite, checks={"a": lambda image, prompt: prompt.id != "p4"})
        for name in ("one", "t&w<o>")
    ]
    write_compare_page(tmp_path / "page.html", open_entries(both))
    html = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in html and "&lt;script&gt;alert(1)" in html
    assert "t&amp;w&lt;o&gt;" in html and "<o>" not in html
    assert not re.search(r"https?://|@import|url\(|<script", html)
    places = [html.index(f"<h3><bdi>a {name}") for name in ("cyan", "red", "green")]
    assert places[0] == min(places)  # p4, which the check found wrong
    assert html.count("<b>wrong</b>") == 2 and "no difference is shown" in html


def test_a_clip_that_chose_the_images_is_not_said_to_prefer_them(
    evaluated, colours, noisy, tmp_path
):
    exact = evaluated(colours / "real", "exact")
    worse = evaluated(noisy(tmp_path / "in", seed=1, noise=120), "worse")
    first, second = open_entries([exact, worse])
    write_compare_page(tmp_path / "fair.html", [first, second])
    fair = (tmp_path / "fair.html").read_text()

    def chosen(number):
        is_its = number.metric == "CLIP score"
        return dataclasses.replace(
            number, notes=("no judge: it chose each image among 8",) * is_its
        )

    numbers = tuple(map(chosen, first.results.numbers))
    first = dataclasses.replace(first, results=dataclasses.replace(first.results, numbers=numbers))
    write_compare_page(tmp_path / "page.html", [first, second])
    page = (tmp_path / "page.html").read_text()
    assert page.count("no judge: it chose images of a set") == 1

    def line(html):
        return re.search(r'<th scope="row">CLIP score\[.*', html)[0]

    assert 'class="best"' in line(fair) and 'class="best"' not in line(page)


def test_programs_named_in_results_are_not_run_and_their_scores_kept(
    evaluated, colours, noisy, tmp_path
):
    """Results may come from anybody; images that are as they were have the scores of before."""
    import json

    score = (
        "import json, sys\nfor line in sys.stdin:\n"
        " print(json.dumps({'key': json.loads(line)['key'], 'score': 2}), flush=True)"
    )
    scorer = parse_scorer(f"two={sys.executable} -c {shlex.quote(score)}")
    checks = {"a": lambda image, prompt: prompt.id != "p4"}
    options = {"scorers": (scorer,), "checks": checks}
    folders = [
        evaluated(colours / "real", "one", **options),
        evaluated(noisy(tmp_path / "in", seed=1, each=2), "two", **options),
    ]
    ran = tmp_path / "ran"
    for folder in folders:
        path = folder / "results.json"
        data = json.loads(path.read_text())
        assert data["options"]["scorers"][0][0] == "two"
        data["options"]["scorers"] = [["two", "touch", str(ran)]]
        path.write_text(json.dumps(data))
    said = []
    entries = open_entries(folders)
    made = made_equal(entries, tmp_path / "c", common=True, recode=None, say=said.append)
    for entry in made:
        assert entry.results.number("two").value == 2 and entry.results.number("two").count == 8
        assert entry.results.number("right", group="a").value == 0.75
    assert not ran.exists() and not any("left out" in line for line in said)
    made = made_equal(entries, tmp_path / "r", common=True, recode="png", say=said.append)
    assert made[0].results.number("two") is None and not ran.exists()
    assert any("left out: two, right" in line for line in said)


def test_images_of_several_sizes_are_brought_to_the_smallest(evaluated, noisy, tmp_path):
    mixed = noisy(tmp_path / "in", seed=1)
    Image.new("RGB", (40, 20), "red").save(mixed / "red-0.png")
    Image.new("RGB", (30, 12), "green").save(mixed / "green-0.png")
    folders = [evaluated(mixed, "mixed"), evaluated(noisy(tmp_path / "in2", seed=2), "plain")]
    entries = open_entries(folders)
    with pytest.raises(UsageError, match=r"different image sizes: None and .*--recode"):
        refuse_unequal(entries)
    made = made_equal(entries, tmp_path / "p", common=False, recode="png", say=lambda t: None)
    refuse_unequal(made)
    assert {entry.samples.manifest.size for entry in made} == {(12, 12)}


def test_a_suites_own_rules_judge_images_that_are_encoded_again(
    evaluated, colours, noisy, tmp_path
):
    checks = {"a": lambda image, prompt: prompt.id != "p4"}
    folders = [
        evaluated(colours / "real", "one", checks=checks),
        evaluated(noisy(tmp_path / "in", seed=1, size=24), "two", checks=checks),
    ]
    seen, said = [], []

    def rules(suite, reference):
        assert (suite.sha256, reference) == (SUITE.sha256, colours / "real")
        return {"a": lambda image, prompt: seen.append(tuple(image.shape)) or prompt.id == "p4"}

    how = {"common": False, "recode": "png", "say": said.append, "rules": rules}
    made = made_equal(open_entries(folders), tmp_path / "r", **how)
    for entry in made:
        assert entry.results.number("right", group="a").value == 0.25  # not that of before
        assert list(entry.results.left_to_people) == ["b"]
        assert np.nansum(entry.scores.columns["right"]) == 1
    assert seen == [(3, 16, 16)] * 8 and not any("left out" in line for line in said)
    plain = [evaluated(colours / "real", "three"), evaluated(colours / "real", "four")]
    made = made_equal(open_entries(plain), tmp_path / "p", **how)
    assert made[0].results.number("right", group="a") is None and len(seen) == 8


def test_what_is_left_to_people_stays_where_images_do(evaluated, colours, noisy, tmp_path):
    checks = {"a": lambda image, prompt: True}
    folders = [
        evaluated(colours / "real", "one", checks=checks),
        evaluated(noisy(tmp_path / "in", seed=1, each=2), "two", checks=checks),
    ]
    how = {"common": True, "recode": None, "say": lambda text: None}
    for entry in made_equal(open_entries(folders), tmp_path / "r", **how):
        assert list(entry.results.left_to_people) == ["b"]
