"""An evaluation shared out by torchrun."""

import json
import os
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_two_processes_find_the_numbers_of_one(command, model, images, tmp_path):
    (tmp_path / "suite.txt").write_text("".join(f"caption {number}\n" for number in range(6)))
    words = ["evaluate", str(model), "--suite", "suite.txt", "--reference", str(images)]
    words += ["--size", "8", "--threads", "1", "--dtype", "float32", "-o"]
    assert command(*words, "one")[0] == 0
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    done = subprocess.run(
        [*launch, "-m", "calotype", *words, "two"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    one, two = (
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")
    )
    assert one["numbers"] == two["numbers"] and len(one["numbers"]) > 5
    assert one["samples"]["shards"] == two["samples"]["shards"]
