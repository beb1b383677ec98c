import io
import json
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.images import BrokenImage
from calotype.data.open import open_source
from calotype.data.tar import TarSource
from calotype.errors import UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def noise(seed, side=32):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def write(path, members, form=tarfile.GNU_FORMAT):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def sample(number, text=None):
    name = f"{number:05d}"
    return [(f"{name}.png", noise(number)), (f"{name}.txt", (text or f"text {number}").encode())]


def members(numbers):
    return [member for number in numbers for member in sample(number)]


def test_samples_of_several_shards_in_any_order(tmp_path):
    write(tmp_path / "d/0.tar", members(range(5)))
    write(tmp_path / "d/1.tar", members(range(5, 8)))
    source = open_source(tmp_path / "d", resolution=32, data=DataConfig())
    assert isinstance(source, TarSource)
    assert len(source) == 8
    for index in np.random.default_rng(0).permutation(8):
        assert source.image_bytes(index) == noise(index)
        assert [c.text for c in source.captions(index)] == [f"text {index}"]
        assert source.key(index) == f"{index // 5}.tar/{index:05d}"
    assert source[3].image.shape == (32, 32, 4)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_folders(tmp_path, form):
    stem = "folder/" * 8 + "n" * (80 if form == tarfile.USTAR_FORMAT else 180)
    rows = [(f"{stem}.txt", b"long"), (f"{stem}.png", noise(0)), *sample(1)]
    write(tmp_path / "0.tar", rows, form)
    source = TarSource(tmp_path, [tmp_path / "0.tar"])
    assert [source.key(i) for i in range(2)] == [f"0.tar/{stem}", "0.tar/00001"]
    assert [c.text for c in source.captions(0)] == ["long"]


def test_captions_in_json_and_samples_without_images(tmp_path):
    rows = [
        ("a.json", json.dumps({"caption": ["one", "two"]}).encode()),
        ("a.png", noise(0)),
        ("lonely.txt", b"no image"),
        ("b.png", noise(1)),
        ("c.png", noise(2)),
        ("c.txt", b"B\xe4r"),
    ]
    write(tmp_path / "0.tar", rows)
    source = TarSource(tmp_path, [tmp_path / "0.tar"])
    texts = [[c.text for c in source.captions(i)] for i in range(len(source))]
    assert texts == [["one", "two"], [], ["B�r"]]
    assert source.report.empty_captions == {"0.tar/b"}
    assert source.report.replaced_captions == {"0.tar/c"}


def test_the_index_is_kept_and_made_anew_when_the_tar_changes(tmp_path, monkeypatch):
    path = tmp_path / "0.tar"
    write(path, members(range(3)))
    TarSource(tmp_path, [path])
    scans = []
    real = TarSource.__init__.__globals__["scan_tar"]
    monkeypatch.setitem(
        TarSource.__init__.__globals__, "scan_tar", lambda file: scans.append(file) or real(file)
    )
    again = TarSource(tmp_path, [path])
    assert not scans
    assert again.image_bytes(2) == noise(2)
    first = again.fingerprint
    write(path, members(range(9)))
    os.utime(path, (1, 1))
    changed = TarSource(tmp_path, [path])
    assert scans == [path]
    assert len(changed) == 9
    assert changed.fingerprint != first


def test_a_tar_cut_in_the_middle(tmp_path):
    path = tmp_path / "0.tar"
    write(path, members(range(10)))
    whole = path.read_bytes()
    for share in (0.3, 0.5, 0.77):
        path.write_bytes(whole[: int(len(whole) * share)])
        source = TarSource(tmp_path, [path])
        assert 1 < len(source) <= 10
        assert "cut off" in source.report.bad_metadata["0.tar"]
        readable = 0
        for index in range(len(source)):
            try:
                readable += source.image_bytes(index) == noise(index)
            except BrokenImage as error:
                assert "cut off" in str(error)
                assert index == len(source) - 1
        assert len(source) - 1 <= readable < 10


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path):
    path = tmp_path / "0.tar"
    write(path, members(range(10)))
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        offset = tar.getmembers()[9].offset
    data[offset : offset + 300] = b"\xff" * 300
    path.write_bytes(data)
    source = TarSource(tmp_path, [path])
    assert len(source) == 5
    assert "damaged" in source.report.bad_metadata["0.tar"]


def test_what_is_no_plain_tar(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(UsageError, match="must be unpacked first"):
        TarSource(tmp_path, [path])
