"""Labels of every kind of source: what they are, where they lack, and their numbers."""

import io
import json
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import batches, sequential_batches
from calotype.data.example import Example
from calotype.data.labels import class_names, class_numbers, label_text
from calotype.data.open import open_source
from calotype.data.shard import shard_data
from calotype.data.source import ListSource, Subset
from calotype.errors import ConfigError, UsageError

STYLES = {"a/0.png": "flat", "a/1.png": "bold", "b/2.png": "flat", "b/3.png": "bold"}
FOLDERS = {name: name[0] for name in STYLES}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (grey, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "data"
    for number, name in enumerate(STYLES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(40 * number))
    return root


def labels_of(path, labels: str, **options) -> dict[str, str | None]:
    source = open_source(path, resolution=8, data=DataConfig(labels=labels), **options)
    return {source.key(index): source[index].label for index in range(len(source))}


def test_folders_name_classes_at_any_depth(folder):
    assert labels_of(folder, "folder") == FOLDERS
    deep = folder / "deep" / "b"
    deep.mkdir(parents=True)
    (deep / "4.png").write_bytes(png(0))
    assert labels_of(folder, "folder") == {**FOLDERS, "deep/b/4.png": "b"}
    source = open_source(folder, resolution=8, data=DataConfig(labels="folder"))
    assert class_names(source, "folder") == ("a", "b")


@pytest.mark.parametrize("captions", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_metadata_name_classes_with_captions_and_without(folder, kind, captions):
    rows = [{"file_name": name, "style": style} for name, style in STYLES.items()]
    rows = [{**row, "text": row["file_name"]} for row in rows] if captions else rows
    if kind == "jsonl":
        lines = [json.dumps(row) for row in rows]
    else:
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    (folder / f"metadata.{kind}").write_text("\n".join(lines))
    (folder / "a" / "0.txt").write_text("beside")
    assert labels_of(folder, "style") == STYLES
    source = open_source(folder, resolution=8, data=DataConfig(labels="style"))
    first = [caption.text for caption in source.captions(0)]
    assert first == (["a/0.png"] if captions else ["beside"]) and not source.report.bad_metadata


def table(**more) -> pa.Table:
    images = [{"bytes": png(40 * n), "path": name} for n, name in enumerate(STYLES)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"key": pa.array(list(STYLES)), "image": pa.array(images, kind)}
    return pa.table({**columns, **{name: pa.array(values) for name, values in more.items()}})


def test_tables_name_classes_by_any_column(tmp_path):
    styles = list(STYLES.values())
    encoded = pa.array(styles).dictionary_encode()
    whole = table(style=styles, number=[7, 0, 7, 0], text=[""] * 4, kind=encoded.to_pylist())
    path = tmp_path / "data.parquet"
    pq.write_table(whole.append_column("coded", encoded), path)
    assert labels_of(path, "style") == STYLES == labels_of(path, "coded")
    assert set(labels_of(path, "number").values()) == {"7", "0"}
    assert labels_of(path, "folder") == FOLDERS
    assert labels_of(path, "key") == {name: name for name in STYLES}


@pytest.mark.parametrize("saved", [False, True])
def test_numbers_that_datasets_has_named_have_these_names(tmp_path, saved):
    names = {"info": {"features": {"label": {"names": ["bold", "flat"], "_type": "ClassLabel"}}}}
    numbers = table(label=[1, 0, 1, 0]).replace_schema_metadata({"huggingface": json.dumps(names)})
    path = tmp_path / "data"
    path.mkdir()
    if saved:
        with pa.OSFile(str(path / "data.arrow"), "wb") as file:
            with pa.ipc.new_stream(file, numbers.schema) as writer:
                writer.write_table(numbers)
        (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    else:
        pq.write_table(numbers, path / "0.parquet")
    assert labels_of(path, "label", captioned=False) == STYLES


def test_tables_without_captions_are_for_those_who_want_none(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(table(style=list(STYLES.values())), path)
    with pytest.raises(UsageError, match="expected captions in one of"):
        labels_of(path, "style")
    assert labels_of(path, "style", captioned=False) == STYLES
    source = open_source(path, resolution=8, data=DataConfig(), captioned=False)
    assert source.captions(0) == () and source[0].label is None


def test_tars_name_classes_in_json_and_by_folders(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for number, (name, style) in enumerate(STYLES.items()):
            note = json.dumps({"style": style}).encode()
            for member, data in ((name, png(40 * number)), (f"{name[:-4]}.json", note)):
                info = tarfile.TarInfo(member)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert [*labels_of(path, "style").values()] == [*STYLES.values()]
    assert [*labels_of(path, "folder").values()] == [*FOLDERS.values()]
    assert set(labels_of(path, "artist").values()) == {None}


def test_shards_keep_folders_and_refuse_what_they_do_not_have(folder, tmp_path):
    shard_data(folder, tmp_path / "shards")
    assert labels_of(tmp_path / "shards", "folder") == FOLDERS
    with pytest.raises(UsageError, match=r"got data.labels='style' .*expected one of its columns"):
        labels_of(tmp_path / "shards", "style")


def batch_labels(path, labels: str) -> tuple[str, ...]:
    data = DataConfig(labels=labels)
    source = open_source(path, resolution=8, data=data, captioned=False)
    plan = BatchPlan(resolution=8, lowres_resolution=None, config=data, batch_size=4, seed=3)
    return next(batches(source, plan)).labels


def test_shards_train_with_the_labels_that_were_asked_for(folder, tmp_path):
    rows = [json.dumps({"file_name": name, "style": style}) for name, style in STYLES.items()]
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    names = {"info": {"features": {"label": {"names": ["bold", "flat"]}}}}
    named = table(label=[1, 0, 1, 0], style=list(STYLES.values()), set=[5, 6, 5, 6])
    named = named.replace_schema_metadata({"huggingface": json.dumps(names)})
    pq.write_table(named, tmp_path / "data.parquet")
    for path, labels in (
        (folder, "style"),
        (folder, "folder"),
        *((tmp_path / "data.parquet", name) for name in ("label", "style", "set", "folder")),
    ):
        out, expected = tmp_path / f"{path.name}-{labels}", batch_labels(path, labels)
        (result,) = shard_data(path, out, labels=labels)
        assert len(set(expected)) == 2 and batch_labels(out, labels) == expected
        features = json.loads(pq.read_schema(result.path).metadata[b"huggingface"])["info"]
        assert sorted(features["features"]) == sorted(pq.read_schema(result.path).names)
        shard_data(out, tmp_path / "again" / out.name, labels=labels)
        assert batch_labels(tmp_path / "again" / out.name, labels) == expected


def test_shards_of_other_labels_are_others(folder, tmp_path):
    out = tmp_path / "out"
    shard_data(folder, out, labels="folder")
    for labels in (None, "style"):
        with pytest.raises(UsageError, match="or with other --labels or another --rows"):
            shard_data(folder, out, labels=labels)
    assert shard_data(folder, out, labels="folder")[0].skipped


def test_shards_are_not_made_where_labels_lack_or_have_no_place(folder, tmp_path):
    with pytest.raises(UsageError, match=r"no label of a/0.png \(data.labels='style'\); expected"):
        shard_data(folder, tmp_path / "out", labels="style")
    for labels in ("captions", "key", "image", ""):
        with pytest.raises(UsageError, match=f"got --labels '{labels}'; expected folder, or a col"):
            shard_data(folder, tmp_path / "out", labels=labels)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "labels", "message"),
    [
        ({"n": [0.5] * 4}, "n", "a column of type double in .*; expected one of texts or whole"),
        ({"n": [["x"]] * 4}, "n", "a column of type list.*; expected one of texts or whole"),
        ({}, "nothing", r"has no such column; expected one of its columns \['key', 'image'\]"),
    ],
)
def test_columns_that_name_no_classes_are_refused(tmp_path, columns, labels, message):
    path = tmp_path / "data.parquet"
    pq.write_table(table(**columns), path)
    with pytest.raises(UsageError, match=message):
        labels_of(path, labels, captioned=False)


def test_tables_without_keys_have_no_folders(tmp_path):
    path = tmp_path / "data.parquet"
    pq.write_table(table().drop_columns(["key"]), path)
    with pytest.raises(UsageError, match="whose rows lie in no folders; expected one of its col"):
        labels_of(path, "folder", captioned=False)


def test_a_missing_label_says_which_image(folder):
    (folder / "fox.png").write_bytes(png(9))
    data = DataConfig(labels="folder")
    source = open_source(folder, resolution=8, data=data)
    with pytest.raises(UsageError, match=r"no label of 1 of 5 images: fox.png .*expected a folder"):
        class_names(source, "folder")
    plan = BatchPlan(resolution=8, lowres_resolution=None, config=data, batch_size=5, seed=0)
    with pytest.raises(
        UsageError, match=r"got no label of fox.png \(data.labels='folder'\); expec"
    ):
        next(batches(source, plan))


def test_a_single_class_is_refused(folder):
    for name in ("b/2.png", "b/3.png"):
        (folder / name).unlink()
    source = open_source(folder, resolution=8, data=DataConfig(labels="folder"))
    with pytest.raises(UsageError, match=r"got the single class 'a' .*expected at least two"):
        class_names(source, "folder")
    with pytest.raises(ConfigError, match=r'got data\.labels=""'):
        DataConfig(labels="")


def test_classes_are_those_of_the_whole_of_a_part():
    image = np.zeros((8, 8, 4), np.uint8)
    source = ListSource(
        [Example(str(n), image, (), "rare" if n == 0 else "often") for n in range(9)]
    )
    assert class_names(Subset(source, 3, rest=True), "x") == ("often", "rare")


def test_numbers_follow_the_names():
    assert class_numbers(["b", "a", "b"], ("a", "b")) == [1, 0, 1]
    with pytest.raises(
        UsageError, match=r"label 'c' of 2.png; expected one of the 2 classes.*'a', 'b'"
    ):
        class_numbers(["b", "c"], ("a", "b"), keys=["1.png", "2.png"])
    with pytest.raises(UsageError, match=r"or train anew; did you mean 'noto'\?$"):
        class_numbers(["nota"], ("fluent", "noto"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(" a ", "a"), (0, "0"), (b"a", "a"), ("", None), (None, None), (0.5, None), (["a"], None)],
)
def test_what_a_cell_says(value, text):
    assert label_text(value) == text


def test_batches_name_each_row_alone_and_in_parts(folder):
    data = DataConfig(labels="folder")
    source = open_source(folder, resolution=8, data=data)
    plan = BatchPlan(resolution=8, lowres_resolution=None, config=data, batch_size=4, seed=3)
    whole = next(batches(source, plan, start_position=4))
    assert whole.labels == tuple(FOLDERS[key] for key in whole.keys)
    for rank in range(2):
        part = next(batches(source, replace(plan, rank=rank, world_size=2), start_position=4))
        assert part.labels == whole.labels[rank::2]
    bare = replace(plan, config=DataConfig())
    assert next(iter(sequential_batches(source, bare))).labels is None
