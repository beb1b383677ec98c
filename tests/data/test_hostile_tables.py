"""Parquet whose columns are not what they seem: it works, or one line names file and column.

Numbers are those of docs/limits.md.
"""

import io
import time

import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.images import BrokenImage
from calotype.data.open import open_source
from calotype.emoji.captions import GRAMMAR
from calotype.errors import UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def png():
    data = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(data, "PNG")
    return data.getvalue()


def opened(folder, table, **options):
    pq.write_table(table, folder / "a.parquet", **options)
    return open_source(folder, resolution=8, data=DataConfig(), grammar=GRAMMAR)


def parts(**columns):
    usual = {"name": ["cat"], "keywords": [["pet"]], "style": ["flat"]}
    return pa.table({"image": [png()], **usual, **columns})


def test_27_null_parts_work(tmp_path):
    nothing = pa.array([None], pa.string())
    source = opened(tmp_path, parts(name=nothing))
    assert source.captions(0) == () and source.report.empty_captions == {source.key(0)}
    words = pa.array([None], pa.list_(pa.string()))
    captions = opened(tmp_path, parts(keywords=words, style=nothing)).captions(0)
    assert captions[0].text == "cat"
    assert opened(tmp_path, parts(keywords=[["pet", None]])).captions(0)
    assert opened(tmp_path, parts(keywords=pa.nulls(1), style=pa.nulls(1))).captions(0)


def test_parts_without_a_grammar_are_refused(tmp_path):
    pq.write_table(parts(), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"captions in parts, .*a\.parquet; .* or a grammar"):
        open_source(tmp_path, resolution=8, data=DataConfig())


WRONG = {
    "name": (pa.array([3]), "a text"),
    "style": (pa.array([3.5]), "a text"),
    "keywords": (pa.array(["pet, fur"]), "a list of texts"),  # and finding 18
}


@pytest.mark.parametrize("column", WRONG)
def test_18_27_parts_of_other_types_are_refused_by_name(tmp_path, column):
    values, wanted = WRONG[column]
    expected = rf"column '{column}' of type .* in .*a\.parquet; expected {wanted}"
    with pytest.raises(UsageError, match=expected):
        opened(tmp_path, parts(**{column: values}))


def test_27_captions_that_are_no_text_are_refused_by_name(tmp_path):
    with pytest.raises(UsageError, match=r"column 'text' of type int64 in .*a\.parquet"):
        opened(tmp_path, pa.table({"image": [png()], "text": [3]}))
    with pytest.raises(UsageError, match=r"column 'image' of type string in .*a\.parquet"):
        opened(tmp_path, pa.table({"image": ["a.png"], "text": ["a"]}))
    with pytest.raises(UsageError, match=r"column 'split' of type list.* in .*a\.parquet"):
        opened(tmp_path, pa.table({"image": [png()], "text": ["a"], "split": [["train"]]}))


@pytest.mark.parametrize("name", ["image", "text", "key"])
def test_27_a_column_that_is_there_twice_is_refused_by_name(tmp_path, name):
    names = ["image", "text", "key", name]
    arrays = [pa.array([png() if n == "image" else "a"]) for n in names]
    with pytest.raises(UsageError, match=rf"got 2 columns '{name}' in .*a\.parquet"):
        opened(tmp_path, pa.Table.from_arrays(arrays, names=names))


TEXTS = {
    "categorical": pa.array(["a cat"]).dictionary_encode(),
    "string_view": pa.array(["a cat"], pa.string_view()) if hasattr(pa, "string_view") else None,
    "large": pa.array(["a cat"], pa.large_string()),
    "list of categorical": pa.ListArray.from_arrays(
        [0, 1], pa.array(["a cat"]).dictionary_encode()
    ),
    "fixed list": pa.array([["a cat"]], pa.list_(pa.string(), 1)),
}


@pytest.mark.parametrize("kind", [kind for kind, values in TEXTS.items() if values is not None])
def test_27_35_captions_of_every_text_type_work(tmp_path, kind):
    table = pa.table({"image": [png()], "text": TEXTS[kind], "split": ["train"]})
    assert [c.text for c in opened(tmp_path, table).captions(0)] == ["a cat"]


def test_27_split_and_style_may_be_categorical_or_numbers(tmp_path):
    columns = {"split": pa.array(["train", "test", None]).dictionary_encode(), "set": [1, 2, 3]}
    source = opened(tmp_path, pa.table({"image": [png()] * 3, "text": ["a", "b", "c"], **columns}))
    assert [c.text for c in source.captions(0)] == ["a"] and len(source) == 1
    some = open_source(tmp_path, resolution=8, data=DataConfig(styles=("1",)))
    assert len(some) == 1


def test_27_rows_without_a_key_have_one(tmp_path):
    keys = pa.array([None, None, "mine"], pa.string())
    table = pa.table({"key": keys, "image": [png()] * 3, "text": ["a"] * 3})
    source = opened(tmp_path, table)
    assert [source.key(n) for n in range(3)] == ["a.parquet:0:0", "a.parquet:0:1", "mine"]


def many(rows, **columns):
    """A table of millions of rows that need no room: they are one."""
    first = {"image": pa.array([png()]), "text": pa.array(["a"]), **columns}
    index = pa.array(memoryview(bytes(rows))).cast(pa.int8())
    return pa.table({n: pa.DictionaryArray.from_arrays(index, v) for n, v in first.items()})


def test_23_millions_of_rows_are_counted_in_a_moment(tmp_path):
    table = many(2_000_000, split=pa.array(["train"]), style=pa.array(["flat"]))
    pq.write_table(table, tmp_path / "a.parquet")
    assert (tmp_path / "a.parquet").stat().st_size < 100_000
    start = time.process_time()
    source = open_source(tmp_path, resolution=8, data=DataConfig(styles=("flat",)))
    assert len(source) > 1_000_000
    assert time.process_time() - start < 2  # lists of Python took five


def test_23_row_groups_that_memory_could_not_hold_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"row group of 1,100,000 rows in .*a\.parquet; expected"):
        opened(tmp_path, many(1_100_000), row_group_size=2_000_000)
    source = opened(tmp_path, pa.table({"image": [png()] * 10_000, "text": ["a"] * 10_000}))
    monkeypatch.setattr("calotype.data.parquet.MOST_GROUP_BYTES", 100_000)
    with pytest.raises(BrokenImage, match="need more than 100,000 bytes"):
        source[0]
