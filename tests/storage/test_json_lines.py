import json
from pathlib import Path

import pytest

from calotype.errors import CalotypeError
from calotype.storage.json_lines import JsonLines, cut_back, read_lines


@pytest.fixture
def log(tmp_path):
    log = JsonLines(tmp_path / "log.jsonl")
    for images in (4, 8, 12, 16):
        log.write({"images": images, "loss": images / 3})
    yield log
    log.close()


def _images(log):
    return [json.loads(line)["images"] for line in log.path.read_text().splitlines()]


def test_lines_after_the_checkpoint_are_dropped(log):
    assert cut_back(log.path, "images", 8) == 2
    assert _images(log) == [4, 8]
    assert cut_back(log.path, "images", 8) == 0


def test_a_line_that_was_not_finished_is_dropped(log):
    with log.path.open("a") as file:
        file.write('{"images": 1')
    assert cut_back(log.path, "images", 100) == 1
    assert _images(log) == [4, 8, 12, 16]


def test_an_open_log_goes_on_behind_the_cut(log):
    log.cut_back("images", 8)
    log.write({"images": 9})
    assert _images(log) == [4, 8, 9]


def test_numbers_that_json_does_not_know_become_null(log):
    log.write({"images": 20, "loss": float("nan"), "more": {"a": [float("inf"), 1.5]}})
    last = log.path.read_text().splitlines()[-1]
    assert json.loads(last) == {"images": 20, "loss": None, "more": {"a": [None, 1.5]}}


def test_floats_are_exact(log):
    assert json.loads(log.path.read_text().splitlines()[0])["loss"] == 4 / 3


def test_lines_are_read_while_they_grow(log):
    with log.path.open("a") as file:
        file.write('[1]\n{"images": 20}\n{"images": 2')
    assert [line["images"] for line in read_lines(log.path)] == [4, 8, 12, 16, 20]


def test_no_file_is_no_error(tmp_path):
    assert cut_back(tmp_path / "none", "images", 5) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a disk that is always full")
def test_a_full_disk_is_one_line_that_says_how_much(tmp_path):
    full = JsonLines(Path("/dev/full"), way_out="make room")
    line = {"images": 4, "loss": 0.5}
    needed = len(json.dumps(line)) + 1
    with pytest.raises(CalotypeError, match=rf"No space left.*{needed} bytes needed") as error:
        full.write(line)
    assert "\n" not in str(error.value) and "make room" in str(error.value)
    with pytest.raises(CalotypeError, match="No space left"):
        full.close()


def test_29_numbers_beyond_all_floats_are_cut(tmp_path):
    path = tmp_path / "log.jsonl"
    good = '{"images": 4}\n'
    path.write_text(good + '{"images": 1' + "0" * 400 + "}\n" + '{"images": 9' + "0" * 5000 + "}\n")
    assert cut_back(path, "images", 8) == 2
    assert path.read_text() == good


def test_a_full_disk_names_the_log_and_leaves_it(log, monkeypatch):
    """Finding 35: at the start of a resumed run."""

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("calotype.storage.files._flush", full)
    with pytest.raises(CalotypeError, match=r"log\.jsonl: No space left"):
        cut_back(log.path, "images", 8)
    assert _images(log) == [4, 8, 12, 16]
