"""Checkpoints that are complete or not there, and that say so themselves.

    RUN/checkpoints/<images over all stages>/
        weights.safetensors, ema.safetensors, optimizer.safetensors   the stage in training
        state.json      counters, recipe, versions
        cascade/        averaged weights of all stages so far, ready to sample
        sharded/        instead of the three files, where processes hold parts of the stage
        manifest.json   size and SHA-256 of every other file; written last
    RUN/checkpoints/latest -> the newest

A checkpoint is made under a temporary name, flushed, then renamed; `latest` is
replaced in one step; older ones are pruned only after the newest was read back.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from calotype.errors import CalotypeError
from calotype.storage import files
from calotype.storage.files import is_full, new_folder, remove_folder, write_error, write_link
from calotype.storage.reading import file_sha256, read_regular

MANIFEST = "manifest.json"
STATE = "state.json"
LATEST = "latest"
DAMAGED = "damaged"
"""Where checkpoints go that do not have the sizes and hashes of their manifest."""
_FORMAT = 1
_SPARE_BYTES = 1_000_000  # manifest, state, folder entries
_READABLE = "nothing was changed: make it readable and continue with --resume"


def write_checkpoint(
    folder: Path, images: int, write: Callable[[Path], object], *, needed: int
) -> Path:
    """Write a checkpoint into `folder` (RUN/checkpoints) and point `latest` to it.

    Args:
        folder: holds all of them.
        images: over all stages: its name.
        write: writes all files but the manifest into the unfinished checkpoint; state.json is one.
        needed: bytes of its tensors.

    Raises:
        CalotypeError: it could not be written; earlier checkpoints are untouched.
    """
    path, needed = folder / str(images), needed + _SPARE_BYTES
    try:
        folder.mkdir(exist_ok=True)
        if shutil.disk_usage(folder).free < needed:
            raise _full(path, needed)
        with new_folder(path) as fresh:
            write(fresh)
            _seal(fresh, images)
        point_latest(folder, path.name)
    except (OSError, SafetensorError, CalotypeError) as error:
        if is_full(error):
            raise _full(path, needed) from error
        reason = error.__cause__ if isinstance(error.__cause__, OSError) else error
        if isinstance(reason, CalotypeError):
            raise
        raise CalotypeError(
            f"cannot write checkpoint {path}: {reason}; the last checkpoint is whole: "
            "mend the disk and continue with --resume"
        ) from error
    return path


def _seal(fresh: Path, images: int) -> None:
    """Write the manifest of what is there."""
    entries = {
        path.relative_to(fresh).as_posix(): {
            "size": path.stat().st_size,
            "sha256": file_sha256(path),
        }
        for path in sorted(fresh.rglob("*"))
        if path.is_file()
    }
    manifest = {"format": _FORMAT, "images": images, "files": entries}
    (fresh / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")


def write_tensors(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write named tensors by file name, as `read_tensors` reads them."""
    for name, own in tensors.items():
        save_file({key: t.contiguous() for key, t in own.items()}, folder / name)


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the JSON data; a checkpoint whose `decay_start` is true is never pruned."""
    (folder / STATE).write_text(json.dumps(state, indent=1), "utf-8")


def point_latest(folder: Path, name: str) -> None:
    """Make `latest` a link to the checkpoint `name`, in one step.

    Raises:
        CalotypeError: it is a folder.
    """
    latest = folder / LATEST
    if latest.is_dir() and not latest.is_symlink():
        raise CalotypeError(
            f"got a folder {latest}; expected a link, which some ways of copying a run do not "
            "keep: move it away and continue with --resume"
        )
    write_link(latest, name)


def read_tensors(path: Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of a checkpoint by file name.

    Raises:
        CalotypeError: a file is none that this program wrote, though its manifest agrees with it.
    """
    tensors = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            tensors[file.name] = load_file(file)
        except (OSError, SafetensorError) as error:
            raise _unreadable(file, error) from error
    return tensors


def read_state(path: Path) -> dict[str, Any]:
    """The JSON data of a checkpoint.

    Raises:
        CalotypeError: as `read_tensors`.
    """
    file = path / STATE
    try:
        state = json.loads(read_regular(file))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(file, error) from error
    if not isinstance(state, dict):
        raise _unreadable(file, TypeError(f"got {type(state).__name__}; expected an object"))
    return state


def _unreadable(file: Path, error: Exception) -> CalotypeError:
    reason = getattr(error, "strerror", None) or str(error)
    return CalotypeError(
        f"cannot read {file}: {reason}; its manifest was written for it as it is: move the "
        "checkpoint away and --resume goes on from the one before"
    )


def fault(path: Path) -> str | None:
    """Read a checkpoint back whole; what is damaged in it, or None.

    Damaged is what has another size or hash than its manifest says, or is gone.

    Raises:
        CalotypeError: it cannot be read, or its manifest is of another version of calotype: that is
            no damage, and the files may be worth as much as before.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(read_regular(file))
        found = manifest.get("format") if isinstance(manifest, dict) else None
        if found != _FORMAT:
            raise CalotypeError(
                f"got {file} of format {found!r:.20}; expected {_FORMAT}: go on "
                "with the version of calotype that wrote it"
            )
        for name, entry in manifest["files"].items():
            file = path / name
            if file.stat().st_size != entry["size"]:
                return f"{name} has {file.stat().st_size} bytes, expected {entry['size']}"
            if file_sha256(file, advice=_READABLE) != entry["sha256"]:
                return f"{name} does not have its SHA-256"
    except FileNotFoundError:
        return f"{file.name} is gone"
    except OSError as error:
        raise CalotypeError(f"cannot read {file}: {error.strerror}; {_READABLE}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"{file.name}: {type(error).__name__}: {error}"
    return None


def set_aside(path: Path, folder: Path) -> Path:
    """Move a checkpoint into another folder, under a name that is free there.

    Raises:
        CalotypeError: it cannot be moved.
    """
    number, place = 1, folder / path.name
    try:
        folder.mkdir(exist_ok=True)
        while place.exists():
            number += 1
            place = folder / f"{path.name}-{number}"
        os.rename(path, place)
    except OSError as error:
        raise write_error(folder, error) from error
    return place


def checkpoints(folder: Path, *, whole: bool = True) -> list[Path]:
    """All checkpoints, newest (most images) first.

    Args:
        folder: RUN/checkpoints.
        whole: those with a manifest alone; else also those that have lost it.
    """
    found = [
        path
        for path in (folder.iterdir() if folder.is_dir() else ())
        if path.name.isdecimal()
        and not path.is_symlink()
        and ((path / MANIFEST).is_file() or (not whole and (path / STATE).is_file()))
    ]
    return sorted(found, key=lambda path: int(path.name), reverse=True)


def prune(folder: Path, *, keep: int) -> list[Path]:
    """Remove all but the `keep` newest checkpoints and those where a decay begins.

    Nothing is removed unless the newest reads back.

    Raises:
        CalotypeError: the newest does not read back, or an old one cannot be removed.
    """
    paths = checkpoints(folder)
    if paths and (problem := fault(paths[0])) is not None:
        raise CalotypeError(
            f"checkpoint {paths[0]} does not read back ({problem}); older checkpoints were kept: "
            "check the disk, delete it and continue with --resume"
        )
    removed = [path for path in paths[keep:] if not read_state(path).get("decay_start")]
    for path in removed:
        try:
            remove_folder(path)
        except OSError as error:
            raise CalotypeError(
                f"cannot remove the old checkpoint {path}: {error.strerror}; the newest is whole: "
                "mend the disk and continue with --resume"
            ) from error
    return removed


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers of checkpoints left under temporary names."""
    files.remove_leftovers(folder, lambda name: name.isdecimal() or name == LATEST, stale_seconds=0)


def _full(path: Path, needed: int) -> CalotypeError:
    return CalotypeError(
        f"no room for checkpoint {path}: it needs {needed} bytes ({needed / 1e6:.0f} MB); the last "
        "checkpoint is whole: make room and continue with --resume"
    )
