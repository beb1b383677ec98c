"""A training step of an ADM network beside guided diffusion's formulation; see README.md.

    python benchmarks/adm_training.py [--recipe glide-emoji-64] [--dtype TYPE] [--other-dtype TYPE]

Both train the same network with the same loss on the same made-up images and token ids, in turns,
in one process. Ours is the trainer's own step (`calotype.training.step`), with clipping, averages
and what it logs; the other is guided diffusion's network as `guided_diffusion.py` has it, PyTorch's
AdamW and an average a weight at a time.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import kernels
import torch
from guided_diffusion import GuidedDiffusionUNet
from torch.profiler import ProfilerActivity, profile

from calotype.cascade.stage import Stage
from calotype.conditioning import TokenIds
from calotype.config.adm import AdmConfig, TokensText
from calotype.config.diffusion import DiffusionTraining
from calotype.data.batch import Batch
from calotype.networks import AdmUNet
from calotype.runtime import DTYPES
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.training.recipes import load_recipe
from calotype.training.state import TrainState
from calotype.training.step import train_step

AIM = 1.3
BATCHES = 4


@dataclass
class Compared:
    """Seconds of each turn, ours and theirs; FLOPs of a step of each."""

    own: list[float]
    other: list[float]
    flops: tuple[int, int]

    @property
    def ratios(self) -> list[float]:
        """How many of our steps fit into one of theirs."""
        return [b / a for a, b in zip(self.own, self.other, strict=True)]


def examples(config: DiffusionTraining) -> tuple[list[Batch], dict[Any, TokenIds]]:
    """Random images, and captions of which a third to all tokens are used."""
    generator = torch.Generator().manual_seed(0)
    side, rows, text = config.resolution, config.batch_size, _text(config)
    made, ids = [], {}
    for number in range(BATCHES):
        x = torch.rand(rows, 3, side, side, generator=generator) * 2 - 1
        captions = tuple(f"{number} {row}" for row in range(rows))
        if text is not None:
            shape = (rows, text.context)
            tokens = torch.randint(0, text.vocabulary, shape, generator=generator)
            length = torch.randint(text.context // 3, text.context, (rows, 1), generator=generator)
            ids[captions] = TokenIds(tokens, torch.arange(text.context)[None] < length)
        x = x.contiguous(memory_format=torch.channels_last)  # as batches are made
        made.append(Batch(x, None, captions, captions, 0))
    return made, ids


def _text(config: DiffusionTraining) -> TokensText | None:
    network = config.stage.network
    assert isinstance(network, AdmConfig)
    return cast("TokensText | None", network.text)


def task(config: DiffusionTraining, stage: Stage, ids: dict[Any, TokenIds]) -> DiffusionTask:
    """What a step asks for its loss."""
    return DiffusionTask(config, stage, (lambda it: ids[tuple(it)]) if ids else None)


def own_step(config: DiffusionTraining, stage: Stage) -> Callable[[], float]:
    """The trainer's step."""
    batches, ids = examples(config)
    endless = itertools.cycle(batches)
    state = TrainState(task(config, stage, ids))
    return lambda: train_step(state, next(endless)).loss


def other_step(
    config: DiffusionTraining, like: Stage, *, dtype: torch.dtype
) -> Callable[[], float]:
    """The same loss on guided diffusion's network; weights begin as those of `like`."""
    stage = Stage(config.stage).train()
    network = GuidedDiffusionUNet(config.stage.network)  # type: ignore[arg-type]
    network.load(cast(AdmUNet, like.network))
    stage.network = network
    stage.compute_dtype = dtype
    batches, ids = examples(config)
    endless = enumerate(itertools.cycle(batches))
    given = task(config, stage, ids)
    rate = config.optimizer.learning_rate
    optimizer = torch.optim.AdamW(stage.parameters(), rate, weight_decay=0.01)
    averages = [copy.deepcopy(p.detach()) for p in stage.parameters()]

    def step() -> float:
        position, batch = next(endless)
        inputs = given.inputs(batch, given.random_numbers(batch, position * batch.images))
        optimizer.zero_grad()
        loss = given.losses(inputs).mean()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for average, weight in zip(averages, stage.parameters(), strict=True):
                average.mul_(0.9999).add_(weight, alpha=1 - 0.9999)
        return float(loss.detach())

    return step


def both_steps(
    config: DiffusionTraining, dtypes: tuple[torch.dtype, torch.dtype]
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Our step and theirs, from the same weights; number types in the same order."""
    stage = new_stage(config, device="cpu", dtype=dtypes[0])
    other = other_step(config, stage, dtype=dtypes[1])  # before ours moves the weights
    return own_step(config, stage), other


def compare(
    config: DiffusionTraining, dtypes: tuple[torch.dtype, torch.dtype], *, rounds: int
) -> Compared:
    """Steps in turns, in seconds of the processor; the first of each is not counted."""
    steps = both_steps(config, dtypes)
    flops = []
    for step in steps:
        step()
        with kernels.recorded() as recording:
            step()
        flops.append(recording.flops)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for step, taken in zip(steps, seconds, strict=True):
            began = time.process_time()
            step()
            taken.append(time.process_time() - began)
    return Compared(seconds[0], seconds[1], (flops[0], flops[1]))


def operations(step: Callable[[], float], steps: int = 3) -> list[str]:
    """The longest operations of a step, by their own time."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(steps):
            step()
    events = sorted(profiler.key_averages(), key=lambda e: e.self_cpu_time_total, reverse=True)
    total = sum(event.self_cpu_time_total for event in events)
    return [
        f"{event.key:60} {event.count / steps:6.0f} {event.self_cpu_time_total / steps / 1e3:8.1f}"
        f" ms {event.self_cpu_time_total / total:6.1%}"
        for event in events[:24]
    ]


def report(what: str, config: DiffusionTraining, found: Compared) -> list[str]:
    """What is printed."""
    own, other = found.flops
    rows, ratio = config.batch_size, statistics.median(found.ratios)
    return [
        f"{what}: batch {rows}, {own / rows / 1e9:.2f} GFLOP an image, the other one "
        f"{other / own:.3f} of it",
        f"ours {rows / statistics.median(found.own):.2f} images/s, guided diffusion's formulation "
        f"{rows / statistics.median(found.other):.2f}",
        f"ratio {ratio:.3f} ({min(found.ratios):.2f} to {max(found.ratios):.2f} over "
        f"{len(found.ratios)} rounds); aim {AIM}: {'reached' if ratio >= AIM else 'not reached'}",
    ]


def main(words: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(words)
    torch.set_num_threads(options.threads)
    config = load_recipe(options.recipe).cascade[0]
    if options.batch is not None:
        config = replace(config, batch_size=options.batch)
    dtypes = (DTYPES[options.dtype], DTYPES[options.other_dtype])
    if options.profile:
        for step in both_steps(config, dtypes):
            print(*operations(step), "", sep="\n", flush=True)
    found = compare(config, dtypes, rounds=options.rounds)
    what = f"{options.recipe}, ours in {options.dtype}, the other in {options.other_dtype}"
    print(*report(what, config, found), sep="\n", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="glide-emoji-64", help="of a base of kind adm_unet")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, help="images of a step; the recipe's if not given")
    types = ("float32", "bfloat16")
    parser.add_argument("--dtype", choices=types, default="float32", help="of our step")
    parser.add_argument("--other-dtype", choices=types, default="float32", help="of theirs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="where the time of each goes")
    return parser


if __name__ == "__main__":
    main()
