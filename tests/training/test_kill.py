"""kill -9 of a real trainer at its file operations, then --resume: the same bits as without."""

import json
import os
import signal
import subprocess
import sys

import pytest
from killed import assert_same_bits
from micro_recipes import micro_classifier, noised_in_parts, write_captioned, write_classes

from calotype.config.typed_json import to_dict

pytestmark = pytest.mark.slow

# Forks a trainer for each line of its input, having imported what they need and computed nothing;
# answers with the operations, of one that was not killed, and the exit code.
SCRIPT = """
import json, os, pathlib, shutil, signal, sys
import torch._dynamo, torch.utils.tensorboard  # else each trainer would import them
import calotype.training.checkpoint as module
from calotype.training.recipes import load_recipe
from calotype.tasks.factory import Tasks
from calotype.training.run import RunOptions, run_recipe
torch.set_num_threads(1)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)
else:
    sys.exit()
fatal, recipe, data, out = json.loads(line)
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
print(count, end=" ", file=answers, flush=True)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    errors = tmp_path_factory.mktemp("server") / "errors.txt"
    with (
        errors.open("w") as stream,
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        ) as process,
    ):

        def ask(*request):
            print(json.dumps(request, default=str), file=process.stdin, flush=True)
            *operations, code = map(int, process.stdout.readline().split())
            assert code in (0, -signal.SIGKILL), errors.read_text()
            return code, *operations

        yield ask


@pytest.fixture(params=["diffusion", "classifier", "noised CLIP"])
def trainer(request, server, tmp_path, micro_recipe, images):
    short = {"total_images": 22, "checkpoint_images": 8, "validation_images": 8, "batch_size": 4}
    short["posthoc_ema_images"] = 8
    data, recipe = tmp_path / "data", tmp_path / "recipe.json"
    data.mkdir()
    if request.param == "diffusion":
        data, made = images, micro_recipe(grid_images=8, **short)
    elif request.param == "classifier":
        data, made = write_classes(data), micro_classifier(**short)
    else:
        data, made = write_captioned(data), noised_in_parts("logsnr", **short)
    recipe.write_text(json.dumps(to_dict(made)))
    return lambda out, fatal=0: server(fatal, recipe, data, out)


def test_killed_anywhere_and_resumed(trainer, tmp_path):
    whole = tmp_path / "whole"
    code, operations = trainer(whole)
    assert code == 0 and operations > 60
    for fatal in range(3, operations, max(1, operations // 3)):
        out = tmp_path / str(fatal)
        assert trainer(out, fatal) == (-signal.SIGKILL,)
        assert trainer(out)[0] == 0, f"killed at operation {fatal}"
        assert_same_bits(out, whole)
