"""Findings 5 and 6: new names are taken by one alone, temporary files are known by their names."""

import os
from pathlib import Path

import pytest

from calotype.storage.files import temporary_of, write_file, write_with


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
    assert [temporary_of(name) for name in seen] == ["p-1.png"]
    for name in (".passwords.tmp", ".p.old.tmp", ".p-1.png.7x.tmp", "p.7.tmp", ".7.tmp", "a"):
        assert temporary_of(name) is None
