"""What evaluating costs beside sampling; `python benchmarks/evaluation.py`, see README.md."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from features import convolutions

from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.metrics.manifold import manifold, reference_balls
from calotype.evaluation.reference import image_features, sampled_images
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.job import SampleJob, SetJob, sample_sets, seed_of
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.generation.cascade import CascadeGenerator, expected_recipe, open_generator, settle
from calotype.generation.executors import Executor
from calotype.generation.request import Request

BATCHES = (8, 16, 32, 64)
DIMENSION = 1280
MEMORY = Path(__file__).with_name("evaluation_memory.py")
Work = Callable[[], object]


def main() -> None:
    options = _parser().parse_args()
    clock = time.perf_counter if options.wall else time.process_time
    for size in options.sizes:
        with tempfile.TemporaryDirectory() as folder:
            _compare(Evaluation(Path(folder), size, options), options, clock)
    if options.rows:
        torch.set_num_threads(options.threads)
        neighbours(options.rows, clock)
    if options.counts:
        memory(options.counts, options.reference, options.threads)


class Evaluation:
    """A suite of as many prompts as images, sampled and measured in a folder, again and again.

    Args:
        folder: empty.
        size: of the images.
        options: of the command.
    """

    def __init__(self, folder: Path, size: int, options: argparse.Namespace) -> None:
        count = options.images
        request = Request(model=options.model, size=size, threads=options.threads)
        settings = settle(request)
        prompts = [Prompt(str(n), f"owl number {n}, noto style") for n in range(count)]
        self.suite = Suite("owls", tuple(prompts), "0" * 64, {})
        self.captions = [prompt.caption for prompt in prompts]
        self.seeds = [seed_of(prompt.id, 0, seed=0) for prompt in prompts]
        self.size, self.folder = size, folder
        generator = open_generator(settings)
        assert isinstance(generator, CascadeGenerator)
        self.cascade, self._options = generator.cascade, settings.options([""], [0])
        self.job = SampleJob(
            sets=(SetJob(folder / "set", settings, expected_recipe(settings, "", 0)),),
            open=lambda settings: generator,  # loaded once, and not timed
            prompts=write_prompts(folder / "set", self.suite),
            total=count,
            each=1,
            seed=0,
        )
        self.spec = ExtractorSpec("lite0")
        self.extractor = self.spec.load()

    def sample_set(self) -> None:
        """As `evaluate` samples, from prompts to shards on disk and their manifest."""
        for shard in self.job.sets[0].folder.glob("*.parquet"):
            shard.unlink()
        nothing = lambda seen: None  # noqa: E731
        sample_sets(self.job, self.suite, executor=Executor(), show=nothing, on_shard=nothing)

    def sample(self, batch: int, count: int | None = None) -> None:
        """The first `count` images, all if None, by `Cascade.sample` alone, so many at a time."""
        captions, seeds = self.captions[:count], self.seeds[:count]
        for start in range(0, len(captions), batch):
            part = slice(start, start + batch)
            self.cascade.sample(captions[part], seeds=seeds[part], **self._options)

    def features(self) -> None:
        """As `evaluate` computes features of the set: read, hashed, decoded, resized, kept."""
        with tempfile.TemporaryDirectory() as root:
            images = sampled_images(open_samples(self.job.sets[0].folder))
            image_features(
                images, [self.spec], side=self.size, root=Path(root), executor=Executor()
            )


def _compare(evaluation: Evaluation, options: argparse.Namespace, clock: Work) -> None:
    """Print ratios of one size."""
    size, count, singles = evaluation.size, options.images, max(1, options.images // 16)
    batches = [batch for batch in BATCHES if batch <= count] or [count]
    whole = evaluation.sample_set
    alone = convolutions(evaluation.extractor, count)
    whole(), evaluation.features()  # warms up
    trials = in_turns([partial(evaluation.sample, batch) for batch in batches], 2, clock)
    best = min(zip(trials, batches, strict=True), key=lambda trial: min(trial[0]))[1]
    print(f"best batch at {size}²: {best}, of {', '.join(map(str, batches))}", flush=True)
    works = [whole, partial(evaluation.sample, best), partial(evaluation.sample, 1, singles)]
    set_of, batch, single = in_turns(works, options.rounds, clock)
    print_ratios(f"images/s of `evaluate` at {size}² to the best batch", batch, set_of)
    one = [seconds * count / singles for seconds in single]
    print_ratios(f"images/s of the best batch at {size}² to single images", one, batch)
    features = in_turns([evaluation.features, alone], options.rounds, clock)
    print_ratios(f"features of {count} samples of {size}² to the convolutions alone", *features)


def in_turns(works: Sequence[Work], rounds: int, clock: Work) -> list[list[float]]:
    """Seconds of each, once a round."""
    seconds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for work, found in zip(works, seconds, strict=True):
            began = clock()
            work()
            found.append(clock() - began)
    return seconds


def neighbours(rows: int, clock: Work) -> None:
    """Print the time of precision, recall, density and coverage of made-up features."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(40, DIMENSION, generator=generator) / 6  # features lie near few dimensions

    def features() -> torch.Tensor:
        noise = torch.randn(rows, DIMENSION, generator=generator) * 0.3
        return (torch.randn(rows, 40, generator=generator) @ mix + noise).relu()

    real, sampled = features(), features()
    began = clock()
    balls = reference_balls(real)
    between = clock()
    found = manifold(balls, sampled)
    ended = clock()
    print(
        f"precision, recall, density and coverage of {rows} x {DIMENSION} beside as many: "
        f"{ended - between:.0f} s, and {between - began:.0f} s once for the reference "
        f"(precision {found.precision.value:.3f}, recall {found.recall.value:.3f})",
        flush=True,
    )


def memory(counts: Sequence[int], reference: int, threads: int) -> None:
    """Print the most memory of whole evaluations of so many samples, a process each."""
    first = None
    for count in counts:
        command = [sys.executable, str(MEMORY), str(count), "--reference", str(reference)]
        command += ["--threads", str(threads)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout)
        first = first or found
        print(
            f"most memory with {count} samples: {found['resident'] / 1e6:.0f} MB resident "
            f"({found['resident'] / first['resident'] - 1:+.1%}), of it "
            f"{found['own'] / 1e6:.0f} MB its own ({found['own'] / first['own'] - 1:+.1%}); "
            f"{found['seconds']:.0f} s",
            flush=True,
        )


def print_ratios(what: str, above: Sequence[float], below: Sequence[float]) -> None:
    """Print the ratio of each round."""
    ratios = [one / other for one, other in zip(above, below, strict=True)]
    print(
        f"{what}: {statistics.median(ratios):.3f} times ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--model", help="a cascade folder; the embedded cascade if not given")
    add("--sizes", type=int, nargs="*", default=[64, 256], help="of images; none = no timing")
    add("--images", type=int, default=64, help="of a round")
    add("--rounds", type=int, default=5)
    add("--rows", type=int, default=30_000, help="whose neighbours are sought; 0 = none")
    add("--counts", type=int, nargs="*", default=[3000, 30_000], help="of samples, for memory")
    add("--reference", type=int, default=3000, help="real images beside those")
    add("--threads", type=int, default=1)
    add("--wall", action="store_true", help="seconds that pass, not those of the processor")
    return parser


if __name__ == "__main__":
    main()
