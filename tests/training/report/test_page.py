import base64
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from calotype.cli import app, run
from calotype.errors import UsageError
from calotype.training.record import read_run
from calotype.training.report import write_report
from calotype.training.report.page import render

_VOID = {"meta", "img", "input", "link"}


class _Page(HTMLParser):
    """Tags with their attributes, whether they are closed in order, and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def page(write_run):
    return _Page(render(read_run(write_run())))


def test_all_that_was_logged_has_its_chart(page):
    labels = [svg["aria-label"] for svg in page.all("svg")]
    titles = [label.partition(";")[0] for label in labels]
    assert titles[:8] == [
        "Loss",
        "Training loss by noise level",
        "Gradient norm",
        "Learning rate",
        *(f"sigma/alpha {r}" for r in ("20", "5", "2", "1")),
    ]
    assert titles[-4:] == [
        "Images a second",
        "Fraction of time waiting for data",
        "FLOP/s",
        "Fraction of the measured peak",
    ]
    assert "learning rate 0.001" in labels[3]
    assert "smoothed 50" in labels[-4] and "smoothed 2 %" in labels[-3]
    assert "smoothed 6G" in labels[-2] and "smoothed 30 %" in labels[-1]
    assert "measured peak is about 20 GFLOP/s" in page.text


def test_facts_of_the_run(page):
    words = " ".join(page.text.split())
    assert "images seen960" in words
    assert "0 min 19 s" in words  # 960 images at 50 a second
    assert "time in validations0 min 24 s" in words
    assert "120 steps" in words and "torch2.x" in words and "devicecpu" in words
    assert "8 px" in words and "32 px" in words  # bounds of the stages
    assert "not finite" in words


def test_samples_are_embedded_by_stage(page):
    images = page.all("img")
    assert len(images) == 12
    assert images[0]["alt"] == "Samples after 80 images"
    for image in images:
        kind, data = image["src"].split(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data)[:4] == b"\x89PNG"
    assert sum("data-film" in attrs for _, attrs in page.tags) == 3


def test_nothing_is_fetched(write_run):
    html = render(read_run(write_run()))
    page = _Page(html)
    assert not page.all("link") and not page.all("iframe")
    for name, attrs in page.tags:
        for key in ("src", "href", "action"):
            assert attrs.get(key, "data:").startswith("data:"), name
    assert not re.search(r"https?://|@import|url\(", html)
    assert "default-src 'none'" in html


def test_hostile_text_stays_text(write_run):
    hostile = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'"
    folder = write_run(name=hostile, note=hostile)
    recipe = json.loads((folder / "recipe.json").read_text())
    recipe["stages"][0]["grid_captions"] = [hostile, "\ud800"]
    (folder / "recipe.json").write_text(json.dumps(recipe))
    page = _Page(render(read_run(folder)))
    assert len(page.all("script")) == 1 and len(page.all("img")) == 12
    assert page.text.count(hostile) >= 4  # title, heading, note, caption
    assert "<b>one</b>" in page.text and not page.all("b")
    write_report(folder, folder / "report.html")
    assert (folder / "report.html").read_text("utf-8")


def test_a_run_still_going(write_run):
    folder = write_run()
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"images": 968, "loss": 0.')
    with (folder / "log.jsonl").open("ab") as log:
        log.write(b"\xff\xfe")
    (folder / "recipe.json").unlink()
    (folder / "grids" / "960.png").write_bytes(b"\x89PNG half")
    for path in (folder / "checkpoints/80").iterdir():
        path.unlink()
    record = read_run(folder)
    assert record.images == 960 and record.total_images is None and record.state == {}
    assert len(_Page(render(record)).all("img")) == 11


def test_a_log_of_before_has_fewer_charts(write_run):
    folder = write_run()
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    old = ("images", "stage", "loss", "grad_norm", "lr", "images_per_second")
    text = "".join(json.dumps({k: line[k] for k in old}) + "\n" for line in lines[:1])
    (folder / "log.jsonl").write_text(text)
    (folder / "validation.jsonl").unlink()
    page = _Page(render(read_run(folder)))
    assert len(page.all("svg")) == 4
    assert "Not in this run's log: Fraction of time waiting for data" in page.text
    assert "No validation yet" in page.text


def test_nan_and_null_in_a_log(write_run):
    folder = write_run()
    line = {"images": 968, "stage": 32, "loss": None, "grad_norm": float("nan"), "lr": "x"}
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n[1]\n" + json.dumps({**line, "images": 976}) + "\n")
    record = read_run(folder)
    assert record.images == 976
    html = render(record)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html).lower()


def test_large_samples_become_small(write_run):
    folder = write_run()
    noise = np.random.default_rng(0).integers(0, 256, (1000, 3000, 3), np.uint8)
    Image.fromarray(noise).save(folder / "grids" / "960.png", compress_level=1)
    last = _Page(render(read_run(folder))).all("img")[-1]
    assert last["src"].startswith("data:image/jpeg") and last["width"] == "1400"
    assert len(last["src"]) < 2_000_000


def test_many_samples_are_chosen_from(write_run):
    folder = write_run()
    for images in range(1, 80):
        Image.new("RGB", (4, 4)).save(folder / "grids" / f"{images}.png")
    page = _Page(render(read_run(folder)))
    assert len(page.all("img")) == 24 + 8
    assert page.all("img")[0]["alt"] == "Samples after 1 images"
    assert page.all("img")[23]["alt"] == "Samples after 320 images"
    assert "24 of 83 sheets" in page.text


@pytest.mark.slow
def test_command(write_run, tmp_path):
    folder = write_run()
    result = CliRunner().invoke(app, ["report", str(folder)])
    assert result.exit_code == 0 and "report.html" in result.output
    assert (folder / "report.html").read_bytes().startswith(b"<!doctype html>")
    other = tmp_path / "other.html"
    result = CliRunner().invoke(app, ["report", str(folder), "-o", str(other), "--json"])
    assert json.loads(result.output) == {"file": str(other), "bytes": other.stat().st_size}
    assert {p.name for p in tmp_path.iterdir()} == {"run", "other.html"}


def test_a_folder_that_is_no_run(tmp_path, capsys):
    for text, match in ((None, "no log.jsonl"), ("", "no step yet"), ("notes\n[]\n", "no step")):
        if text is not None:
            (tmp_path / "log.jsonl").write_text(text)
        with pytest.raises(UsageError, match=match):
            read_run(tmp_path)
    assert run(["report", str(tmp_path)]) == 2
    (tmp_path / "64").mkdir()
    (tmp_path / "log.jsonl").rename(tmp_path / "64" / "log.jsonl")
    with pytest.raises(UsageError, match="holds the runs 64: name one"):
        read_run(tmp_path)
    assert run(["report", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 2
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("value", ["1" + "0" * 400, "9" * 5000, "Infinity", "NaN", "1e999"])
def test_29_numbers_beyond_all_floats_are_left_out(write_run, tmp_path, value):
    run = write_run(steps=4)
    lines = (run / "log.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    for name in last:
        lines.append(json.dumps({**last, name: "HERE"}).replace('"HERE"', value))
    lines.append('{"images": ' + "[" * 100_000)
    (run / "log.jsonl").write_text("\n".join(lines) + "\n")
    check = {"images": 96, "stage": 32, "seconds": "HERE", "validation": {"1": "HERE"}}
    text = json.dumps(check).replace('"HERE"', value)
    (run / "validation.jsonl").write_text(text + "\n")
    write_report(run, tmp_path / "page.html")
    assert "<svg" in (tmp_path / "page.html").read_text()
