"""Buffers that change in training reach averages, checkpoints, and all processes."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from centred_task import CentredTask, CentredTasks
from mean_task import main
from safetensors.torch import load_file

from calotype.config.typed_json import to_dict
from calotype.data.batch import Batch
from calotype.training import progress
from calotype.training.sharded_checkpoint import read_shards
from calotype.training.state import TrainState
from calotype.training.step import train_step

PROGRAM = Path(__file__).with_name("centred_task.py")


@pytest.fixture
def out(tmp_path, micro_recipe):
    recipe = micro_recipe(total_images=64, checkpoint_images=8, validation_images=16)
    (tmp_path / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    return tmp_path / "run"


def batch(value):
    images = torch.full((4, 3, 8, 8), value)
    return Batch(images, None, ("",) * 4, ("",) * 4, 0)


def test_the_average_has_them_and_a_skipped_step_leaves_no_trace(micro):
    state = TrainState(CentredTask(micro()))
    assert not train_step(state, batch(1.0)).skipped
    buffers = state.model[0].mean, state.ema.averaged()[0].mean
    assert torch.equal(*buffers) and buffers[0].abs().min() > 0.05
    before = buffers[0].clone()
    assert train_step(state, batch(math.nan)).skipped
    assert torch.equal(buffers[0], before) and torch.equal(buffers[1], before)
    assert int(state.model[0].steps) == 1


def test_a_stopped_run_resumes_them_to_the_bit(images, out, monkeypatch):
    assert main(str(images), str(out), tasks=CentredTasks()) == 0
    stopped = out.with_name("stopped")

    def stop(self, now, meter):
        if now == 28:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(progress.TrainingDisplay, "show", stop)
    assert main(str(images), str(stopped), tasks=CentredTasks()) == 0
    monkeypatch.undo()
    assert main(str(images), str(stopped), "resume", tasks=CentredTasks()) == 0
    whole, resumed = (run / "checkpoints/64" for run in (out, stopped))
    for name in ("weights.safetensors", "ema.safetensors"):
        ours, theirs = load_file(whole / name), load_file(resumed / name)
        assert int(ours["0.steps"]) == 16 and ours["0.mean"].abs().min() > 0
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("sharded",)])
def test_two_processes_have_those_of_one(images, out, words):
    assert main(str(images), str(out), tasks=CentredTasks()) == 0
    two = out.with_name("two")
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    command = [sys.executable, *launch, str(PROGRAM), str(images), str(two), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    one, path = load_file(out / "checkpoints/64/ema.safetensors"), two / "checkpoints/64"
    own = read_shards(path)["ema.safetensors"] if words else load_file(path / "ema.safetensors")
    torch.testing.assert_close(own, one, rtol=1e-4, atol=1e-6)
    ours, theirs = (
        [json.loads(line)["loss"] for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (out, two)
    )
    assert theirs == pytest.approx(ours, rel=1e-4)
