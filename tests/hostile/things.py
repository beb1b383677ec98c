"""Files and folders that nobody should be able to hurt a user with; each maker makes one."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import random
import socket
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

CANARY = "canary-sang"
"""Name of the file that code in a hostile file would make in the current folder."""


class Bomb:
    """Unpickled, it makes the canary's file."""

    def __reduce__(self) -> tuple[object, ...]:
        return (open, (CANARY, "w"))


def _png(width: int, height: int, data: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _tar(size: bytes) -> bytes:
    info = bytearray(tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT))
    info[124:136] = size
    info[148:156] = b" " * 8
    info[148:156] = b"%06o\0 " % sum(info)
    return bytes(info) + bytes(4096)


def _safetensors(header: object) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def _rows(path: Path) -> None:
    """A Parquet file of few bytes and ten million rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000_000, pa.int8()), pa.array(["a"]))
    image = pa.array([b""], pa.binary()).take(pa.array([0] * 10_000_000, pa.int32()))
    pq.write_table(pa.table({"image": image, "text": column, "split": column}), path)


def _columns(path: Path) -> None:
    """Parquet whose columns are of other types than their names promise."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": pa.array([b"x", None]),
            "name": pa.array([None, None], pa.string()),
            "keywords": pa.array(["a", None]),
            "style": pa.array([1, 2]),
            "split": pa.array([None, "train"]),
        }
    )
    pq.write_table(table, path)


_EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(canary-sang) (w) file\nshowpage\n"
_SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><script>x()</script><image href="file:///etc"/></svg>'
)
_DIGITS = b"9" * 400
_CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "garbage": random.Random(0).randbytes(3000),
    "cut png": _png(16, 16, zlib.compress(bytes(16 * 49)))[:60],
    "bomb png": _png(60_000, 60_000, zlib.compress(bytes(1000))),
    "lying png": _png(2**31 - 1, 2**31 - 1, b""),
    "eps": _EPS,
    "svg": _SVG,
    "pickle": pickle.dumps(Bomb()),
    "zip": _zip(),
    "gzip": gzip.compress(bytes(10_000_000)),
    "tar -512": _tar(b"\xff" * 10 + b"\xfe\x00"),
    "tar 2^70": _tar(b"\x80\x00" + b"\x40" + bytes(9)),
    "deep json": b"[" * 200_000,
    "json list": b"[]",
    "json null": b"null",
    "json digits": b'{"format": ' + _DIGITS + b', "stages": ' + _DIGITS + b"}",
    "json nan": b'{"name": NaN, "stages": [{"stage": Infinity}]}',
    "long digits": b"7" * 20_000,
    "utf-16": "a red circle\nтекст\n".encode("utf-16"),
    "nul and surrogates": b'{"file_name": "a\\u0000b.png", "text": "\\ud800"}\n\0\xff\xfe\n',
    "quote": b'file_name,text\nleft.png,"a cat\nright.png,a dog\n',
    "weights huge header": struct.pack("<Q", 2**62) + b"{}",
    "weights huge shape": _safetensors(
        {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 2**62]}}
    ),
    "weights list dtype": _safetensors({"a": {"dtype": ["F32"], "shape": "x", "data_offsets": {}}}),
}


def _content(data: bytes) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(data)

    return make


def _socket(path: Path) -> None:
    # Names of sockets are short; a relative one is.
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def _link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target if target != "itself" else path.name)


THINGS: dict[str, Callable[[Path], None]] = {
    **{name: _content(data) for name, data in _CONTENTS.items()},
    "many rows": _rows,
    "odd columns": _columns,
    "fifo": lambda path: os.mkfifo(path),
    "socket": _socket,
    "device": _link("/dev/zero"),
    "loop": _link("itself"),
    "dangling": _link("nowhere"),
    "folder": Path.mkdir,
}
