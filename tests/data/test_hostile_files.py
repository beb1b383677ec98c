"""Files of strangers: nothing in them is run, and nothing hangs. Numbers as in docs/limits.md."""

import io
import json
import os
import resource
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from calotype.config.data import DataConfig
from calotype.data import folder as folder_module
from calotype.data import tar as tar_module
from calotype.data.folder import FolderSource
from calotype.data.images import FORMATS, BrokenImage, decode_image
from calotype.data.open import open_source
from calotype.data.shard import shard_data
from calotype.data.tar import TarSource
from calotype.data.tar_index import scan_tar
from calotype.errors import CalotypeError, UsageError
from calotype.text.layout import store_cards

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\nshowpage\n"


def test_9_postscript_is_never_handed_to_ghostscript(monkeypatch):
    def never(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", never)
    with pytest.raises(BrokenImage, match="not an image in a known format"):
        decode_image(EPS)


def test_9_every_format_is_one_that_pillow_has():
    Image.init()
    assert set(FORMATS) <= set(Image.OPEN)


def header(name: str, size: bytes, *, kind: bytes = b"0") -> bytes:
    """A tar header with `size` as its twelve bytes, its checksum right."""
    info = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    info[124:136] = size
    info[156:157] = kind
    info[148:156] = b" " * 8
    info[148:156] = b"%06o\0 " % sum(info)
    return bytes(info)


def binary(value: int) -> bytes:
    """A size as GNU tar writes those that are negative or do not fit octal digits."""
    first = b"\xff" if value < 0 else b"\x80"
    return first + (value % 256**11).to_bytes(11, "big")


def good_member(name: str = "a.png") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, "PNG")
    data = stream.getvalue()
    padded = data + bytes(-len(data) % 512)
    return header(name, b"%011o\0" % len(data)) + padded


@pytest.mark.parametrize(
    "size",
    [binary(-512), binary(-1024), binary(-1), binary(2**70), b"%011o\0" % (8**11 - 1)],
    ids=["-512", "-1024", "-1", "2^70", "8 GiB"],
)
@pytest.mark.parametrize("kind", [b"0", b"5", b"S"], ids=["file", "folder", "sparse"])
def test_19_28_sizes_that_lie_end_the_scan(tmp_path: Path, size: bytes, kind: bytes) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(good_member() + header("b.png", size, kind=kind) + bytes(4096))
    scan = scan_tar(file)
    assert len(scan.samples) <= 2
    if len(scan.samples) == 1:
        assert scan.samples[0]["image"] == 512
    first = tmp_path / "first.tar"  # as the first header, with nothing before it
    first.write_bytes(header("b.png", size, kind=kind) + bytes(4096))
    try:
        assert len(scan_tar(first).samples) <= 1
    except UsageError as error:
        assert "cannot read" in str(error)


def test_28_a_sparse_header_of_pax_is_damage(tmp_path: Path) -> None:
    records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n29 GNU.sparse.realsize=1e400\n"
    pax = header("pax", b"%011o\0" % len(records), kind=b"x")
    body = records + bytes(-len(records) % 512)
    file = tmp_path / "a.tar"
    file.write_bytes(good_member() + pax + body + good_member("b.png") + bytes(1024))
    scan = scan_tar(file)
    assert scan.problem is not None and len(scan.samples) == 1


def test_ordinary_tars_are_read_as_before(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(good_member("a.png") + good_member("b.png") + bytes(1024))
    scan = scan_tar(file)
    assert scan.problem is None and len(scan.samples) == 2


@pytest.mark.parametrize("kind", [b"x", b"g", b"L"], ids=["pax", "global", "long name"])
def test_28_a_header_that_asks_for_all_memory_is_damage(tmp_path: Path, kind: bytes) -> None:
    file = tmp_path / "a.tar"
    liar = header("b.png", binary(2**60), kind=kind)
    file.write_bytes(good_member() + liar + bytes(4096))
    scan = scan_tar(file)
    assert scan.problem is not None and len(scan.samples) == 1
    file.write_bytes(liar + bytes(4096))
    with pytest.raises(UsageError, match=r"cannot read .* as a tar"):
        scan_tar(file)


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listener(path: Path) -> None:
    before = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(before)


KINDS = {"FIFO": fifo, "device": zeros, "socket": listener}
KIND = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
Make = Callable[[Path], None]


@contextmanager
def little_memory() -> Iterator[None]:
    """At most two gigabytes more than now: /dev/zero would be read until they are full."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2_000_000_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def image(path: Path) -> None:
    Image.new("RGB", (8, 8), "red").save(path)


@KIND
def test_20_21_what_is_no_file_is_told_as_image_and_as_caption(tmp_path: Path, make: Make) -> None:
    for name in ("a", "b"):
        image(tmp_path / f"{name}.png")
    make(tmp_path / "a.txt")
    make(tmp_path / "c.png")
    make(tmp_path / "metadata.jsonl")
    with little_memory():
        source = FolderSource(tmp_path)
        captions = [source.captions(index) for index in range(3)]
        with pytest.raises(BrokenImage, match=r"is a .*; expected a regular file"):
            source[2]
        assert len(source.fingerprint) == 64
    assert captions == [(), (), ()]
    assert source.report.replaced_captions == {"a.png"}
    assert "cannot be read: is a" in source.report.bad_metadata["metadata.jsonl:0"]


@KIND
@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "metadata.csv", "state.json"])
def test_20_21_what_is_no_file_is_refused_as_data(tmp_path: Path, make: Make, name: str) -> None:
    make(tmp_path / name)
    if name == "state.json":
        (tmp_path / "a.arrow").write_bytes(b"")
    with little_memory(), pytest.raises(UsageError) as error:
        open_source(tmp_path, resolution=8, data=DataConfig())
    assert "\n" not in str(error.value)


@KIND
def test_20_21_what_is_no_file_is_refused_as_a_store(tmp_path: Path, make: Make) -> None:
    (tmp_path / "store").mkdir()
    make(tmp_path / "store/encoder.json")
    with little_memory(), pytest.raises(CalotypeError, match="is damaged"):
        store_cards(tmp_path)


def test_21_files_that_are_too_large_are_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_FILE_BYTES", 1000)
    monkeypatch.setattr(folder_module, "MAX_CAPTION_BYTES", 1000)
    monkeypatch.setattr(tar_module, "MAX_FILE_BYTES", 10)
    monkeypatch.setattr(tar_module, "cache_folder", lambda: None)
    for name in ("a.png", "a.txt"):
        (tmp_path / name).write_bytes(b"x" * 1001)
    source = FolderSource(tmp_path)
    with pytest.raises(BrokenImage, match="got 1,001 bytes; expected at most 1,000"):
        source[0]
    assert source.captions(0) == () and source.report.replaced_captions == {"a.png"}
    (tmp_path / "a.tar").write_bytes(good_member() + bytes(1024))
    with pytest.raises(BrokenImage, match="expected at most 10"):
        TarSource(tmp_path, [tmp_path / "a.tar"])[0]


def test_26_names_that_are_no_utf_8_go_into_shards(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tar_module, "cache_folder", lambda: None)
    folder, tars = tmp_path / "folder", tmp_path / "tars"
    for data in (folder, tars):
        data.mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    image(folder / name)
    with tarfile.open(tars / "0.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder / name, name)
    for data, key in ((folder, r"./caf\xe9.png"), (tars, r"./0.tar/caf\xe9")):
        out = tmp_path / f"{data.name}-sharded"
        (result,) = shard_data(data, out)
        assert (result.rows, result.broken) == (1, {})
        assert open_source(out, resolution=8, data=DataConfig()).key(0) == key


def test_35_pillow_prints_nothing() -> None:
    """Its warnings are of what is counted; they come from several threads at a time."""
    code = (
        "import calotype.data.images; from PIL import Image; "
        "Image._decompression_bomb_check((9500, 9500))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b""


def test_25_metadata_that_nests_too_deep_is_a_fault(tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    rows = ["[" * 100_000, json.dumps({"file_name": "a.png", "text": "9" * 5000}), "9" * 5000]
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    source = FolderSource(tmp_path)
    assert list(source.report.bad_metadata) == ["metadata.jsonl:1", "metadata.jsonl:3"]
