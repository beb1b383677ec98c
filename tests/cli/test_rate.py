"""`calotype rate`: what is printed, and which mistakes are one line."""

import json

import numpy as np
import pytest
from PIL import Image

CAPTIONS = ("a red apple", "two dogs")


@pytest.fixture
def folders(tmp_path):
    """Two plain folders of images with captions, and the prompts."""
    for shade, name in ((50, "one"), (200, "two")):
        (tmp_path / name).mkdir()
        for number, caption in enumerate(CAPTIONS):
            pixels = np.full((16, 16, 3), shade + number, np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(caption)
    (tmp_path / "prompts.txt").write_text("\n".join(CAPTIONS) + "\n")


NEW = ("rate", "new", "s", "--set", "a=one", "--set", "b=two", "--suite", "prompts.txt")


def test_new_makes_a_study_of_plain_folders(command, folders, tmp_path):
    code, out, error = command(*NEW, "--protocol", "elo", "--raters", "3")
    assert (code, error) == (0, "")
    assert "s: 2 trials and 1 for control" in out
    assert "planned: 3 raters a trial, 6 judgements of each question" in out
    assert json.loads((tmp_path / "s" / "study.json").read_text())["protocol"] == "elo"
    code, out, error = command(*NEW, "--protocol", "elo", "--json")
    assert code == 2 and error.count("\n") == 1 and "exists and is not empty" in error


def test_report_says_that_there_is_too_little(command, folders, tmp_path):
    assert command(*NEW, "--protocol", "elo")[0] == 0
    code, out, error = command("rate", "report", "s")
    assert (code, error) == (0, "") and "report/report.html: open it" in out
    assert (tmp_path / "s" / "report" / "report.json").is_file()
    code, _, error = command("rate", "report", "none")
    assert code == 2 and error.count("\n") == 1 and "calotype rate new made" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "x"), "expected one of drawbench, realism, caption, elo"),
        (("--protocol", "elo", "--set", "c"), "got 'c'; expected --set NAME=DIR"),
        (("--protocol", "elo", "--set", "a=two"), "got 'a' twice"),
        (("--protocol", "elo", "--set", "c=missing"), "missing"),
        (("--protocol", "elo", "--best-of", "a=x"), "expected NAME=K:SCORER:FILE"),
        (("--protocol", "elo", "--best-of", "a=2:clip:none"), "cannot read the scores none"),
        (("--protocol", "elo", "--consent", "none.txt"), "cannot read none.txt"),
        (("--protocol", "elo", "--transform", "a=melt:3"), "got the transform 'melt:3'"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_made(command, folders, tmp_path, options, message):
    code, _, error = command(*NEW, *options)
    assert code == 2 and error.count("\n") == 1 and message in error, error
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ((), 2, "cannot read none/study.json"),
        (("--host", "0.0.0.0"), 2, "cannot read none/study.json"),
    ],
)
def test_serve_needs_a_study(command, options, code, message):
    found, _, error = command("rate", "serve", "none", *options)
    assert found == code and error.count("\n") == 1 and message in error


def test_serve_refuses_what_cannot_be_reached(command, folders, tmp_path):
    assert command(*NEW, "--protocol", "elo")[0] == 0
    for options, message in (
        (("--host", "0.0.0.0"), "expected --public-url"),
        (("--public-url", "rate.example"), "got --public-url 'rate.example'"),
        (("--public-url", "https://a.example/x"), "expected no path"),
        (("--host", "192.0.2.1", "--port", "0"), "cannot listen at 192.0.2.1"),
        (("--port", "99999"), "cannot listen at 127.0.0.1 port 99999"),
    ):
        code, _, error = command("rate", "serve", "s", *options)
        assert code in (1, 2) and error.count("\n") == 1 and message in error, error
    image = next((tmp_path / "s" / "images").iterdir())
    image.write_bytes(b"x")
    code, _, error = command("rate", "serve", "s")
    assert code == 1 and "of the study has changed; put it back" in error
