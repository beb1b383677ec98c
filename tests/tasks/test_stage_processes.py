"""`--parallel stages`: each process trains stages of its own."""

import dataclasses

import pytest
import torch

from calotype.cascade import Cascade
from calotype.errors import UsageError
from calotype.tasks.assemble import assemble
from calotype.tasks.factory import Tasks
from calotype.tasks.stage_processes import run_stages
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions


@pytest.fixture
def as_process(monkeypatch):
    def become(rank, count):
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", "1")
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(count))

    return become


@pytest.mark.slow
def test_each_process_its_own_stages(images, tmp_path, as_process, capsys):
    tiny, out = load_recipe("tiny"), tmp_path / "run"
    options = RunOptions(images=8, quiet=True, threads=1, dtype="float32", device="cpu")
    for rank in (1, 0):
        as_process(rank, 2)
        assert run_stages(tiny, data=images, out=out, options=options, tasks=Tasks()) == 0
        assert (out / "cascade").exists() == (rank == 0)  # the last one joins them
    assert sorted(path.name for path in out.iterdir() if path.name.isdecimal()) == [
        "16", "32", "8",
    ]  # fmt: skip
    for folder in (out, assemble([out], tmp_path / "joined", name="x", dtype=torch.float32)):
        cascade = Cascade.load(folder)
        assert [stage.config.resolution for stage in cascade.stages] == [8, 16, 32]
    again = dataclasses.replace(options, resume=True)
    capsys.readouterr()
    assert run_stages(tiny, data=images, out=out, options=again, tasks=Tasks()) == 0
    assert "is finished" in capsys.readouterr().out
    as_process(0, 4)
    with pytest.raises(UsageError, match="4 processes for 3 stages"):
        run_stages(tiny, data=images, out=out, options=options, tasks=Tasks())


def test_the_two_kinds_of_runs_do_not_mix(images, tmp_path, train):
    tiny = load_recipe("tiny")
    (tmp_path / "a" / "8").mkdir(parents=True)
    (tmp_path / "a" / "8" / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="--parallel stages"):
        train(tiny, tmp_path / "a", resume=True)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.json").write_text("{}")
    with pytest.raises(UsageError, match="stages in turn"):
        options = RunOptions(resume=True)
        run_stages(tiny, data=images, out=tmp_path / "b", options=options, tasks=Tasks())
