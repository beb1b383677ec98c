"""Training, beside imagen-pytorch and diffusers: images a second and memory.

    python benchmarks/training.py [--peers-python PYTHON] [--small] [--json]
    python benchmarks/training.py --profile

The first form trains the same kind of U-Net with three trainers: the same levels, channels,
residual blocks, attention, resolution, batch, number type and loss (`training_peers.py` says what
each is), each in a process of its own, with the packages it was made for. They take turns, a few
steps each, round after round, and those that are not at work wait for their standard input. The
ratio of two trainers is taken round by round. FLOPs of a step, forward and backward, are counted
by torch. A first table gives the peers as their users have them, a second one with channels_last
and scaled-dot-product attention. This library is the same in both.

The peers may live in other environments: `--peers-python` names their interpreters; a peer that no
interpreter has is left out. imagen-pytorch needs `pip install --no-deps imagen-pytorch` and `torch
einops beartype ema-pytorch pydantic accelerate pytorch-warmup fsspec tqdm`; the rest of what it
asks for is not needed to train on tensors.

All levels have as many channels because imagen-pytorch's U-Net uses a level's own width on the way
up only, and the width of the level before on the way down: with one width, all three agree.

The second form says where a step of this trainer goes, and what was tried to make it shorter; see
`training_profile.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from training_peers import MODULES, Task

FOLDER = Path(__file__).parent
OWN = "calotype"
AIM = 1.5
CLOSE = 0.1
FULL = Task(
    channels=(128, 128, 128, 128),
    attention=(False, False, True, True),
    blocks=2,
    resolution=64,
    batch=8,
    head_dim=64,
    tokens=32,
    text_dim=512,
    dtype="float32",
    threads=2,
)
SMALL = Task(
    channels=(32, 32),
    attention=(False, True),
    blocks=1,
    resolution=8,
    batch=2,
    head_dim=16,
    tokens=8,
    text_dim=32,
    dtype="float32",
    threads=1,
)


class Worker:
    """A trainer in a process of its own; see `training_peers.py` for what it answers."""

    def __init__(self, name: str, command: list[str], threads: int) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")
        settings = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **settings},
        )
        self.about: dict[str, Any] = {}

    def wait_until_ready(self) -> None:
        """Read what the worker says of itself."""
        self.about = self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the missing answer says more
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read().strip()[-3000:]
            raise SystemExit(f"training: the worker of {self.name} ended early:\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the worker; it ends with its input."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()


@dataclass
class Measured:
    """What one trainer did.

    Args:
        name: of the trainer.
        about: what its worker said of itself.
        rates: images a second, one number a round.
        flops: of one image, forward and backward.
        peak_bytes: the most memory its process held.
        last_loss: of the last timed step.
    """

    name: str
    about: dict[str, Any]
    rates: list[float] = field(default_factory=list)
    flops: float = 0.0
    peak_bytes: int = 0
    last_loss: float = 0.0

    @property
    def rate(self) -> float:
        """Median images a second."""
        return statistics.median(self.rates)


def compare(
    commands: dict[str, list[str]], task: Task, *, rounds: int, steps: int
) -> list[Measured]:
    """Let trainers take turns; one record each, this library's first."""
    with ExitStack() as stack:
        workers = []
        for name, command in commands.items():
            workers.append(Worker(name, command, task.threads))
            stack.callback(workers[-1].close)
        found = []
        for worker in workers:
            worker.wait_until_ready()
            found.append(Measured(worker.name, worker.about))
        for worker in workers:
            worker.ask("run 2")  # kernels are chosen, moments and averages made
        for _ in range(rounds):
            for worker, measured in zip(workers, found, strict=True):
                answer = worker.ask(f"run {steps}")
                measured.rates.append(task.batch * steps / answer["seconds"])
                measured.last_loss = answer["losses"][-1]
        for worker, measured in zip(workers, found, strict=True):
            measured.peak_bytes = worker.ask("memory")["peak_bytes"]
            measured.flops = worker.ask("count")["flops"] / task.batch
    return found


def commands_of(task: Task, pythons: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """How each trainer is started, and a line for each that cannot be."""
    commands = {OWN: [sys.executable, str(FOLDER / "training_own.py"), task.to_json()]}
    left_out = []
    for name, module in MODULES.items():
        python = next((python for python in pythons if _has(python, module)), None)
        if python is None:
            left_out.append(
                f"{name}: left out, {module} is in none of the interpreters given; "
                "--peers-python PYTHON"
            )
        else:
            commands[name] = [python, str(FOLDER / "training_peers.py"), name, task.to_json()]
    return commands, left_out


def _has(python: str, module: str) -> bool:
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    try:
        return subprocess.run([python, "-c", code], check=False).returncode == 0
    except OSError as error:
        raise SystemExit(f"training: got --peers-python {python}: {error}") from error


def table(found: Sequence[Measured], task: Task) -> str:
    """One row a trainer, Markdown."""
    rows = [
        "| trainer | torch | weights | GFLOP/image | to calotype | images/s (range) "
        "| GFLOP/s | peak memory (before the first step) | last loss |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for m in found:
        rows.append(
            f"| {m.name} {m.about['version']} | {m.about['torch']} "
            f"| {m.about['parameters'] / 1e6:.2f} M | {m.flops / 1e9:.2f} "
            f"| {m.flops / found[0].flops:.2f} "
            f"| {m.rate:.3f} ({min(m.rates):.3f}–{max(m.rates):.3f}) "
            f"| {m.rate * m.flops / 1e9:.0f} | {m.peak_bytes / 1e6:.0f} MB "
            f"({m.about['peak_bytes'] / 1e6:.0f}) | {m.last_loss:.3f} |"
        )
    return "\n".join(rows)


def verdict(found: Sequence[Measured]) -> list[str]:
    """Ratios of this library to each peer, and whether the aim is reached."""
    own, peers = found[0], found[1:]
    lines = []
    for peer in peers:
        ratios = [a / b for a, b in zip(own.rates, peer.rates, strict=True)]
        flops = peer.flops / own.flops
        near = "within 10 %" if abs(flops - 1) <= CLOSE else "NOT within 10 %"
        lines.append(
            f"- ratio to {peer.name}: {statistics.median(ratios):.2f} times the images/s "
            f"({min(ratios):.2f}–{max(ratios):.2f} over {len(ratios)} rounds), "
            f"{own.peak_bytes / peer.peak_bytes:.2f} times the memory; "
            f"its FLOPs are {flops:.2f} of calotype's, {near}"
        )
        lines += [f"- {peer.name}: {note}" for note in peer.about["notes"]]
    if peers:
        faster = max(peers, key=lambda peer: peer.rate)
        ratio = statistics.median(a / b for a, b in zip(own.rates, faster.rates, strict=True))
        reached = ratio >= AIM and own.peak_bytes <= faster.peak_bytes
        lines.append(
            f"- aim: {AIM} times the faster one ({faster.name}) with no more memory: "
            f"{'reached' if reached else 'not reached'}"
        )
    return lines


def report(found: Sequence[Measured], task: Task) -> str:
    title = (
        "## Peers with channels_last and scaled-dot-product attention"
        if task.fast
        else "## Peers as their users have them"
    )
    return "\n".join([title, "", table(found, task), "", *verdict(found), ""])


def describe(task: Task, *, rounds: int, steps: int) -> str:
    attending = [task.resolution >> i for i, attends in enumerate(task.attention) if attends]
    return (
        f"U-Net at {task.resolution} px, channels {list(task.channels)}, {task.blocks} blocks a "
        f"level, self- and text attention at {attending} px, heads of {task.head_dim}, "
        f"{task.tokens} tokens of {task.text_dim}; batch {task.batch}, {task.dtype}, "
        f"{task.threads} threads (OMP_WAIT_POLICY=PASSIVE). {rounds} rounds of {steps} steps in "
        "turn after 2 untimed ones; medians, lowest and highest. diffusers attends by "
        "scaled-dot-product attention in both tables: it is its default. Peak memory is the most "
        "its process held, its packages included.\n"
    )


def main() -> None:
    options = _parser().parse_args()
    if options.profile:
        from training_profile import measure

        print(measure(options))
        return
    task = _task(options)
    rounds, steps = options.rounds, options.steps
    pythons = [*options.peers_python, sys.executable]
    found: dict[str, Any] = {"task": json.loads(task.to_json()), "tables": []}
    if not options.json:
        print(describe(task, rounds=rounds, steps=steps), flush=True)
    for fast in (False, True):
        given = replace(task, fast=fast)
        commands, left_out = commands_of(given, pythons)
        measured = compare(commands, given, rounds=rounds, steps=steps)
        rows = [vars(m) for m in measured]
        found["tables"].append({"fast": fast, "trainers": rows, "left_out": left_out})
        if not options.json:
            print(report(measured, given), *left_out, "", sep="\n", flush=True)
    if options.json:
        print(json.dumps(found, indent=1))


def _task(options: argparse.Namespace) -> Task:
    task = SMALL if options.small else FULL
    given = {name: getattr(options, name) for name in ("batch", "dtype", "threads")}
    return replace(task, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--peers-python",
        action="append",
        default=[],
        metavar="PYTHON",
        help="interpreter of an environment with a peer; may be given twice",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="a trainer's steps in its turn")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--profile", action="store_true", help="where a step goes; what was tried")
    parser.add_argument("--recipe", default=None, help="of the profile; default: emoji-64")
    parser.add_argument("--data", type=Path, help="images of the profile; default: made up")
    return parser


if __name__ == "__main__":
    main()
