"""The most memory that an evaluation holds; `python benchmarks/evaluation_memory.py COUNT`.

A stub samples, so that nothing else is measured. `evaluation.py` runs this for several counts, each
in a process of its own: what was once held is not given back to the system.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from calotype.cascade.results import Preview
from calotype.evaluation.evaluate import Sampler, evaluate
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.measure import MeasureOptions
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.generation.generator import Made

SIDE = 64
RECIPE: dict[str, Any] = {
    "model": {"name": "stub", "weights": ""},
    "stages": [{"resolution": SIDE, "height": SIDE, "width": SIDE, "sampling": {}}],
}
STATUS = Path("/proc/self/status")


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measured(Path(folder), options.count, options.reference)))


def measured(folder: Path, count: int, reference: int) -> dict[str, float]:
    """Seconds, and the most bytes of the process: all that is resident, and what it owns of it.

    What is read from mapped files is resident as long as nobody else needs the memory, and not its
    own.
    """
    real = folder / "real"
    began = time.perf_counter()
    with own_bytes() as peak:
        _evaluate(_suite("real", reference), real, MeasureOptions(side=SIDE, extractors=()))
        options = MeasureOptions(
            side=SIDE,
            extractors=(ExtractorSpec("lite0"),),
            reference=real / "samples",
            root=folder / "features",
        )
        _evaluate(_suite("stub", count), folder / "out", options)
    return {
        "seconds": time.perf_counter() - began,
        "resident": _resident_bytes(),
        "own": max(peak),
    }


@dataclass(frozen=True)
class StubPlan:
    """Seeds of images."""

    seeds: tuple[int, ...]
    size = (SIDE, SIDE)

    def rows(self, rows: slice) -> Self:
        """Some of them."""
        return type(self)(self.seeds[rows])


class StubGenerator:
    """An `ImageGenerator` of coloured squares, chosen by the seed."""

    group = 64

    def plan(self, captions: Sequence[str], seeds: Sequence[int]) -> StubPlan:
        """As of every generator."""
        return StubPlan(tuple(seeds))

    def generate(self, plan: StubPlan) -> Generator[Preview, None, list[Made]]:
        """The images, without a preview."""
        yield from ()
        return [Made(_squares(seed), self.recipe(plan, n)) for n, seed in enumerate(plan.seeds)]

    def recipe(self, plan: StubPlan, row: int) -> dict[str, Any]:
        """All that `evaluate` asks of one."""
        return {**RECIPE, "caption": "", "seed": plan.seeds[row]}


def open_stub(settings: None) -> StubGenerator:
    """What samples, in any process."""
    return StubGenerator()


def _squares(seed: int) -> np.ndarray:
    """Sixteen colours and some noise, which makes PNG as large as of a photograph."""
    numbers = np.random.default_rng(seed)
    colours = numbers.integers(16, 240, (4, 4, 3), dtype=np.uint8)
    noise = numbers.integers(0, 16, (SIDE, SIDE, 3), dtype=np.uint8)
    squares: np.ndarray = colours.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1) + noise
    return squares


def _suite(name: str, count: int) -> Suite:
    prompts = tuple(Prompt(f"{name}-{n:05d}", f"{name}, number {n} of many") for n in range(count))
    return Suite(name, prompts, "0" * 64, {})


def _evaluate(suite: Suite, out: Path, options: MeasureOptions) -> None:
    evaluate(Sampler(open_stub, None, RECIPE), suite, out, options)


@contextmanager
def own_bytes(every_seconds: float = 0.02) -> Iterator[list[int]]:
    """The most memory so far that no file stands behind, looked at again and again, in a list."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(every_seconds):
            peak[0] = max(peak[0], _status("RssAnon"))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def _resident_bytes() -> int:
    # Not ru_maxrss where it can be helped: Linux begins it with that of the parent.
    in_kilobytes = sys.platform != "darwin"
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1024 if in_kilobytes else 1)
    return _status("VmHWM") or most


def _status(name: str) -> int:
    """Bytes that Linux says of this process; 0 elsewhere."""
    if not STATUS.exists():
        return 0
    lines = STATUS.read_text().splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, help="samples")
    parser.add_argument("--reference", type=int, default=3000, help="real images")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
