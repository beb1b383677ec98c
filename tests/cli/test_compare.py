"""`calotype compare` as a user calls it."""

import json
import os

import pytest


@pytest.fixture
def evaluated(command, eyes, colours, noisy, tmp_path):
    """Evaluate images of colours under a name; PNG or JPEG, of a size, some of each prompt."""

    def run(name, **options):
        source = noisy(tmp_path / f"in-{name}", seed=len(name), **options)
        words = ("--suite", str(colours / "suite.txt"), "--reference", str(colours / "real"))
        code, _, err = command("evaluate", str(source), *words, "-o", name, "--side", "16")
        assert code == 0, err

    return run


def test_a_page_of_several_sets(command, evaluated, tmp_path):
    for name in ("a", "bb", "ccc"):
        evaluated(name)
    code, out, err = command("compare", "a", "bb", "ccc", "-o", "page.html")
    assert (code, err) == (0, "") and out.startswith("page.html: ")
    html = (tmp_path / "page.html").read_text()
    assert "Differences to a" in html and html.count('class="card pair"') == 8
    assert not (tmp_path / "page.parts").exists()
    code, out, _ = command("compare", "a", "bb", "-o", "page.html", "--json")
    found = json.loads(out)
    assert code == 0 and found == {"page": "page.html", "bytes": os.stat("page.html").st_size}


def test_unequal_sets_become_equal(command, evaluated, tmp_path):
    evaluated("a")
    evaluated("jpegs", kind="jpg", size=24, each=2)
    for words, message in (
        ((), "different numbers of images"),
        (("--common",), "different image sizes"),
        (("--recode", "png"), "different numbers of images"),
        (("--recode", "gif"), "expected png or jpeg"),
    ):
        code, out, err = command("compare", "a", "jpegs", "-o", "page.html", *words)
        assert (code, out, err.count("\n")) == (2, "", 1) and message in err
        assert not (tmp_path / "page.html").exists() and not (tmp_path / "page.parts").exists()
    words = ("--common", "--recode", "jpeg")
    code, _, err = command("compare", "a", "jpegs", "-o", "page.html", *words)
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "page.parts").iterdir()) == ["a", "jpegs"]
    assert err.count("making ") == 2
    # The parts are evaluations: they can be compared as any others.
    words = ("page.parts/a", "page.parts/jpegs", "-o", "again.html")
    assert command("compare", *words)[0] == 0


def test_places_that_cannot_be_written_to(command, evaluated, tmp_path):
    for name in ("a", "bb"):
        evaluated(name)
    (tmp_path / "page.parts").write_text("mine")
    for words, message in (
        (("-o", "no/page.html"), "make it first"),
        (("-o", "a"), "expected a file name"),
        (("-o", "/dev/null"), "a device"),
        (("-o", "page.html", "--recode", "png"), "page.parts"),
    ):
        code, out, err = command("compare", "a", "bb", *words)
        assert code in (1, 2) and out == "" and "defect" not in err
        assert message in err.splitlines()[-1], err
    assert (tmp_path / "page.parts").read_text() == "mine"
    assert not (tmp_path / "page.html").exists()
    for words in (("a",), ("a", "a"), ("a", "nowhere"), ("a", "in-a")):
        code, out, err = command("compare", *words, "-o", "page.html")
        assert (code, out, err.count("\n")) == (2, "", 1), err
