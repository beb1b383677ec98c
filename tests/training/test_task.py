"""Training knows a task and no model: one of its own trains, is killed, resumes to the bit."""

import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mean_task import MeanTask, main
from safetensors.torch import load_file

from calotype.config.typed_json import to_dict
from calotype.training import progress

PROGRAM = Path(__file__).with_name("mean_task.py")


@pytest.fixture
def out(tmp_path, micro_recipe):
    recipe = micro_recipe(total_images=320, checkpoint_images=8, validation_images=16)
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    return tmp_path / "run"


def finished(run):
    path = run / "checkpoints/320"
    return {file.name: load_file(file) for file in path.glob("*.safetensors")}


def same(one, two):
    return all(torch.equal(one[f][k], two[f][k]) for f in one for k in one[f])


def test_it_is_small():
    assert len(inspect.getsource(MeanTask).splitlines()) <= 40


@pytest.mark.slow
def test_it_learns_is_killed_and_resumes_to_the_bit(images, out, monkeypatch):
    assert main(str(images), str(out)) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    first, last = (sum(line["loss"] for line in some) for some in (lines[:20], lines[-20:]))
    assert last < first and "largest" in lines[0]
    assert json.loads((out / "validation.jsonl").read_text().splitlines()[0])["validation"]
    other = out.with_name("other")

    def stop(self, now, meter):
        if now == 100:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress.TrainingDisplay, "show", stop)
    assert main(str(images), str(other)) == 0
    assert not (other / "checkpoints/320").exists()
    monkeypatch.undo()
    assert main(str(images), str(other), "resume") == 0
    assert same(finished(out), finished(other))


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("sharded",)])
def test_two_processes_have_the_losses_of_one(images, out, words):
    assert main(str(images), str(out)) == 0
    two = out.with_name("two")
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    command = [sys.executable, *launch, str(PROGRAM), str(images), str(two), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for key in ("loss", "largest"):
        ours, theirs = (
            [json.loads(line)[key] for line in (run / "log.jsonl").read_text().splitlines()]
            for run in (out, two)
        )
        assert theirs == pytest.approx(ours, rel=1e-4)
