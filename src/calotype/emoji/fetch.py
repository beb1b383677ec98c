"""Get npm packages with the ordinary npm client and read what is in them.

Packages are pinned by version; the archive's hash must be the one npm prints (and the recipe's).
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from calotype.emoji.recipe import PackageConfig
from calotype.errors import CalotypeError


@dataclass(frozen=True)
class FetchedPackage:
    """An unpacked npm package: its folder and the hash of its archive."""

    name: str
    version: str
    integrity: str
    folder: Path

    def read_json(self, path: str) -> Any:
        """Parse one of its JSON files."""
        try:
            return json.loads((self.folder / path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CalotypeError(
                f"{self.name}@{self.version}: cannot read {path}: {error}"
            ) from error


@contextmanager
def fetched(packages: list[PackageConfig]) -> Iterator[dict[str, FetchedPackage]]:
    """Download and unpack packages into a temporary folder; yields them by name.

    Raises:
        CalotypeError: npm is missing or fails, or an archive is not what it should be.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise CalotypeError(
            "npm is not installed; the emoji packages are got with it: install Node.js and npm, "
            "then run the command again"
        )
    with TemporaryDirectory(prefix="calotype-npm-") as folder:
        printed = _npm_pack(npm, packages, Path(folder))
        yield {p.name: _unpack(p, printed, Path(folder)) for p in packages}


def _npm_pack(npm: str, packages: list[PackageConfig], folder: Path) -> dict[str, Any]:
    names = [f"{package.name}@{package.version}" for package in packages]
    command = [npm, "pack", "--json", "--prefer-offline", "--ignore-scripts", *names]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        entries = json.loads(done.stdout)
        entries = list(entries.values()) if isinstance(entries, dict) else entries
        printed = {entry["name"]: entry for entry in entries}
    except (ValueError, KeyError, TypeError):
        printed = {}
    if done.returncode != 0 or not all(package.name in printed for package in packages):
        lines = [line for line in done.stderr.splitlines() if "error" in line] or ["no output"]
        raise CalotypeError(f"npm pack failed (exit code {done.returncode}): {lines[0][:300]}")
    return printed


def _unpack(package: PackageConfig, printed: dict[str, Any], folder: Path) -> FetchedPackage:
    entry = printed[package.name]
    archive = folder / Path(entry["filename"]).name
    integrity = file_integrity(archive)
    expected = {entry["integrity"], package.integrity or entry["integrity"]}
    if expected != {integrity} or entry["version"] != package.version:
        raise CalotypeError(
            f"{package.name}: got version {entry['version']} with {integrity[:19]}..., expected "
            f"{package.version} with {sorted(expected)[0][:19]}...; this is not the pinned archive"
        )
    target = folder / "unpacked" / archive.stem
    extract(archive, target)
    return FetchedPackage(package.name, package.version, integrity, target / "package")


def file_integrity(path: Path) -> str:
    """The sha512 integrity string of a file, as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()


def extract(archive: Path, target: Path) -> None:
    """Unpack an archive without letting it write outside `target`.

    Raises:
        CalotypeError: it is broken, or has a member that leads outside or is no plain file.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(target, filter="data")
            else:  # Python before 3.11.4
                _check_members(tar, target.resolve())
                tar.extractall(target)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise CalotypeError(f"cannot unpack {archive.name}: {error}") from error


def _check_members(tar: tarfile.TarFile, root: Path) -> None:
    """Refuse what is no plain file or folder inside `root`, links among it."""
    for member in tar.getmembers():
        inside = (root / member.name).resolve().is_relative_to(root)
        if not (inside and (member.isfile() or member.isdir())):
            raise tarfile.ExtractError(f"{member.name!r:.200} is no plain file inside the archive")
