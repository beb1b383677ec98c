import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.open import open_source
from calotype.data.shard import shard_data
from calotype.data.work import Work
from calotype.errors import CalotypeError, UsageError


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"text {number}")
    (root / "5.png").write_bytes(b"broken")
    return root


def test_shards_hold_the_same_examples(folder, tmp_path):
    results = shard_data(folder, tmp_path / "out", rows=3)
    assert [r.rows for r in results] == [3, 2, 1]
    assert [r.path.name for r in results] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert results[1].broken == {"5.png": "not an image in a known format"}
    before = open_source(folder, resolution=8, data=DataConfig())
    after = open_source(tmp_path / "out", resolution=8, data=DataConfig())
    for index, original in enumerate([0, 1, 2, 3, 4, 6]):
        assert after.key(index) == before.key(original)
        assert after.captions(index) == before.captions(original)
        assert after.image_bytes(index) == before.image_bytes(original)
    assert b"huggingface" in pq.read_schema(results[0].path).metadata


def test_a_second_run_skips_what_is_there(folder, tmp_path):
    first = shard_data(folder, tmp_path / "out", rows=3)
    times = [r.path.stat().st_mtime_ns for r in first]
    first[1].path.unlink()
    second = shard_data(folder, tmp_path / "out", rows=3)
    assert [r.skipped for r in second] == [True, False, True]
    assert [r.rows for r in second] == [3, 2, 1]
    assert second[0].path.stat().st_mtime_ns == times[0]


def tree(folder):
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_10_shards_of_other_data_or_rows_are_never_mixed(folder, tmp_path):
    out = tmp_path / "out"
    shard_data(folder, out, rows=3)
    before = tree(out)
    with pytest.raises(UsageError, match=r"out holds 3 shards .* another --rows, e\.g\. 00000"):
        shard_data(folder, out, rows=4)
    (folder / "0.txt").write_text("another caption")
    with pytest.raises(UsageError, match="made from other data"):
        shard_data(folder, out, rows=3)
    assert tree(out) == before


@pytest.mark.parametrize("name", ["00009.parquet", "256/00000.parquet", "data/mine.parquet"])
def test_10_parquet_that_would_be_read_as_well_is_refused(folder, tmp_path, name):
    mine = tmp_path / "out" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(UsageError, match=f"holds 1 shards .* e.g. {name}"):
        shard_data(folder, tmp_path / "out", rows=3)
    assert [file.read_bytes() for file in tree(tmp_path / "out")] == [b"mine"]


def test_10_other_files_beside_shards_stay(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("README.md", "0.parquet.partial", "00000.parquet.bak"):
        (out / name).write_text("mine")
    shard_data(folder, out, rows=3)
    assert sum(text == b"mine" for text in tree(out).values()) == 3


def test_sharded_shards_are_the_same_again(folder, tmp_path):
    shard_data(folder, tmp_path / "one", rows=3)
    shard_data(tmp_path / "one", tmp_path / "two", rows=4)
    one = open_source(tmp_path / "one", resolution=8, data=DataConfig())
    two = open_source(tmp_path / "two", resolution=8, data=DataConfig())
    assert [one.key(i) for i in range(6)] == [two.key(i) for i in range(6)]
    assert [one.captions(i) for i in range(6)] == [two.captions(i) for i in range(6)]


def test_a_full_disk_leaves_nothing_half_written(folder, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    told = r"No space left on device; make room.*finished shards are kept"
    with pytest.raises(CalotypeError, match=told):
        shard_data(folder, tmp_path / "out", rows=3)
    assert list((tmp_path / "out").iterdir()) == []


def test_arguments(folder, tmp_path):
    with pytest.raises(UsageError, match="got rows=0"):
        shard_data(folder, tmp_path / "out", rows=0)
    with pytest.raises(UsageError, match="both source and target"):
        shard_data(folder, folder)
    with pytest.raises(UsageError, match="got processes=0"):
        shard_data(folder, tmp_path / "out", work=Work(processes=0))


@pytest.mark.slow
def test_two_processes_write_the_same(folder, tmp_path):
    one = shard_data(folder, tmp_path / "one", rows=3)
    two = shard_data(folder, tmp_path / "two", rows=3, work=Work(processes=2))
    assert [r.path.read_bytes() for r in one] == [r.path.read_bytes() for r in two]
