"""Lists of captions shared out by torchrun."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image


def torchrun(*words, folder):
    launch = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "calotype")
    return subprocess.run(
        [sys.executable, *launch, *words],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
def test_two_processes_make_the_images_of_one(command, model, tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"caption {number}\n" for number in range(5)))
    words = ("--model", str(model), "--size", "8", "--threads", "1", "--batch", "2")
    words = ("sample", "--from-file", "list.txt", *words)
    assert command(*words, "-o", "alone.png")[0] == 0
    done = torchrun(*words, "-o", "both.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"both-{number}.png" for number in range(5)]  # said once
    for number in range(5):
        one, two = (Image.open(tmp_path / f"{name}-{number}.png") for name in ("alone", "both"))
        assert np.array_equal(np.asarray(one), np.asarray(two))
    again = torchrun(*words, "-o", "both.png", folder=tmp_path)
    assert "5 of 5 images were there already" in again.stderr


def test_processes_without_a_list_are_refused(command, monkeypatch):
    place = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": 1}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))
    for words in (["a"], ["--from-file", "-"]):
        code, out, err = command("sample", *words, "-o", "a.png")
        assert (code, out, err.count("\n")) == (2, "", 1) and "torchrun" in err
