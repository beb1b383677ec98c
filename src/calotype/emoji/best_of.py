"""How much oftener is the best of several candidates found than one?

    python -m calotype.emoji.best_of --data EMOJI [--of 8] [--sampling variety=1] [--clip FOLDER]
        [--judge RUN]

Held-out prompts are sampled at the base: candidates with seeds of their own, of which the CLIP
keeps one, and the first candidate beside it. Both are looked up among what the style has: in
pixels among its real images (`evaluation.retrieval`), and, with `--judge`, among its captions by
another CLIP, trained on its own (R-precision, Park et al. 2021, arXiv:2105.13868): the one that
chose would only agree with itself.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

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
    """Fractions found of the first candidates, and of the best of several, over the same prompts.

    `low` and `high` end the 95 % interval of the difference, by resampling prompts (BCa bootstrap);
    the judge is "pixels", or the name of a CLIP.
    """

    judge: str
    split: str
    prompts: int
    one: float
    best: float
    difference: float
    low: float
    high: float


Judge = Callable[[Tensor, ImageRow], bool]


def pixel_judge(gallery: Gallery) -> Judge:
    """Whether an image, (3, H, W), is near the real one of its concept; knows nothing of a CLIP."""
    return lambda image, row: look_up(image, gallery.pool(row), row) < NEAREST


def caption_judge(gallery: Gallery, clip: ClipModel) -> Judge:
    """Whether a CLIP finds an image's own caption among those of its style."""

    @cache
    def embedded(numbers: tuple[int, ...]) -> Tensor:
        return clip.embed_texts([gallery.rows[number].caption for number in numbers])

    def found(image: Tensor, row: ImageRow) -> bool:
        numbers = tuple(gallery.numbers(row))
        own = torch.tensor([gallery.rows[number].concept == row.concept for number in numbers])
        scores = embedded(numbers) @ clip.embed_images(image[None])[0]
        return int((scores[~own] > scores[own].max()).sum()) < NEAREST

    return found


def compare(
    cascade: Cascade,
    rows: Sequence[ImageRow],
    clip: ClipModel,
    judges: Sequence[Judge],
    *,
    count: int,
    sampling: SamplingConfig,
) -> Iterator[list[tuple[bool, bool]]]:
    """Whether each judge finds the first candidate, and the best of `count`; for each row."""
    base = cascade.stages[0].config.resolution
    for number, row in enumerate(rows):
        seeds = range(number * count, (number + 1) * count)
        captions = [row.caption] * count
        made = cascade.sample(captions, seeds=seeds, stop_at=base, sampling={base: sampling})
        images = made.images[0]
        first, best = images[0], images[clip.scores(images, captions).argmax()]
        yield [(found(first, row), found(best, row)) for found in judges]


def summary(judge: str, split: str, found: Sequence[tuple[bool, bool]]) -> Compared:
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
    return Compared(judge, split, len(found), *(round(float(value), 4) for value in values))


def measure(options: argparse.Namespace) -> None:
    """Sample, rank, look up and print a line for each judge and split."""
    cascade, _ = load_cascade(options)
    base = cascade.stages[0].config
    sampling = override(base.sampling, options.sampling.split(","))
    gallery = read_gallery(options.data, base.resolution)
    judges = {"pixels": pixel_judge(gallery)}
    judges |= {name: caption_judge(gallery, load_clip(name)) for name in options.judge}
    found = dict[str, list[list[tuple[bool, bool]]]]()
    for split in SPLITS:
        rows = gallery.sample(split, options.prompts)
        found[split] = list(
            compare(
                cascade, rows, load_clip(options.clip), list(judges.values()),
                count=options.of, sampling=sampling,
            )
        )  # fmt: skip
    found["both"] = [each for split in SPLITS for each in found[split]]
    for number, judge in enumerate(judges):
        for split, every in found.items():
            print(json.dumps(asdict(summary(judge, split, [each[number] for each in every]))))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calotype.emoji.best_of")
    parser.add_argument("--data", type=Path, required=True, help="the emoji set's folder")
    parser.add_argument("--model", default="default", help="a cascade")
    parser.add_argument("--clip", help="a CLIP; the embedded one if not given")
    parser.add_argument("--judge", action="append", default=[], help="a CLIP that did not choose")
    parser.add_argument("--of", type=int, default=8, help="candidates of a prompt")
    parser.add_argument(
        "--sampling", default="variety=1", help="of the base, e.g. steps=8,variety=1"
    )
    parser.add_argument("--prompts", type=int, default=10_000, help="of each split, at most")
    add_machine_options(parser)
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
