"""What is not the run's own is never touched, and what is the run's own is never dropped unasked.

Numbers are those of the findings in docs/limits.md.
"""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from calotype.cascade import Cascade, io
from calotype.cascade.io import check_replaceable
from calotype.cli import run as run_command
from calotype.config.optimizer import OptimizerConfig
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError, UsageError
from calotype.interop.imagen_pytorch.files import save as save_imagen
from calotype.storage import reading
from calotype.storage.files import write_file
from calotype.tasks.assemble import assemble
from calotype.training import checkpoint
from calotype.training import run as run_module


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
    assert tree(out) == before  # not even a lock


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_2_what_cannot_be_read_is_not_damaged(train, run, monkeypatch, number):
    out, recipe = run
    before, read = tree(out), reading.open_regular

    def refuse(path):
        if path.name == "ema.safetensors":
            raise OSError(number, "no")
        return read(path)

    monkeypatch.setattr(reading, "open_regular", refuse)
    with pytest.raises(CalotypeError, match=r"cannot read .*ema.safetensors.*nothing was changed"):
        train(recipe, out, resume=True, images=24)
    assert tree(out) == before


@pytest.mark.parametrize("manifest", [{"format": 9, "parts": []}, {"version": 2}, []])
def test_2_a_manifest_of_another_version_is_not_damaged(train, run, manifest):
    out, recipe = run
    for path in out.glob("checkpoints/[0-9]*/manifest.json"):
        path.write_text(json.dumps(manifest))
    before = tree(out)
    with pytest.raises(CalotypeError, match=r"of format (9|None); expected 1"):
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


def test_2_checkpoints_that_lost_their_manifests_are_set_aside(train, run):
    """As some ways of copying lose them."""
    out, recipe = run
    for path in out.glob("checkpoints/[0-9]*/manifest.json"):
        path.unlink()
    with pytest.raises(UsageError, match=r"all are damaged.*add --start-over"):
        train(recipe, out, resume=True)
    aside = out / "checkpoints" / "damaged"
    assert all((aside / name / "weights.safetensors").is_file() for name in ("8", "16"))


def test_2_a_run_whose_checkpoints_are_elsewhere_does_not_start_over(train, micro_recipe, tmp_path):
    out = tmp_path / "run"
    recipe = micro_recipe(total_images=24, checkpoint_images=8)
    assert train(recipe, out) == 0
    (out / "checkpoints").rename(tmp_path / "elsewhere")
    before = tree(out)
    with pytest.raises(UsageError, match=r"they are gone.*add --start-over"):
        train(recipe, out, resume=True)
    assert tree(out) == before
    (tmp_path / "elsewhere").rename(out / "checkpoints")
    assert train(recipe, out, resume=True) == 0


def test_files_of_others_among_those_of_a_run_stay(train, run):
    out, recipe = run
    names = ("lora/20260101-final.safetensors", "ema/20260101-mine.safetensors",
             "grids/20260101.png", "ema/12-0.050-mine.safetensors")  # fmt: skip
    for name in names:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
    shutil.rmtree(out / "checkpoints" / "16")
    assert train(recipe, out, resume=True) == 0
    assert all((out / name).read_text() == "mine" for name in names)


def test_a_recipe_of_others_is_no_run_that_took_no_step(train, run, micro_recipe, tmp_path):
    out, theirs = tmp_path / "theirs", micro_recipe(batch_size=8)
    (out / "tensorboard").mkdir(parents=True)
    (out / "recipe.json").write_text(json.dumps(to_dict(theirs)))
    (out / "tensorboard" / "mine").write_text("mine")
    before = tree(out)
    with pytest.raises(UsageError, match=r"recipe.json of another run .*batch_size"):
        train(micro_recipe(), out)
    assert tree(out) == before
    assert train(theirs, out) == 0  # its own recipe: nothing is lost
    assert (out / "tensorboard" / "mine").read_text() == "mine"


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


def test_4_the_recipe_that_was_passed_stays(micro_recipe, images, tmp_path, capsys):
    folder = tmp_path / "my"
    folder.mkdir()
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(to_dict(micro_recipe())))
    before = tree(folder)
    words = ["train", str(recipe), "--data", str(images), "--quiet"]
    assert run_command([*words, "--out", str(folder), "--device", "cuda:77"]) == 2
    assert run_command([*words, "--out", str(folder / "."), "--device", "cpu"]) == 2
    assert tree(folder) == before
    out = tmp_path / "deep" / "run"
    assert run_command([*words, "--out", str(out), "--device", "cuda:77"]) != 0
    assert tree(folder) == before and not (tmp_path / "deep").exists()
    assert "defect" not in capsys.readouterr().err


@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_fails_in_preparation_leaves_the_folder_as_it_was(
    train, micro_recipe, tmp_path, resume
):
    data, there = tmp_path / "data", tmp_path / "there"
    data.mkdir()
    there.mkdir()
    for out in (there, tmp_path / "new", tmp_path / "deep" / "new"):
        with pytest.raises(CalotypeError, match="no images"):
            train(micro_recipe(), out, data=data, resume=resume)
        with pytest.raises(CalotypeError, match="encoder"):
            train(micro_recipe(text_encoder="t5:nowhere"), out, resume=resume)
    assert [path.name for path in tmp_path.iterdir() if path != data] == ["there"]
    assert not any(there.iterdir())


def test_a_run_that_fails_after_it_embedded_captions_keeps_them(
    train, micro_recipe, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    monkeypatch.setattr(run_module, "Trainer", None)  # fails where the steps would begin
    with pytest.raises(TypeError):
        train(micro_recipe(), out)
    assert list(out.glob("embeddings/*")) and (out / "recipe.json").is_file()
    monkeypatch.undo()
    assert train(micro_recipe(), out) == 0


@pytest.mark.parametrize("command", ["assemble", "ema"])
def test_a_cascade_that_cannot_be_written_whole_is_not_written(run, tmp_path, monkeypatch, command):
    out, _ = run
    folder = tmp_path / "cascade"
    joined(out, folder)
    before, write = tree(tmp_path), io.save_stage

    def fail(stage, place, **options):
        write(stage, place, **options)
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(io, "save_stage", fail)
    for place in (folder, tmp_path / "new"):
        with pytest.raises(CalotypeError, match="cannot write"):
            joined(out, place)
        with pytest.raises(CalotypeError, match="cannot write"):
            Cascade.load(folder).save(place)
    assert tree(tmp_path) == before


def test_3_other_outputs_are_refused_where_others_have_files(run, train, micro_recipe, tmp_path):
    out = tmp_path / "averaged"
    recipe = micro_recipe(total_images=16, checkpoint_images=8, posthoc_ema_images=8)
    assert train(recipe, out) == 0
    mine = tmp_path / "mine"
    for name in ("cascade.txt", "weights.safetensors", "8/model.ckpt"):
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text("mine")
    before = tree(mine)
    for words in (
        ("ema", str(out), "0.1", "-o", str(mine)),
        ("assemble", str(run[0]), "-o", str(mine)),
        ("export", "--model", str(run[0]), "-o", str(mine)),
    ):
        assert run_command(words) == 2, words
        assert tree(mine) == before
    with pytest.raises(UsageError, match="is no imagen_pytorch cascade"):
        save_imagen(torch.nn.Identity(), mine)
    assert tree(mine) == before


def test_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="a device or a FIFO"):
        write_file(tmp_path / "fifo", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["fifo"] and (tmp_path / "fifo").is_fifo()


def test_6_temporary_files_of_others_stay(tmp_path):
    theirs = [tmp_path / name for name in (".passwords.tmp", ".notes.old", ".8.txt.tmp")]
    ours = [tmp_path / name for name in (".8.123.tmp", ".16.99.old", ".latest.7.tmp")]
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
