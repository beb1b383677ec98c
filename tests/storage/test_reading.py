"""Only regular files are opened: nothing waits on a FIFO, nothing reads a device for ever."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from calotype.storage.reading import check_regular, open_regular, read_object, read_regular


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _socket(path: Path) -> None:
    socket.socket(socket.AF_UNIX).bind(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", [_fifo, _device, _socket, Path.mkdir])
def test_what_is_no_regular_file_is_told_and_not_opened(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "x"
    make(path)
    for read in (open_regular, read_regular, check_regular):
        with pytest.raises(OSError, match="regular file") as caught:
            read(path)
        assert caught.value.filename == str(path)


def test_a_file_and_a_link_to_it_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert read_regular(tmp_path / "b", most_bytes=4) == b"text"
    with pytest.raises(OSError, match="got 4 bytes; expected at most 3"):
        read_regular(tmp_path / "a", most_bytes=3)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "c")


@pytest.mark.parametrize("data", [b"", b"[1]", b'{"a"', b"\xff", b"[" * 100_000, b'{"a": 1}' * 9])
def test_what_is_no_object_is_empty(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.json"
    assert read_object(path) == {}
    path.write_bytes(data)
    assert read_object(path) == {}
    path.write_text('{"a": 1}')
    assert read_object(path) == {"a": 1} and read_object(path, most_bytes=7) == {}
