"""kill -9 of a real trainer at its file operations, then --resume: the same bits as without."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calotype.config.typed_json import to_dict

TIMINGS = (
    "images_per_second",
    "data_wait",
    "seconds",
    "flops_per_second",
    "flops_share_of_peak",
)
pytestmark = pytest.mark.slow

SCRIPT = """
import os, pathlib, shutil, signal, sys
fatal, recipe, data, out = int(sys.argv[1]), *sys.argv[2:5]
import calotype.training.checkpoint as module
from calotype.training.recipes import load_recipe
from calotype.tasks.factory import Tasks
from calotype.training.run import RunOptions, run_recipe
count = 0
def watched(function):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call
for place, name in ((os, "fsync"), (os, "rename"), (os, "replace"), (os, "symlink"),
                    (shutil, "rmtree"), (pathlib.Path, "mkdir"), (pathlib.Path, "write_text"),
                    (pathlib.Path, "unlink"), (module, "save_file")):
    setattr(place, name, watched(getattr(place, name)))
options = RunOptions(resume=True, quiet=True, threads=1, dtype="float32", device="cpu")
code = run_recipe(load_recipe(recipe), data=pathlib.Path(data), out=pathlib.Path(out),
                  options=options, tasks=Tasks())
print("operations", count)
sys.exit(code)
"""


@pytest.fixture
def trainer(tmp_path, micro_recipe, images):
    recipe = tmp_path / "recipe.json"
    short = micro_recipe(total_images=24, checkpoint_images=8, grid_images=8, validation_images=8)
    recipe.write_text(json.dumps(to_dict(short)))

    def run(out, fatal=0):
        command = [sys.executable, "-c", SCRIPT, str(fatal), str(recipe), str(images), str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    return run


def _bits(run: Path) -> dict[str, bytes]:
    bits = {
        str(path.relative_to(run)): path.read_bytes()
        for pattern in ("checkpoints/*/*.safetensors", "checkpoints/*/state.json", "grids/*.png")
        for path in run.glob(pattern)
        if "latest" not in path.parts
    }
    for name in ("log.jsonl", "validation.jsonl"):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        timeless = [
            {key: value for key, value in line.items() if key not in TIMINGS} for line in lines
        ]
        bits[name] = json.dumps(timeless).encode()
    return bits


def test_killed_anywhere_and_resumed(trainer, tmp_path):
    whole = trainer(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    expected = _bits(tmp_path / "whole")
    operations = int(whole.stdout.split()[-1])
    assert operations > 60
    for fatal in range(3, operations, max(1, operations // 3)):
        out = tmp_path / str(fatal)
        assert trainer(out, fatal).returncode == -9
        again = trainer(out)
        assert again.returncode == 0, again.stderr
        assert _bits(out) == expected, f"killed at operation {fatal}"
