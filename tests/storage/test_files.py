"""Findings 5 and 6: new names are taken by one alone, temporary files are known by their names."""

import os
import stat
from pathlib import Path

import pytest

from calotype.storage.files import (
    is_temporary,
    new_folder,
    remove_leftovers,
    write_file,
    write_link,
    write_with,
)


def test_a_new_file_takes_no_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_file(path, b"first", replace=False)
    with pytest.raises(FileExistsError):
        write_file(path, b"second", replace=False)
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]
    write_file(path, b"third")
    assert path.read_bytes() == b"third"


def test_temporary_files_are_those_that_are_made(tmp_path: Path) -> None:
    seen = []
    write_with(tmp_path / "p-1.png", lambda path: seen.append(path.name))
    (name,) = seen
    assert is_temporary(name, "p-1.png".__eq__) and not is_temporary(name, "p-2.png".__eq__)
    for name in (".passwords.tmp", ".p.old.tmp", ".p-1.png.7x.tmp", "p.7.tmp", ".7.tmp", "a"):
        assert not is_temporary(name, lambda name: True)


def test_leftovers_go_when_they_are_ours_and_old(tmp_path: Path) -> None:
    old, new, theirs = (tmp_path / name for name in (".p.png.1.tmp", ".p.png.2.tmp", ".q.1.tmp"))
    folder = tmp_path / ".p.png.3.old"
    folder.mkdir()
    for path in (old, new, theirs, folder / "file"):
        path.write_bytes(b"half")
    for path in (old, theirs, folder):
        os.utime(path, (1, 1))
    remove_leftovers(tmp_path, "p.png".__eq__)
    assert sorted(os.listdir(tmp_path)) == [new.name, theirs.name]
    remove_leftovers(tmp_path, "p.png".__eq__, stale_seconds=0)
    assert os.listdir(tmp_path) == [theirs.name]
    remove_leftovers(tmp_path / "missing", "p.png".__eq__)


def test_a_new_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch) -> None:
    synced = set()
    fsync = os.fsync

    def watched(number: int) -> None:
        synced.add(os.fstat(number).st_ino)
        fsync(number)

    monkeypatch.setattr(os, "fsync", watched)
    with new_folder(tmp_path / "a") as fresh:
        (fresh / "b").mkdir()
        (fresh / "b" / "c").write_bytes(b"x")
    inside = [tmp_path / "a", *(tmp_path / "a").rglob("*"), tmp_path]
    assert len(inside) == 4 and {path.stat().st_ino for path in inside} <= synced


def test_a_link_is_replaced_in_one_step(tmp_path: Path) -> None:
    for target in ("1", "2"):
        write_link(tmp_path / "latest", target)
        assert os.readlink(tmp_path / "latest") == target
    assert os.listdir(tmp_path) == ["latest"]


def test_a_private_file_is_its_owners_alone_also_while_it_is_written(tmp_path, monkeypatch):
    seen = []
    path = tmp_path / "secret"

    def look(temporary):
        seen.append(stat.S_IMODE(temporary.stat().st_mode))
        temporary.write_bytes(b"x")

    write_with(path, look, mode=0o600)
    write_file(path, b"y", mode=0o600)
    assert seen == [0o600] and stat.S_IMODE(path.stat().st_mode) == 0o600
