"""How much oftener is the best of several candidates found than one?

    python -m calotype.emoji.best_of --data EMOJI [--of 8] [--sampling variety=1] [--clip FOLDER]

Held-out prompts are sampled at the base: candidates with seeds of their own, of which the CLIP
keeps one, and the first candidate beside it. Both are looked up among real images, in pixels
(`evaluation.retrieval`), which knows nothing of the CLIP.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from calotype.cascade import Cascade
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import override
from calotype.emoji.gallery import Gallery, read_gallery
from calotype.emoji.prompts import ImageRow
from calotype.emoji.suite import look_up
from calotype.evaluation.command import add_machine_options, load_cascade, run_command
from calotype.evaluation.retrieval import NEAREST
from calotype.vision.clip import ClipModel, load_clip

SPLITS = ("unseen_pair", "unseen_concept")
RESAMPLES = 9999


@dataclass(frozen=True)
class Compared:
    """One candidate and the best of several, over the same prompts.

    Args:
        split: of the prompts.
        prompts: how many.
        one: fraction found, of the first candidates.
        best: fraction found, of the best.
        difference: of both.
        low: end of its 95 % interval, by resampling prompts (BCa bootstrap).
        high: the other end.
    """

    split: str
    prompts: int
    one: float
    best: float
    difference: float
    low: float
    high: float


def compare(
    cascade: Cascade,
    gallery: Gallery,
    rows: Sequence[ImageRow],
    clip: ClipModel,
    *,
    count: int,
    sampling: SamplingConfig,
) -> list[tuple[bool, bool]]:
    """Whether the first candidate, and the best of `count`, was found, of each row."""
    base = cascade.stages[0].config.resolution
    found = []
    for number, row in enumerate(rows):
        seeds = range(number * count, (number + 1) * count)
        captions = [row.caption] * count
        images = cascade.sample(captions, seeds=seeds, stop_at=base, sampling={base: sampling})
        best = int(clip.scores(images.images[0], captions).argmax())
        pool = gallery.pool(row)
        first, chosen = (look_up(images.images[0][n], pool, row) < NEAREST for n in (0, best))
        found.append((first, chosen))
    return found


def summary(split: str, found: Sequence[tuple[bool, bool]]) -> Compared:
    """Fractions, and the paired interval of their difference."""
    from scipy.stats import bootstrap

    one, best = np.array(found, dtype=float).T
    difference = best - one
    low = high = float(difference.mean())
    if difference.std() > 0:
        interval = bootstrap(
            (difference,), np.mean, n_resamples=RESAMPLES, rng=np.random.default_rng(0)
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    values = (one.mean(), best.mean(), difference.mean(), low, high)
    return Compared(split, len(found), *(round(float(value), 4) for value in values))


def measure(options: argparse.Namespace) -> None:
    """Sample, rank, look up and print a line a split."""
    cascade, _ = load_cascade(options)
    clip = load_clip(options.clip)
    base = cascade.stages[0].config
    sampling = override(base.sampling, options.sampling.split(","))
    gallery = read_gallery(options.data, base.resolution)
    every = list[tuple[bool, bool]]()
    for split in SPLITS:
        rows = gallery.sample(split, options.prompts)
        found = compare(cascade, gallery, rows, clip, count=options.of, sampling=sampling)
        every += found
        print(json.dumps(asdict(summary(split, found))), flush=True)
    print(json.dumps(asdict(summary("both", every))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calotype.emoji.best_of")
    parser.add_argument("--data", type=Path, required=True, help="the emoji set's folder")
    parser.add_argument("--model", default="default", help="a cascade")
    parser.add_argument("--clip", help="a CLIP; the embedded one if not given")
    parser.add_argument("--of", type=int, default=8, help="candidates of a prompt")
    parser.add_argument(
        "--sampling", default="variety=1", help="of the base, e.g. steps=8,variety=1"
    )
    parser.add_argument("--prompts", type=int, default=10_000, help="of each split, at most")
    add_machine_options(parser)
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
