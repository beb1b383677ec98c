"""What is trained on and what is validated on do not meet."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data import open as open_module
from calotype.data.folder import FolderSource
from calotype.data.open import VALIDATION_STEP, TrainingData, open_source
from calotype.data.source import ListSource, Subset, all_captions, whole_source
from calotype.errors import ConfigError

CONFIG = DataConfig()


def folder_of(root, count):
    root.mkdir()
    for number in range(count):
        Image.new("RGB", (2, 2), (number % 256, number // 256, 0)).save(root / f"{number:04d}.png")
        (root / f"{number:04d}.txt").write_text(f"text {number}")
    return root


def both(path):
    training = open_source(path, resolution=2, data=CONFIG)
    validation = TrainingData(path, resolution=2, data=CONFIG).validation
    return [[s.key(i) for i in range(len(s))] for s in (training, validation)]


@pytest.mark.parametrize("count", [201, 250, 251])
def test_every_fiftieth_is_left_out_of_training(tmp_path, count):
    training, validation = both(folder_of(tmp_path / "d", count))
    assert validation == [f"{n:04d}.png" for n in range(0, count, 50)]
    assert training == [f"{n:04d}.png" for n in range(count) if n % 50]


def test_a_small_set_is_trained_on_whole(tmp_path):
    training, validation = both(folder_of(tmp_path / "d", 200))
    assert len(training) == 200
    assert len(validation) == 4


def test_images_and_captions_are_those_of_the_key(tmp_path):
    path = folder_of(tmp_path / "d", 203)
    source = open_source(path, resolution=2, data=CONFIG)
    assert isinstance(source, Subset) and source.rest
    whole = FolderSource(path)
    assert source.fingerprint == whole.fingerprint
    for index in range(len(source)):
        number = int(source.key(index)[:4])
        assert source.captions(index) == whole.captions(number)
        np.testing.assert_array_equal(source[index].image, whole[number].image)
    assert "text 0" not in set(all_captions(source, 4))
    validation = TrainingData(path, resolution=2, data=CONFIG).validation
    assert "text 0" in set(all_captions(validation, 4))


def test_styles_of_data_that_has_none_are_refused(tmp_path):
    styled = DataConfig(styles=("noto style",))
    column = pa.array([b"x"] * 2)
    for name, columns in (
        ("bare", {"image": column, "text": ["a", "b"]}),
        ("styled", {"image": column, "text": ["a", "b"], "style": ["noto style", "flat"]}),
    ):
        (tmp_path / name).mkdir()
        pq.write_table(pa.table(columns), tmp_path / name / "0.parquet")
    for path in (folder_of(tmp_path / "d", 3), tmp_path / "bare"):
        with pytest.raises(ConfigError, match="no styles to choose from"):
            open_source(path, resolution=2, data=styled)
    assert len(open_source(tmp_path / "styled", resolution=2, data=styled)) == 1


@pytest.mark.parametrize("length", [2, 49, 50, 51, 99, 100, 101, 1000])
def test_the_two_parts_are_the_whole(tmp_path, length):
    class Numbers:
        def __len__(self):
            return length

        def key(self, index):
            assert 0 <= index < length
            return index

    parts = [Subset(Numbers(), VALIDATION_STEP, rest=rest) for rest in (False, True)]
    keys = [[part.key(i) for i in range(len(part))] for part in parts]
    assert sorted(keys[0] + keys[1]) == list(range(length))
    assert keys[1] == sorted(keys[1])


def rows_of(path, splits):
    table = {
        "key": [f"k{n}" for n in range(len(splits))],
        "image": [b"x"] * len(splits),
        "text": ["t"] * len(splits),
        "split": splits,
    }
    path.parent.mkdir()
    pq.write_table(pa.table(table), path)


def test_rows_that_were_set_aside_are_enough(tmp_path):
    rows_of(tmp_path / "d/a.parquet", ["train"] * 260 + ["unseen_pair"] * 3)
    training, validation = both(tmp_path / "d")
    assert len(training) == 260
    assert validation == ["k260", "k261", "k262"]


def test_a_split_column_that_sets_nothing_aside(tmp_path):
    rows_of(tmp_path / "d/a.parquet", ["train"] * 260 + ["test"] * 3)
    training, validation = both(tmp_path / "d")
    assert len(training) == 260 - 6
    assert len(validation) == 6
    assert not set(training) & set(validation)


def test_the_limit_is_the_one_that_is_written_down():
    assert (open_module.VALIDATION_MINIMUM, VALIDATION_STEP) == (200, 50)
    assert "50th" in TrainingData.__doc__
    assert "more than 200" in TrainingData.__doc__


def test_each_split_is_opened_once(tmp_path, monkeypatch):
    rows_of(tmp_path / "d/a.parquet", ["train"] * 260 + ["unseen_pair"] * 3 + ["unseen_concept"])
    opened, real = [], open_module._open

    def counted(path, resolution, selection):
        opened.append(selection.split)
        return real(path, resolution, selection)

    monkeypatch.setattr(open_module, "_open", counted)
    data = TrainingData(tmp_path / "d", resolution=2, data=CONFIG)
    assert (len(data.training), len(data.validation)) == (260, 3)
    assert {name: len(part) for name, part in data.held_out.items()} == {
        "unseen_pair": 3,
        "unseen_concept": 1,
    }
    assert opened == ["train", "unseen_pair", "unseen_concept"]


def test_a_part_of_a_part_knows_its_whole():
    whole = ListSource([])
    assert whole_source(Subset(Subset(whole, 50, rest=True), 3)) is whole
    assert whole_source(whole) is whole
