import json

import numpy as np
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.folder import FolderSource
from calotype.data.images import BrokenImage
from calotype.data.open import TrainingData, open_source
from calotype.data.source import all_captions
from calotype.errors import UsageError


def image(path, colour=(200, 10, 10), size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def texts(source):
    return {source.key(i): [c.text for c in source.captions(i)] for i in range(len(source))}


def test_text_files_in_subfolders(tmp_path):
    image(tmp_path / "b.png")
    image(tmp_path / "deep/er/a.jpg")
    (tmp_path / "b.txt").write_text("a fox\n", encoding="utf-8-sig")
    (tmp_path / "deep/er/a.txt").write_text("ein Bär")
    (tmp_path / "notes.md").write_text("no image")
    source = FolderSource(tmp_path)
    assert texts(source) == {"b.png": ["a fox"], "deep/er/a.jpg": ["ein Bär"]}
    assert source[0].image[0, 0].tolist() == [200, 10, 10, 255]
    assert source[0].captions == source.captions(0)


def test_metadata_jsonl_is_relative_to_its_folder(tmp_path):
    image(tmp_path / "train/a.png")
    image(tmp_path / "train/b.png")
    rows = [{"file_name": "a.png", "text": ["one", "two"]}, {"file_name": "b.png", "caption": "b"}]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\nnot json\n[1]\n{}\n"
    (tmp_path / "train/metadata.jsonl").write_text(lines)
    source = FolderSource(tmp_path)
    assert texts(source) == {"train/a.png": ["one", "two"], "train/b.png": ["b"]}
    assert sorted(source.report.bad_metadata) == [f"train/metadata.jsonl:{n}" for n in (4, 5, 6)]


def test_metadata_csv_with_a_megabyte_caption(tmp_path):
    image(tmp_path / "a.png")
    image(tmp_path / "b.png")
    long = "x" * 1_000_000
    (tmp_path / "metadata.csv").write_text(f'file_name,text\na.png,"one, two"\nb.png,{long}\n')
    assert texts(FolderSource(tmp_path)) == {"a.png": ["one, two"], "b.png": [long]}


def test_metadata_may_not_leave_the_folder(tmp_path):
    image(tmp_path / "secret.png")
    image(tmp_path / "data/a.png")
    row = {"file_name": "../secret.png", "text": "secret"}
    (tmp_path / "data/metadata.jsonl").write_text(json.dumps(row))
    source = FolderSource(tmp_path / "data")
    assert list(texts(source)) == ["a.png"]
    assert "outside" in source.report.bad_metadata["metadata.jsonl:1"]


def test_images_that_metadata_names_in_vain_are_broken_not_forgotten(tmp_path):
    image(tmp_path / "a.png")
    row = {"file_name": "gone.png", "text": "gone"}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    source = FolderSource(tmp_path)
    assert len(source) == 2
    with pytest.raises(BrokenImage, match="cannot be read"):
        source[1]


def test_bad_captions_are_replaced_or_empty_and_counted(tmp_path):
    for name in ("none", "blank", "latin", "good"):
        image(tmp_path / f"{name}.png")
    (tmp_path / "blank.txt").write_text(" \n")
    (tmp_path / "latin.txt").write_bytes("Bär".encode("latin-1"))
    (tmp_path / "good.txt").write_text("bear")
    source = FolderSource(tmp_path)
    assert texts(source)["latin.png"] == ["B�r"]
    assert source.report.replaced_captions == {"latin.png"}
    assert source.report.empty_captions == {"none.png", "blank.png"}
    assert set(all_captions(source, 4)) == {"B�r", "bear"}


def test_fingerprint_follows_images_and_captions(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("fox")
    first = FolderSource(tmp_path).fingerprint
    assert FolderSource(tmp_path).fingerprint == first
    (tmp_path / "a.txt").write_text("foxes")
    second = FolderSource(tmp_path).fingerprint
    image(tmp_path / "b.png")
    assert len({first, second, FolderSource(tmp_path).fingerprint}) == 3


def test_opening_by_content(tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("fox")
    config = DataConfig()
    assert isinstance(open_source(tmp_path, resolution=8, data=config), FolderSource)
    held = TrainingData(tmp_path, resolution=8, data=config).validation
    assert len(held) == 1
    assert held.key(0) == "a.png"
    np.testing.assert_array_equal(held[0].image, FolderSource(tmp_path)[0].image)


def test_nothing_there_is_a_clear_error(tmp_path):
    config = DataConfig()
    with pytest.raises(UsageError, match="does not exist"):
        open_source(tmp_path / "gone", resolution=8, data=config)
    with pytest.raises(UsageError, match="no images"):
        open_source(tmp_path, resolution=8, data=config)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(UsageError, match="expected a folder"):
        open_source(tmp_path / "x.txt", resolution=8, data=config)
