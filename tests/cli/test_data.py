"""The data commands on a small real folder, each by its name."""

import dataclasses
import json
import os
import sys
import types
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore


@pytest.fixture
def images(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"text {number}")
    (root / "broken.png").write_bytes(b"")
    return root


def test_shard_then_verify_then_embed(command, images, tmp_path):
    words = ("data", "shard", "images", "--out", "shards", "--rows", "3", "--processes", "1")
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert "8  images in shards" in out
    assert "3  shards, 0 of them there already" in out
    assert "broken.png: empty file (0 bytes)" in out
    assert "3  shards, 3 of them there already" in command(*words)[1]

    code, out, err = command("data", "verify", "shards", "--json", "--processes", "1")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert (report["examples"], report["usable"], report["broken"]) == (8, 8, 0)

    words = ("data", "embed", "shards", "--encoder", "bytes:8", "--processes", "1")
    code, out, _ = command(*words)
    assert code == 0
    assert "8  embedded now" in out
    store = CaptionStore(*store_cards(tmp_path / "shards/embeddings"))
    assert store.missing([f"text {n}" for n in range(8)]) == []
    assert "0  embedded now" in command(*words)[1]
    code, out, _ = command(*words, "--precision", "int8", "--out", "elsewhere")
    assert code == 0
    assert CaptionStore(*store_cards(tmp_path / "elsewhere")).card.precision == "int8"


def test_verify_names_what_is_wrong(command, images, tmp_path):
    (images / "0.txt").write_bytes(b"B\xe4r")
    (images / "1.txt").unlink()
    words = ("data", "verify", "images", "--processes", "1")
    code, out, _ = command(*words, "--out", "report.json")
    assert code == 0
    assert "9  examples, 8 usable" in out
    assert "1  broken (11.1%)\n           broken.png: empty file (0 bytes)" in out
    assert "2  without a caption" in out
    assert "1  with a faulty caption, mended or left out\n           0.png" in out
    assert json.loads((tmp_path / "report.json").read_text())["parts"][""]["broken"]
    assert json.loads(command(*words, "--json")[1])["data"] == "images"


def never(*_, **__):
    raise AssertionError("the work was begun")


@pytest.mark.parametrize("words", [["verify", "images", "--out"], ["stats", "images", "-o"]])
@pytest.mark.parametrize("out", ["no/such/file", ".", "pipe"])
def test_7_outputs_are_checked_before_the_work(command, images, monkeypatch, words, out):
    monkeypatch.setattr("calotype.data.verify.open_for_work", never)
    os.mkfifo(images.parent / "pipe")
    code, _, err = command("data", *words, out, "--processes", "1")
    assert (code, err.count("\n")) == (2, 1)
    assert (images.parent / "pipe").is_fifo()  # a device would be gone for everybody


@pytest.mark.parametrize("words", [["verify", "images", "--out"], ["stats", "images", "-o"]])
def test_7_a_full_disk_leaves_what_was_there(command, images, monkeypatch, words):
    old = images.parent / "report"
    old.write_text("of yesterday")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, _, err = command("data", *words, "report", "--processes", "1")
    assert (code, err.count("\n")) == (1, 1)
    assert "cannot write report: No space left on device" in err
    assert old.read_text() == "of yesterday"
    left = {p.name for p in images.parent.iterdir()} - {".cache"}  # of fonts, by matplotlib
    assert left == {"images", "report"}


def test_10_the_printed_count_is_what_lies_there(command, images, tmp_path):
    words = ("data", "shard", "images", "-o", "s", "--processes", "1", "--rows")
    assert "8  images in s" in command(*words, "8")[1]
    code, _, err = command(*words, "3")
    assert (code, err.count("\n")) == (2, 1)
    assert "choose another --out, or move them away" in err
    code, out, _ = command("data", "verify", "s", "--json", "--processes", "1")
    assert json.loads(out)["examples"] == 8


@pytest.mark.parametrize("name", ["emoji", "shard", "embed", "verify", "stats"])
def test_35_out_is_spelled_alike(command, name):
    code, out, _ = command("data", name, "--help")
    assert code == 0 and "-o, --out" in out


def test_35_the_old_spelling_of_stats_goes_on_working(command, images, tmp_path):
    words = ("data", "stats", "images", "--processes", "1", "--output", "a.svg")
    assert command(*words)[:2] == (0, "a.svg\n")


def test_35_progress_is_told_without_a_terminal(command, images, monkeypatch):
    monkeypatch.setattr("calotype.progress.LINE_SECONDS", 0.0)
    words = ("data", "verify", "images", "--processes", "1")
    assert command(*words)[2] == "images: 9\n"
    assert command(*words, "--json")[2] == ""


def test_11_13_14_15_verify_tells_what_is_passed_over(command, images):
    (images / "a.heic").write_bytes(b"")
    (images / "backup.tar").write_bytes(b"")
    out = command("data", "verify", "images", "--processes", "1")[1]
    assert "2  files and folders passed over\n" in out
    assert "           1 unknown file: .heic\n" in out
    assert "           1 tar: backup.tar\n" in out


def test_stats_draw_or_print(command, images, tmp_path):
    code, out, _ = command("data", "stats", "images", "-o", "stats.svg", "--processes", "1")
    assert (code, out) == (0, "stats.svg\n")
    assert ET.parse(tmp_path / "stats.svg").getroot().tag.endswith("svg")
    assert "characters of a caption" in command("data", "stats", "images", "--processes", "1")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["verify", "none"], "does not exist"),
        (["shard", "images", "--out", "images"], "both source and target"),
        (["shard", "images", "--out", "s", "--rows", "0"], "rows=0"),
        (["shard", "images", "--out", "s", "--processes", "0"], "processes=0"),
        (["embed", "images", "--encoder", "minilmm"], "'minilmm'"),
        (["embed", "images", "--precision", "int4"], "'int4'"),
        (["embed", "images", "--encoder", "none"], "'none'"),
        (["embed", "one.parquet"], "give --out"),
        (["embed", "images", "--gpus-per-worker", "0.5"], "without --ray"),
        (["embed", "images", "--ray", "local", "--gpus-per-worker", "0"], "got --gpus"),
    ],
)
def test_wrong_input_is_one_line(command, images, words, message):
    code, out, err = command("data", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_a_parquet_file_without_images_or_captions(command, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    for column in ("image", "text"):
        parquet.write_table(pa.table({column: [b"x"]}), tmp_path / "a.parquet")
        for words in (["verify", "a.parquet"], ["shard", "a.parquet", "--out", "s"]):
            code, _, err = command("data", *words)
            assert (code, err.count("\n")) == (2, 1)
            assert f"got columns ['{column}']" in err


@pytest.mark.parametrize(
    ("words", "address"),
    [
        (["d", "--ray"], "auto"),
        (["--ray", "d"], "auto"),
        (["d", "--ray", "--json"], "auto"),
        (["--ray", "local", "d"], "local"),
        (["d", "--ray", "head:6379"], "head:6379"),
        (["--ray", "ray://head:10001", "d"], "ray://head:10001"),
        (["d", "--ray=head:6379"], "head:6379"),
        (["d"], None),
    ],
)
def test_rays_address_may_be_left_out(command, monkeypatch, words, address):
    calls = []

    def verify_data(path, **options):
        calls.append((str(path), options["work"].ray))
        return types.SimpleNamespace(parts={}, to_dict=dict)

    module = types.ModuleType("calotype.data.verify")
    module.verify_data = verify_data
    monkeypatch.setitem(sys.modules, "calotype.data.verify", module)
    assert command("data", "verify", *words)[0] == 0
    assert calls == [("d", address)]


def test_without_ray_the_extra_is_named(command, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = command("data", "verify", "images", "--ray", "local")
    assert (code, err.count("\n")) == (1, 1)
    assert "calotype[ray]" in err


def test_actors_that_embed_get_their_share_of_a_gpu(command, images, monkeypatch):
    asked = {}

    def actor_map(items, make, **options):
        asked.update(options, encoder=make.args[0].encoder)
        here = dataclasses.replace(make.args[0], gpus=0.0)
        return [make.func(here)(item) for item in items]

    monkeypatch.setattr("calotype.data.ray_jobs.ray_actor_map", actor_map)
    words = ("data", "embed", "images", "--encoder", "bytes:8", "--processes", "3", "--ray")
    code, out, err = command(*words, "--gpus-per-worker", "0.25")
    assert (code, err) == (0, "")
    assert "8  embedded now" in out
    assert asked == {"address": "auto", "workers": 3, "gpus": 0.25, "encoder": "bytes:8"}


@pytest.mark.parametrize("words", [["shard", "--out", "s"], ["embed", "--encoder", "bytes:8"]])
def test_14_25_other_commands_tell_what_they_do_not_use(command, images, words):
    (images / "backup.tar").write_bytes(b"")
    (images / "metadata.jsonl").write_text('{"file_name": "a\\u0000.png", "text": "x"}')
    code, _, err = command("data", *words, "images", "--processes", "1")
    assert (code, err.count("\n")) == (0, 1)
    assert "1 fault of metadata (metadata.jsonl:1 names" in err
    assert "1 tar ignored (backup.tar)" in err
    text = command("data", "stats", "images", "--processes", "1")[1]
    assert "1 faults of metadata, 1 files and folders passed over" in text
