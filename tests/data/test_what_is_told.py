"""What lies in a data folder and is not used is counted and told, before anything is made of it.

Numbers are those of docs/limits.md.
"""

import json
import os
import tarfile

import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.account import check_account, take_account
from calotype.data.folder import FolderSource
from calotype.data.open import open_source
from calotype.data.tar import TarSource
from calotype.data.verify import verify_data
from calotype.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(folder, count, *, captions=True):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (number, 10, 10)).save(folder / f"{number:02d}.png")
        if captions:
            (folder / f"{number:02d}.txt").write_text(f"text {number}")
    return folder


def backup(path, count):
    inside = images(path.parent.parent / "inside", count)
    with tarfile.open(path, "w") as tar:
        for file in sorted(inside.iterdir()):
            tar.add(file, file.name)


def opened(folder):
    return open_source(folder, resolution=8, data=DataConfig())


def told(folder):
    return str(take_account(opened(folder)))


def texts(source):
    return {source.key(i): [c.text for c in source.captions(i)] for i in range(len(source))}


def test_11_runs_cascades_and_stores_are_not_looked_into(tmp_path):
    data = images(tmp_path / "data", 4)
    for name, mark in (("run", "recipe.json"), ("cas", "cascade.json"), ("emb", "encoder.json")):
        images(data / name / "grids", 3, captions=False)
        (data / name / mark).write_text("{}")
    assert len(opened(data)) == 4
    assert "1 run ignored (run)" in told(data)
    assert "1 cascade ignored (cas)" in told(data)
    assert "1 embedding store ignored (emb)" in told(data)
    (data / "embeddings" / "0a").mkdir(parents=True)  # where train looks for one
    (data / "embeddings" / "0a" / "encoder.json").write_text("{}")
    assert "1 embedding store ignored (emb)" in told(data)


def test_11_a_recipe_beside_images_makes_no_run(tmp_path):
    images(tmp_path / "data/animals", 4)
    (tmp_path / "data/animals/recipe.json").write_text("{}")
    assert len(opened(tmp_path / "data")) == 4


def test_13_metadata_and_captions_in_utf_16_are_read(tmp_path):
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        data = images(tmp_path / encoding, 3, captions=False)
        rows = [json.dumps({"file_name": "00.png", "text": "B\u00e4r"}), "no JSON"]
        (data / "metadata.jsonl").write_text("\n".join(rows), encoding)
        (data / "01.txt").write_text("Katze", encoding)
        source = opened(data)
        assert texts(source) == {"00.png": ["B\u00e4r"], "01.png": ["Katze"], "02.png": []}
        assert not source.report.replaced_captions
        (data / "metadata.jsonl").unlink()
        (data / "metadata.csv").write_text("file_name,text\n02.png,Maus\n", encoding)
        assert texts(opened(data))["02.png"] == ["Maus"]


def test_13_utf_16_without_a_mark_is_no_caption(tmp_path):
    data = images(tmp_path / "data", 3, captions=False)
    (data / "00.txt").write_text("a cat", "utf-16-le")
    (data / "01.txt").write_text("\u043a\u043e\u0448\u043a\u0430", "cp1251")
    source = opened(data)
    assert texts(source) == {"00.png": [], "01.png": [], "02.png": []}
    assert source.report.replaced_captions == {"00.png", "01.png"}
    with pytest.raises(UsageError, match="most captions missing"):
        check_account(take_account(source))


@pytest.mark.parametrize("close", ["", '"'], ids=["to the end", "to the next quote"])
def test_13_a_stray_quote_is_counted_with_what_it_swallows(tmp_path, close):
    data = images(tmp_path / "data", 6, captions=False)
    rows = ["00.png,zero", '01.png,"one', "02.png,two", f"03.png,{close}three", "04.png,four"]
    (data / "metadata.csv").write_text("file_name,text\n" + "\n".join(rows) + "\n")
    source = opened(data)
    ((place, reason),) = source.report.bad_metadata.items()
    assert place == "metadata.csv:3"
    assert f"{3 if close else 4} lines are lost" in reason
    assert texts(source)["04.png"] == (["four"] if close else [])
    assert "1 fault of metadata (metadata.csv:3 is no CSV" in told(data)


LOST = {
    "metadata of other columns": {"metadata.csv": "file_name,label\n00.png,a\n"},
    "metadata that names nothing": {"metadata.jsonl": '{"image": "00.png", "text": "a"}'},
    "captions of other names": {"image-0.txt": "a", "image-1.txt": "b"},
    "captions of few": {"00.txt": "a", "01.txt": "b"},
}


@pytest.mark.parametrize("files", LOST.values(), ids=LOST)
def test_13_captions_that_are_mostly_lost_stop(tmp_path, files):
    data = images(tmp_path / "data", 6, captions=False)
    for name, text in files.items():
        (data / name).write_text(text)
    with pytest.raises(UsageError, match=r"most captions missing .* add --missing-captions") as e:
        check_account(take_account(opened(data)))
    assert "\n" not in str(e.value)


def test_13_images_without_any_captions_are_trained_on_and_counted(tmp_path):
    account = take_account(opened(images(tmp_path / "data", 6, captions=False)))
    check_account(account)
    assert str(account) == "6 images, 6 without a caption"


def test_13_half_of_the_captions_are_enough(tmp_path):
    data = images(tmp_path / "data", 6)
    for number in range(3):
        (data / f"{number:02d}.txt").unlink()
    check_account(take_account(opened(data)))
    (data / "03.txt").write_text(" ")
    with pytest.raises(UsageError, match="6 images, 4 without a caption"):
        check_account(take_account(opened(data)))


def test_13_large_sets_are_looked_at_in_part(tmp_path, monkeypatch):
    data = images(tmp_path / "data", 40, captions=False)
    monkeypatch.setattr("calotype.data.account.LOOKED_AT", 10)
    (data / "00.txt").write_text("a")
    assert str(take_account(opened(data))) == "40 images, about 0.9 of them without a caption"


def test_14_a_tar_among_images_is_no_data_and_told(tmp_path):
    data = images(tmp_path / "data", 10)
    backup(data / "backup.tar", 2)
    assert isinstance(opened(data), FolderSource)
    assert told(data) == "10 images, 1 tar ignored (backup.tar)"
    part = verify_data(data).parts[""]
    assert part.ignored["tar"].names == ["backup.tar"] and part.counts["ignored"] == 1


def test_14_an_image_among_tars_is_no_data_and_told(tmp_path):
    data = images(tmp_path / "data", 1)
    for number in range(2):
        backup(data / f"{number}.tar", 3)
    assert isinstance(opened(data), TarSource)
    assert told(data).startswith("6 images, ")
    assert "1 image ignored (00.png)" in told(data)


def test_14_images_beside_parquet_are_told(tmp_path):
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = images(tmp_path / "data", 2, captions=False)
    table = pa.table({"image": [(data / "00.png").read_bytes()], "text": ["a"]})
    parquet.write_table(table, data / "a.parquet")
    assert told(data) == "1 image, 2 images ignored (00.png, 01.png)"


def test_15_links_and_unknown_files_are_counted(tmp_path):
    data = images(tmp_path / "data", 4)
    os.symlink(images(tmp_path / "elsewhere", 3), data / "linked")
    for name in ("a.heic", "b.HEIC", "c.heic", "lonely.txt"):
        (data / name).write_bytes(b"x")
    assert told(data) == (
        "4 images, 1 linked folder ignored (linked), 3 unknown files ignored (.heic, .HEIC), "
        "1 unused caption ignored (lonely.txt)"
    )
    part = verify_data(data).parts[""]
    assert {kind: found.count for kind, found in part.ignored.items()} == {
        "unknown file": 3, "unused caption": 1, "linked folder": 1
    }  # fmt: skip
    assert json.loads(json.dumps(verify_data(data).to_dict()))["ignored"] == 5


def test_15_other_spellings_of_suffixes_work(tmp_path):
    data = images(tmp_path / "data", 1)
    for name in ("a.jfif", "b.JPE", "c.JPG"):
        Image.new("RGB", (8, 8)).save(data / name, "JPEG")
    for name in ("a.TXT", "b.Txt", "c.TXT"):
        (data / name).write_text(name)
    (data / "c.txt").write_text("small letters first")
    source = opened(data)
    assert texts(source) == {
        "00.png": ["text 0"],
        "a.jfif": ["a.TXT"],
        "b.JPE": ["b.Txt"],
        "c.JPG": ["small letters first"],
    }
    assert source[1].image.shape == (8, 8, 4)
    first = source.fingerprint
    (data / "a.TXT").write_text("another caption")
    assert opened(data).fingerprint != first


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_15_folders_that_cannot_be_read_are_told(tmp_path):
    data = images(tmp_path / "data", 2)
    (data / "closed").mkdir(mode=0)
    assert "1 unreadable folder ignored (closed)" in told(data)


NAMES = {"NUL": "a\0b.png", "surrogate": "\ud800.png", "long": "n" * 5000 + ".png"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_25_names_that_no_file_can_have_are_faults_of_metadata(tmp_path, name):
    data = images(tmp_path / "data", 3)
    rows = [{"file_name": name, "text": "x"}, {"file_name": "00.png", "text": "first"}]
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = opened(data)
    assert list(source.report.bad_metadata) == ["metadata.jsonl:1"]
    assert len(source) == 3 and texts(source)["00.png"] == ["first"]
    report = verify_data(data)
    assert report.parts[""].counts["bad_metadata"] == 1
    json.dumps(report.to_dict()).encode()


def test_26_names_that_are_no_utf_8_have_keys_that_are(tmp_path):
    data = os.fsencode(images(tmp_path / "data", 0))
    # The third and the fourth would be one key, were backslashes not escaped as well.
    names = [b"caf\xe9.png", rb"caf\xe9.png", b"\xe9\xff.png", rb"\xe9" + b"\xff.png", b"ok.png"]
    for number, name in enumerate(names):
        with open(os.path.join(data, name), "wb") as file:
            Image.new("RGB", (8, 8), (number, 0, 0)).save(file, "PNG")
        with open(os.path.join(data, name[:-4] + b".txt"), "w") as file:
            file.write(f"text {number}")
    source = opened(tmp_path / "data")
    found = texts(source)
    assert len(found) == 5 and sorted(t for (t,) in found.values()) == [
        f"text {n}" for n in range(5)
    ]
    assert "ok.png" in found and "caf\\xe9.png" in found
    for key in found:
        key.encode()
