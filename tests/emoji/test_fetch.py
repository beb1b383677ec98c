"""Packages: the archive must be the pinned one, and cannot write outside its folder."""

import io
import json
import os
import tarfile

import pytest

from calotype.emoji.fetch import extract, fetched, file_integrity
from calotype.emoji.recipe import PackageConfig
from calotype.errors import CalotypeError


def make_archive(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A stand-in for npm that copies an archive and prints what the test wants it to."""
    folder = tmp_path / "bin"
    folder.mkdir()
    archive = tmp_path / "set-1.0.0.tgz"
    make_archive(archive, {"package/icons.json": '{"icons": {}}', "package/bad.json": "{"})
    entry = {"name": "@x/set", "version": "1.0.0", "filename": "set-1.0.0.tgz"}
    entry["integrity"] = file_integrity(archive)

    def install(entry=entry, exit_code=0):
        (tmp_path / "printed.json").write_text(json.dumps([entry]))
        script = folder / "npm"
        script.write_text(
            f"#!/bin/sh\ncp {archive} .\ncat {tmp_path}/printed.json\n"
            f"echo 'npm error code E404' >&2\nexit {exit_code}\n"
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return entry

    return install


def test_a_package_is_unpacked_and_gone_afterwards(npm):
    entry = npm()
    with fetched([PackageConfig(name="@x/set", version="1.0.0")]) as packages:
        package = packages["@x/set"]
        assert package.integrity == entry["integrity"]
        assert package.read_json("icons.json") == {"icons": {}}
        with pytest.raises(CalotypeError, match=r"cannot read bad.json"):
            package.read_json("bad.json")
        with pytest.raises(CalotypeError, match=r"cannot read chars.json"):
            package.read_json("chars.json")
    assert not package.folder.exists()


def test_the_pinned_hash_counts(npm):
    npm()
    with (
        pytest.raises(CalotypeError, match="not the pinned archive"),
        fetched([PackageConfig(name="@x/set", version="1.0.0", integrity="sha512-other")]),
    ):
        pass


def test_the_printed_hash_counts(npm):
    npm({**npm(), "integrity": "sha512-other"})
    with (
        pytest.raises(CalotypeError, match="not the pinned archive"),
        fetched([PackageConfig(name="@x/set", version="1.0.0")]),
    ):
        pass


def test_a_failing_npm_is_one_line(npm):
    npm(exit_code=1)
    with (
        pytest.raises(CalotypeError, match=r"npm pack failed \(exit code 1\): npm error code E404"),
        fetched([PackageConfig(name="@x/set", version="1.0.0")]),
    ):
        pass


def test_a_missing_npm_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CalotypeError, match="npm is not installed"), fetched([]):
        pass


@pytest.fixture(params=["filtered", "python before 3.11.4"])
def unpacking(request, monkeypatch):
    """Both ways of unpacking; the first where this Python has it."""
    if request.param != "filtered":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


@pytest.mark.usefixtures("unpacking")
@pytest.mark.parametrize("name", ["../outside.txt", "package/../../outside.txt"])
def test_archives_cannot_write_outside(tmp_path, name):
    make_archive(tmp_path / "good.tgz", {"package/inside.txt": "y"})
    extract(tmp_path / "good.tgz", tmp_path / "target")
    assert (tmp_path / "target" / "package" / "inside.txt").read_text() == "y"
    make_archive(tmp_path / "evil.tgz", {name: "x"})
    with pytest.raises(CalotypeError, match=r"cannot unpack evil.tgz"):
        extract(tmp_path / "evil.tgz", tmp_path / "target")
    assert not (tmp_path / "outside.txt").exists()


def test_a_broken_archive_is_one_line(tmp_path):
    (tmp_path / "cut.tgz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(CalotypeError, match=r"cannot unpack cut.tgz"):
        extract(tmp_path / "cut.tgz", tmp_path / "target")
