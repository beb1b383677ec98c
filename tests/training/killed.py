"""Processes of torchrun that are killed, and the bits of runs that ought not to show it."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from calotype.storage.files import is_temporary

TIMINGS = (
    "images_per_second", "data_wait", "seconds", "flops_per_second", "flops_share_of_peak",
)  # fmt: skip


def lines(path):
    """The lines of a log, without what the clock says."""
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in found]


def _read(path):
    """A file's bytes; of torch's sharded ones the tensors, whose notes come in any order."""
    data = path.read_bytes()
    if path.parent.name != "sharded":
        return data
    begin = 8 + int.from_bytes(data[:8], "little")
    return {**json.loads(data[8:begin]), "__metadata__": None}, data[begin:]


def bits(run):
    """What a run leaves, by its name, but for clocks, trackers' files and half-written ones."""
    found = {
        str(path.relative_to(run)): _read(path)
        for folder in ("checkpoints", "grids", "ema")
        for path in (run / folder).rglob("*")
        if path.is_file() and not is_temporary(path.name, lambda name: True)
        # A manifest hashes the notes, too.
        if path.name != "manifest.json" or not (path.parent / "sharded").is_dir()
    }
    logs = {f"{name}.jsonl": lines(run / f"{name}.jsonl") for name in ("log", "validation")}
    latest = (run / "checkpoints/latest").readlink().name
    return {**found, **logs, "recipe.json": _read(run / "recipe.json"), "latest": latest}


def assert_same_bits(run, whole):
    """Names the files that differ, or are not in both."""
    ours, theirs = bits(run), bits(whole)
    names = ours.keys() | theirs.keys()
    apart = [name for name in sorted(names) if ours.get(name) != theirs.get(name)]
    assert not apart, apart


def torchrun(*arguments, **options):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment["PYTHONFAULTHANDLER"] = "1"  # a crash says where
    return subprocess.Popen(
        [*command, *map(str, arguments)],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


def kill_all(process):
    """Kill torchrun and the processes that it has started: it cannot when it is killed itself."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()  # first: it would end otherwise when they do
    for child in children:
        os.kill(int(child), signal.SIGKILL)


# `calotype`, whose training goes no further than so many images: there it waits to be killed.
HELD = """
import signal, sys
from calotype.cli import run
from calotype.training import trainer
step, most = trainer.train_step, int(sys.argv[1])
def held(state, batch):
    while state.images_seen >= most:
        signal.pause()
    return step(state, batch)
trainer.train_step = held
sys.exit(run(sys.argv[2:]))
"""


@dataclass(frozen=True)
class TwoProcesses:
    """`torchrun -m calotype train` of a recipe's file."""

    recipe: Path
    data: Path
    parallel: str = "data"

    def _start(self, program, out, *more):
        settings = ("--parallel", self.parallel, "--dtype", "float32", "--threads", "1", "--quiet")
        return torchrun(
            *program, "train", self.recipe, "--data", self.data, "--out", out, *settings, *more
        )

    def train(self, out, *more):
        process = self._start(("-m", "calotype"), out, *more)
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors

    def train_and_kill(self, out, *, images, checkpoint):
        """SIGKILL for both as soon as the log has so many images, behind a checkpoint."""
        script = out.with_name("held.py")
        script.write_text(HELD)
        process = self._start((script, images), out)
        log, latest = out / "log.jsonl", out / "checkpoints/latest"
        try:
            while process.poll() is None and not (
                log.exists() and f'"images": {images},' in log.read_text() and latest.exists()
            ):
                time.sleep(0.05)
        finally:
            if process.poll() is None:
                kill_all(process)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL, errors
        assert lines(log)[-1]["images"] == images > checkpoint
        assert latest.readlink().name == str(checkpoint)
