import errno
import json
import os
import pathlib
import shutil

import pytest
import torch
from torch.distributed.checkpoint.api import CheckpointException

import calotype.training.checkpoint as module
from calotype.errors import CalotypeError
from calotype.training import sharded_checkpoint
from calotype.training.checkpoint import (
    checkpoints,
    fault,
    prune,
    read_state,
    read_tensors,
    remove_leftovers,
    write_checkpoint,
    write_state,
    write_tensors,
)
from calotype.training.distributed import Group


class KilledError(BaseException):
    """Stands for kill -9: nobody catches it."""


class Operations:
    """Counts file operations; from the chosen one on, all of them fail: the process is dead."""

    def __init__(self, monkeypatch):
        self.count = 0
        self.fatal = None
        self.error = KilledError()
        self.once = False  # only the chosen one fails: a fault of the disk, not of the process
        self.names = []
        for place, name in (
            (os, "fsync"),
            (os, "rename"),
            (os, "replace"),
            (os, "symlink"),
            (shutil, "rmtree"),
            (pathlib.Path, "mkdir"),
            (pathlib.Path, "write_text"),
            (pathlib.Path, "write_bytes"),
            (pathlib.Path, "unlink"),
            (module, "save_file"),
        ):
            monkeypatch.setattr(place, name, self._watched(getattr(place, name), name))

    def _watched(self, function, name):
        def call(*args, **kwargs):
            self.count += 1
            self.names.append(name)
            fails = self.fatal is not None and self.count >= self.fatal
            if fails and not (self.once and self.count > self.fatal):
                if name in ("write_text", "write_bytes", "save_file"):
                    path = args[1] if name == "save_file" else args[0]
                    with open(path, "wb") as file:  # half of it is there
                        file.write(b"half")
                raise self.error
            return function(*args, **kwargs)

        return call


def put(folder, images, write_more=None, **state):
    """Write a checkpoint; its numbers tell its images."""
    tensors = {"weights.safetensors": {"w": torch.full((4, 5), float(images))}}

    def write(fresh):
        write_tensors(fresh, tensors)
        write_state(fresh, {"images": images, **state})
        (fresh / "cascade").mkdir()
        (fresh / "cascade/cascade.json").write_text(str(images))
        if write_more is not None:
            write_more(fresh)

    return write_checkpoint(folder, images, write, needed=80)


def _holds(path, images):
    weights = read_tensors(path)["weights.safetensors"]["w"]
    return bool((weights == images).all()) and read_state(path)["images"] == images


def test_what_is_written_reads_back(tmp_path):
    path = put(tmp_path / "checkpoints", 20)
    assert fault(path) is None
    assert _holds(path, 20)
    assert os.readlink(tmp_path / "checkpoints" / "latest") == "20"
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert set(files) == {"weights.safetensors", "state.json", "cascade/cascade.json"}


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "missing", "empty manifest"])
def test_damage_is_found(tmp_path, damage):
    path = put(tmp_path / "checkpoints", 20)
    file = path / "weights.safetensors"
    data = bytearray(file.read_bytes())
    if damage == "flipped bit":
        data[-1] ^= 1
        file.write_bytes(data)
    elif damage == "cut":
        file.write_bytes(data[:-3])
    elif damage == "missing":
        file.unlink()
    else:
        (path / "manifest.json").write_text("")
    assert fault(path) is not None


def test_killed_at_every_file_operation(tmp_path, monkeypatch):
    """Whenever the writer dies, the old or the new checkpoint is there, whole, and `latest` too."""
    operations = Operations(monkeypatch)
    total = None
    fatal = 0
    seen = set()
    while total is None or fatal < total:
        fatal += 1
        folder = tmp_path / str(fatal) / "checkpoints"
        operations.fatal = None
        folder.parent.mkdir()
        put(folder, 20, decay_start=False)
        operations.count, operations.fatal, operations.names = 0, fatal, []
        try:
            put(folder, 40, decay_start=False)
            prune(folder, keep=1)
            total = operations.count
        except KilledError:
            pass
        operations.fatal = None
        found = [path for path in checkpoints(folder) if fault(path) is None]
        assert found, f"nothing is left after {operations.names}"
        assert found == checkpoints(folder), "no half checkpoint goes under a final name"
        assert _holds(found[0], int(found[0].name))
        assert (folder / "latest" / "manifest.json").is_file()
        seen.add(found[0].name)
        # And the next attempt works as if nothing had happened.
        remove_leftovers(folder)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")]
        path = put(folder, 40, decay_start=False)
        assert fault(path) is None and _holds(path, 40)
    assert fatal > 12 and seen == {"20", "40"}


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_is_one_line_and_spares_the_last_checkpoint(
    tmp_path, monkeypatch, number, once
):
    folder = tmp_path / "checkpoints"
    put(folder, 20)
    operations = Operations(monkeypatch)
    operations.error, operations.once = OSError(number, os.strerror(number)), once
    for fatal in range(1, 1000):
        operations.count, operations.fatal = 0, fatal
        try:
            put(folder, 40)
        except CalotypeError as error:
            told = str(error)
        else:
            break
        operations.fatal = None
        remove_leftovers(folder)
        assert "\n" not in told and "the last checkpoint is whole" in told
        if number == errno.ENOSPC:
            assert "needs 10" in told and "bytes" in told
        assert fault(folder / "20") is None
        assert fault(folder / "latest") is None
    assert fatal > 12  # every operation has failed once


def test_old_checkpoints_that_cannot_be_removed_are_one_line(tmp_path, monkeypatch):
    for images in (20, 40):
        put(tmp_path, images, decay_start=False)
    operations = Operations(monkeypatch)
    operations.error = OSError(errno.EIO, os.strerror(errno.EIO))
    operations.fatal = 1
    with pytest.raises(CalotypeError, match=r"cannot remove .*20: Input/output error; the newest"):
        prune(tmp_path, keep=1)
    assert len(checkpoints(tmp_path)) == 2


def test_a_disk_that_is_full_for_another_process_says_how_much(tmp_path, monkeypatch):
    """torch.distributed.checkpoint wraps what a process has met."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save(*args, **options):
        raise CheckpointException("write", {1: (full, [])})

    monkeypatch.setattr(sharded_checkpoint, "save", save)

    def write(fresh):
        sharded_checkpoint.write_shards(fresh, {}, Group())

    with pytest.raises(CalotypeError, match=r"it needs 10\d+ bytes"):
        put(tmp_path, 20, write)
    assert checkpoints(tmp_path) == []


def test_a_full_disk_is_noticed_beforehand(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CalotypeError, match=r"needs 10\d+ bytes"):
        put(tmp_path / "checkpoints", 20)
    assert checkpoints(tmp_path / "checkpoints") == []


def test_pruning_keeps_the_newest_and_where_decay_begins(tmp_path):
    for images in (20, 40, 60, 80, 100):
        put(tmp_path, images, decay_start=images == 40)
    removed = prune(tmp_path, keep=2)
    assert {path.name for path in removed} == {"20", "60"}
    assert [path.name for path in checkpoints(tmp_path)] == ["100", "80", "40"]


def test_nothing_is_pruned_when_the_newest_does_not_read_back(tmp_path):
    for images in (20, 40, 60):
        put(tmp_path, images, decay_start=False)
    (tmp_path / "60" / "weights.safetensors").write_bytes(b"rot")
    with pytest.raises(CalotypeError, match="does not read back"):
        prune(tmp_path, keep=1)
    assert len(checkpoints(tmp_path)) == 3


def test_a_checkpoint_can_be_written_again(tmp_path):
    put(tmp_path, 20, attempt=1)
    path = put(tmp_path, 20, attempt=2)
    assert read_state(path)["attempt"] == 2 and fault(path) is None
