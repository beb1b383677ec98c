"""Files of strangers: nothing in them is run, and nothing hangs. Numbers as in docs/limits.md."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import EpsImagePlugin, Image

from calotype.data.pictures import FORMATS, BrokenPicture, decode_picture
from calotype.data.tar_index import scan_tar
from calotype.errors import UsageError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\nshowpage\n"


def test_9_postscript_is_never_handed_to_ghostscript(monkeypatch):
    def never(*_, **__):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", never)
    with pytest.raises(BrokenPicture, match="not a picture in a known format"):
        decode_picture(EPS)


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
