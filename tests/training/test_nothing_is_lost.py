"""What is not the run's own is never touched, and what is the run's own is never dropped unasked.

Numbers are those of the findings in docs/limits.md.
"""

import errno
import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from calotype.cascade.io import check_replaceable
from calotype.config import OptimizerConfig
from calotype.errors import CalotypeError, UsageError
from calotype.training import checkpoint
from calotype.training.assemble import assemble


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file of a folder, by name; links by where they point to."""
    return {
        path.relative_to(folder).as_posix(): str(path.readlink())
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() or path.is_symlink()
    }


def joined(run: Path, folder: Path) -> None:
    assemble([run], folder, name="micro", dtype=torch.float32)


@pytest.fixture
def run(train, micro_recipe, tmp_path):
    """A finished run of two checkpoints."""
    out = tmp_path / "run"
    recipe = micro_recipe(total_images=16, checkpoint_images=8, keep_checkpoints=5)
    assert train(recipe, out) == 0
    return out, recipe


def test_1_resume_in_a_folder_that_is_no_run(train, micro_recipe, tmp_path):
    out = tmp_path / "project"
    for name in ("checkpoints/sdxl/model.ckpt", "lora/a.safetensors", "grids/4.png", "log.jsonl"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("somebody's")
    before = tree(out)
    with pytest.raises(UsageError, match="which is no run"):
        train(micro_recipe(), out, resume=True)
    with pytest.raises(UsageError, match="is not empty; choose another --out"):
        train(micro_recipe(), out)
    (out / "recipe.json").write_text(json.dumps({"bread": 1}))  # a recipe, but none of ours
    with pytest.raises(UsageError, match="which is no run"):
        train(micro_recipe(), out, resume=True)
    (out / "recipe.json").unlink()
    after = {name: digest for name, digest in tree(out).items() if not name.endswith(".lock")}
    assert after == before


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_2_what_cannot_be_read_is_not_damaged(train, run, monkeypatch, number):
    out, recipe = run
    before, read = tree(out), checkpoint._sha256

    def refuse(path):
        if path.name == "ema.safetensors":
            raise OSError(number, "no")
        return read(path)

    monkeypatch.setattr(checkpoint, "_sha256", refuse)
    with pytest.raises(CalotypeError, match=r"cannot read .*ema.safetensors.*nothing was changed"):
        train(recipe, out, resume=True, images=24)
    assert tree(out) == before


def test_2_a_manifest_of_another_version_is_not_damaged(train, run):
    out, recipe = run
    for path in out.glob("checkpoints/[0-9]*/manifest.json"):
        path.write_text(json.dumps({"format": 9, "parts": []}))
    before = tree(out)
    with pytest.raises(CalotypeError, match="of format 9; expected 1"):
        train(recipe, out, resume=True)
    assert tree(out) == before


def test_2_all_damaged_checkpoints_are_kept_and_nothing_starts_over_unasked(train, run, capsys):
    out, recipe = run
    for path in out.glob("checkpoints/[0-9]*/weights.safetensors"):
        path.write_bytes(b"rot")
    for _ in range(2):  # also when they have been set aside already
        with pytest.raises(UsageError, match=r"all are damaged.*add --start-over"):
            train(recipe, out, resume=True)
    assert sorted(path.name for path in (out / "checkpoints/damaged").iterdir()) == ["16", "8"]
    log = (out / "log.jsonl").read_text()
    assert train(recipe, out, resume=True, start_over=True) == 0
    assert "moved the old run to" in capsys.readouterr().out
    (old,) = out.parent.glob("run-2*")
    assert (old / "log.jsonl").read_text() == log and (old / "recipe.json").is_file()
    assert (old / "checkpoints/damaged/16/weights.safetensors").read_bytes() == b"rot"
    assert (out / "checkpoints/16").is_dir()


def test_3_a_cascade_is_replaced_and_what_lies_beside_it_is_not(run, tmp_path):
    out, _ = run
    folder = tmp_path / "cascade"
    joined(out, folder)
    (folder / "README.md").write_text("mine")
    joined(out, folder)
    assert (folder / "README.md").read_text() == "mine"
    for name in (".git/config", "samples/a.png", "8/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
        before = tree(folder)
        with pytest.raises(UsageError, match="beside its cascade"):
            joined(out, folder)
        assert tree(folder) == before
        (folder / name).unlink()
        if name != "8/notes.txt":
            (folder / name).parent.rmdir()
    shutil.copy2(folder / "cascade.json", out / "cascade.json")
    with pytest.raises(UsageError, match="beside its cascade"):
        check_replaceable(out)  # a run with a stray cascade.json


def test_6_temporary_files_of_others_stay(tmp_path):
    theirs = [tmp_path / name for name in (".passwords.tmp", ".notes.old", ".8.txt.tmp")]
    ours = [tmp_path / name for name in (".8.123.tmp", ".16.99.old", ".latest.tmp")]
    for path in (*theirs, *ours):
        path.write_text("x")
    checkpoint.remove_leftovers(tmp_path)
    assert [path.exists() for path in (*theirs, *ours)] == [True] * 3 + [False] * 3


def test_16_a_longer_run_that_fits_no_checkpoint_asks(train, micro_recipe, tmp_path):
    out = tmp_path / "run"
    rate = OptimizerConfig(learning_rate=2e-3, warmup_images=0, decay_from=1.0)
    # The last batch is cut, and the only checkpoint is behind it.
    recipe = micro_recipe(total_images=18, checkpoint_images=100, optimizer=rate)
    assert train(recipe, out) == 0
    before = tree(out)
    with pytest.raises(UsageError, match=r"does not fit.*add --start-over"):
        train(recipe, out, resume=True, images=36)
    assert tree(out) == before
    assert train(recipe, out, resume=True, images=36, start_over=True) == 0
    (old,) = out.parent.glob("run-2*")
    assert (old / "checkpoints/18").is_dir() and (out / "checkpoints/36").is_dir()
