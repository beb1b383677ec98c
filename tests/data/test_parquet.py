import hashlib
import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.columns import Selection
from calotype.data.images import BrokenImage
from calotype.data.open import TrainingData, open_source
from calotype.data.parquet import ParquetSource
from calotype.emoji.captions import GRAMMAR, caption_variants
from calotype.errors import UsageError


def png(colour, size=8):
    data = io.BytesIO()
    Image.new("RGBA", (size, size), colour).save(data, "PNG")
    return data.getvalue()


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def write(path, columns, rows_per_group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)


def opened(path, *, resolution=8, **settings):
    return open_source(path, resolution=resolution, data=DataConfig(**settings), grammar=GRAMMAR)


def emoji_columns(count, *, size=8, name="noto", splits=("train",), style="noto style"):
    colours = [(i, 2 * i, 3 * i, 255) for i in range(count)]
    return {
        "key": [f"{name}/{i}" for i in range(count)],
        "image": [{"bytes": png(c, size), "path": f"{i}.png"} for i, c in enumerate(colours)],
        "name": [f"thing {i}" for i in range(count)],
        "keywords": [["big", "small"]] * count,
        "style": [style] * count,
        "set": [name] * count,
        "split": [splits[i % len(splits)] for i in range(count)],
    }


def test_emoji_rows_come_with_their_variants(tmp_path):
    write(tmp_path / "256/noto-00000.parquet", emoji_columns(7))
    source = opened(tmp_path, resolution=64, caption_variants=5)
    assert [source.key(i) for i in range(7)] == [f"noto/{i}" for i in range(7)]
    expected = caption_variants("thing 4", ["big", "small"], "noto style", key="noto/4", count=5)
    assert source.captions(4) == tuple(replace(c, concept="thing 4") for c in expected)
    assert (source[4].image == (4, 8, 12, 255)).all()


def test_shards_of_before_keep_their_captions_and_their_fingerprint(tmp_path):
    """Nothing in shards built before says how captions are made; their runs resume exactly."""
    write(tmp_path / "256/noto-00000.parquet", emoji_columns(2))
    source = opened(tmp_path)
    captions = [(c.text, c.background, c.concept) for i in (0, 1) for c in source.captions(i)]
    assert captions[0] == ("thing 0, noto style", None, "thing 0")
    assert sha256(repr(captions))[:16] == "2f45ebb4855b8d5e"
    size = (tmp_path / "256/noto-00000.parquet").stat().st_size
    assert source.fingerprint == sha256(f"captions 2\n256/noto-00000.parquet\0{size}\n")


def test_only_the_training_split_is_trained_on(tmp_path):
    splits = ("train", "unseen_pair", "train", "unseen_concept", "unseen_pair")
    write(tmp_path / "256/noto-00000.parquet", emoji_columns(23, splits=splits))
    train = opened(tmp_path)
    held = TrainingData(tmp_path, resolution=64, data=DataConfig(), grammar=GRAMMAR).validation
    assert [train.key(i) for i in range(len(train))] == [
        f"noto/{i}" for i in range(23) if splits[i % 5] == "train"
    ]
    assert [held.key(i) for i in range(len(held))] == [
        f"noto/{i}" for i in range(23) if splits[i % 5] == "unseen_pair"
    ]
    assert (held[1].image == (4, 8, 12, 255)).all()


def test_styles_select_by_phrase_or_set(tmp_path):
    write(tmp_path / "256/a.parquet", emoji_columns(4, name="noto", style="noto style"))
    write(tmp_path / "256/b.parquet", emoji_columns(5, name="flat", style="flat style"))
    for styles, count in [(("flat",), 5), (("noto style",), 4), (("flat style", "noto"), 9)]:
        assert len(opened(tmp_path, styles=styles)) == count
    with pytest.raises(UsageError, match="no examples of styles"):
        opened(tmp_path, styles=("oil painting",))


@pytest.mark.parametrize(("resolution", "size"), [(8, 16), (16, 16), (17, 32), (1024, 32)])
def test_the_smallest_size_that_is_large_enough(tmp_path, resolution, size):
    write(tmp_path / "16/a.parquet", emoji_columns(2, size=16))
    write(tmp_path / "32/a.parquet", emoji_columns(2, size=32))
    source = opened(tmp_path, resolution=resolution)
    assert source[0].image.shape == (size, size, 4)


def test_hugging_face_layout_with_text(tmp_path):
    columns = {
        "image": [{"bytes": png((9, 9, 9, 255)), "path": None}, {"bytes": None, "path": "x"}],
        "text": ["a fox", ""],
    }
    write(tmp_path / "data/train-00000-of-00001.parquet", columns)
    source = opened(tmp_path)
    assert [c.text for c in source.captions(0)] == ["a fox"]
    assert source.captions(1) == ()
    assert source.report.empty_captions == {source.key(1)}
    assert source.key(0) != source.key(1)
    with pytest.raises(BrokenImage, match="no image bytes"):
        source[1]


def test_captions_that_are_no_utf8(tmp_path):
    bad = pa.array([b"B\xe4r", b"fox"]).view(pa.string())
    lists = pa.ListArray.from_arrays([0, 1, 2], bad)
    for name, captions in (("plain", bad), ("lists", lists)):
        write(tmp_path / name / "a.parquet", {"image": [png((1, 1, 1, 1))] * 2, "text": captions})
        source = opened(tmp_path / name)
        assert [[c.text for c in source.captions(i)] for i in (0, 1)] == [["B�r"], ["fox"]]
        assert source.report.replaced_captions == {source.key(0)}


def test_missing_columns_are_named(tmp_path):
    write(tmp_path / "a.parquet", {"image_url": ["x"], "text": ["y"]})
    with pytest.raises(UsageError, match=r"image_url.*expected images in one of"):
        opened(tmp_path)
    write(tmp_path / "a.parquet", {"image": [b"x"], "label": [3]})
    with pytest.raises(UsageError, match=r"label.*expected captions in one of"):
        opened(tmp_path)


def test_a_file_that_is_no_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(UsageError, match=r"cannot read .*a\.parquet as Parquet"):
        opened(tmp_path)


def test_random_access_over_files_and_groups(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.parquet", emoji_columns(10, name=f"set{number}"), 4)
    files = list(tmp_path.glob("*.parquet"))
    source = ParquetSource(tmp_path, files, Selection(grammar=GRAMMAR))
    order = np.random.default_rng(0).permutation(30)
    assert [source.key(int(i)) for i in order] == [f"set{i // 10}/{i % 10}" for i in order]
    assert all((source[int(i)].image[0, 0, 0] == i % 10) for i in order)
    with pytest.raises(IndexError):
        source[30]


def test_what_is_read_in_order_is_not_all_kept(tmp_path):
    for number in range(2):
        write(tmp_path / f"{number}.parquet", emoji_columns(8, name=f"set{number}"), 2)
    files = sorted(tmp_path.glob("*.parquet"))
    kept = {}
    for limit in (1, 1_000_000):
        source = ParquetSource(tmp_path, files, Selection(grammar=GRAMMAR), cache_bytes=limit)
        found = [source.image_bytes(number) for number in range(16)]
        assert found == [png((i % 8, 2 * (i % 8), 3 * (i % 8), 255)) for i in range(16)]
        kept[limit] = source._images.weight
    assert kept[1] < kept[1_000_000] / 4
