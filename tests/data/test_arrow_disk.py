import io
import json

import pyarrow as pa
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.arrow_disk import SavedDatasetSource
from calotype.data.open import open_source
from calotype.errors import CalotypeError, UsageError


def png(value):
    data = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(data, "PNG")
    return data.getvalue()


def write_stream(path, table, rows=2):
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=rows)


def save(folder, count, *, indices=None, columns=None):
    """Write what `Dataset.save_to_disk` of datasets 2 to 4 writes."""
    folder.mkdir(parents=True)
    half = count // 2
    names = []
    for number, span in enumerate((range(half), range(half, count))):
        table = columns or {
            "image": [{"bytes": png(i), "path": None} for i in span],
            "text": [f"text {i}" for i in span],
        }
        names.append(f"data-{number:05d}-of-00002.arrow")
        write_stream(folder / names[-1], pa.table(table))
    state = {"_data_files": [{"filename": name} for name in names], "_indices_data_files": None}
    if indices is not None:
        write_stream(
            folder / "indices.arrow", pa.table({"indices": pa.array(indices, pa.uint64())})
        )
        state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def rows(source):
    return [(source.captions(i)[0].text, int(source[i].image[0, 0, 0])) for i in range(len(source))]


def test_rows_of_all_files(tmp_path):
    save(tmp_path / "set", 7)
    source = open_source(tmp_path / "set", resolution=8, data=DataConfig())
    assert isinstance(source, SavedDatasetSource)
    assert rows(source) == [(f"text {i}", i) for i in range(7)]
    assert len({source.key(i) for i in range(7)}) == 7


def test_an_unflattened_shuffle_is_followed(tmp_path):
    save(tmp_path / "set", 6, indices=[5, 0, 3])
    source = open_source(tmp_path / "set", resolution=8, data=DataConfig())
    assert rows(source) == [(f"text {i}", i) for i in (5, 0, 3)]


def test_the_training_split_of_several(tmp_path):
    save(tmp_path / "sets/train", 4)
    save(tmp_path / "sets/test", 2)
    (tmp_path / "sets/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert len(open_source(tmp_path / "sets", resolution=8, data=DataConfig())) == 4
    (tmp_path / "sets/train").rename(tmp_path / "sets/training")
    with pytest.raises(UsageError, match="expected 'train'"):
        open_source(tmp_path / "sets", resolution=8, data=DataConfig())


def test_damage_is_a_clear_error(tmp_path):
    save(tmp_path / "set", 4)
    first = tmp_path / "set/data-00000-of-00002.arrow"
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="save it again"):
        open_source(tmp_path / "set", resolution=8, data=DataConfig())
    first.unlink()
    with pytest.raises(CalotypeError, match="is missing"):
        open_source(tmp_path / "set", resolution=8, data=DataConfig())
    save(tmp_path / "labels", 4, columns={"image": [png(0)] * 2, "label": [1, 2]})
    with pytest.raises(UsageError, match="expected captions"):
        open_source(tmp_path / "labels", resolution=8, data=DataConfig())
