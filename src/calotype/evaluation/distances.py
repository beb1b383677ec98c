"""What the features of one extractor say of samples, alone and beside real images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from calotype.evaluation.features.extractor import Classifier
from calotype.evaluation.metrics.copies import nearest_others, nearest_training
from calotype.evaluation.metrics.diversity import vendi_score, within_prompt_distance
from calotype.evaluation.metrics.frechet import Gaussian, fid, fid_infinity
from calotype.evaluation.metrics.inception_score import inception_score
from calotype.evaluation.metrics.intervals import Estimate, clustered_fraction
from calotype.evaluation.metrics.kernels import cmmd, kid
from calotype.evaluation.metrics.manifold import ReferenceBalls, manifold
from calotype.evaluation.metrics.rows import Features
from calotype.evaluation.results import Number, number_of
from calotype.evaluation.rows import Found, Rows
from calotype.evaluation.samples import Manifest
from calotype.evaluation.suites.coco import SIDE as COCO_SIDE
from calotype.evaluation.suites.coco import is_coco_30k

_FEWEST_FOR_LINE = 100
_SPLITS = 10
NEAREST = "nearest training image"
"""Begins the name of a column of scores: the row of an image, which is no score to be compared."""
COPY_QUANTILE = 0.01
"""A sample counts as a copy if it is nearer, by ratio, than this fraction of training images are
to each other."""


@dataclass(frozen=True)
class RealFeatures:
    """Features of real images, (M, D), and what many sets are compared with."""

    features: Features
    gaussian: Gaussian
    balls: ReferenceBalls


def distance_numbers(
    sampled: Features, real: RealFeatures, rows: Rows, facts: dict[str, Any], *, name: str = "FID"
) -> Iterator[Number]:
    """FID, FID∞, KID, precision, recall, density and coverage.

    Args:
        sampled: features, (N, D).
        real: of the reference.
        rows: of the samples.
        facts: what every number says of itself: extractor and side.
        name: of FID; see `fid_name`.
    """
    yield _spread(name, sampled, rows, lambda x, b: fid(real.gaussian, x, blocks=b), facts)
    if len(sampled) >= _FEWEST_FOR_LINE:
        line = fid_infinity(real.gaussian, sampled)
        note = f"a line through FID at N = {line.counts[0]} to {line.counts[-1]}"
        estimate = Estimate(line.value, len(sampled), note=note)
        yield number_of(estimate, "FID∞", higher_is_better=False, **facts)
    yield _spread("KID", sampled, rows, lambda x, b: kid(real.features, x, blocks=b), facts)
    found = manifold(real.balls, sampled, blocks=rows.blocks)
    for name in ("precision", "recall", "density", "coverage"):
        yield number_of(getattr(found, name), name, higher_is_better=True, **facts)


def fid_name(manifest: Manifest, extractor: str, side: int, *, real: int) -> str:
    """Say "FID-30K" where it is the papers': the reference network, its resize, and COCO-30K.

    Args:
        manifest: of the samples.
        extractor: name of it.
        side: pixels that images were brought to.
        real: images of the reference, which have to be all that the suite's file names.
    """
    suite = manifest.suite
    is_whole = manifest.each == 1 and manifest.count == suite.prompts
    of_coco = is_whole and is_coco_30k(suite.choices, suite.prompts, real=real)
    return "FID-30K" if of_coco and (extractor, side) == ("inception", COCO_SIDE) else "FID"


def cmmd_number(sampled: Features, real: Features, rows: Rows, facts: dict[str, Any]) -> Number:
    """CMMD of CLIP embeddings."""
    return _spread("CMMD", sampled, rows, lambda x, b: cmmd(real, x, blocks=b), facts)


def _spread(
    metric: str,
    sampled: Features,
    rows: Rows,
    statistic: Callable[[Features, Tensor], Estimate],
    facts: dict[str, Any],
) -> Number:
    """A distance of all samples, and of each of the prompts' images alone."""
    # In one block: without an interval of their own, which would take twenty times as long.
    parts = ((part, torch.zeros(len(part), dtype=torch.long)) for part in rows.by_index(sampled))
    seeds = tuple(statistic(part, block).value for part, block in parts)
    found = number_of(statistic(sampled, rows.blocks), metric, higher_is_better=False, **facts)
    return replace(found, seeds=seeds)


def score_number(sampled: Features, extractor: Classifier, facts: dict[str, Any]) -> Number:
    """The Inception Score of features, (N, D) with N at least 2, by an extractor's classes."""
    splits = max(1, min(_SPLITS, len(sampled) // 2))
    score = inception_score(sampled, splits=splits, classify=extractor.logits)
    note = f"deviation over {score.splits} splits {score.deviation:.3g}"
    estimate = Estimate(score.value, score.count, note=note)
    return number_of(estimate, "IS", higher_is_better=True, **facts)


def diversity_numbers(sampled: Features, rows: Rows, facts: dict[str, Any]) -> Iterator[Number]:
    """How different samples are, of one prompt and all together."""
    if len(set(rows.prompts)) < len(rows):
        estimate = within_prompt_distance(sampled, rows.prompts)
        yield number_of(estimate, "within-prompt distance", higher_is_better=True, **facts)
    vendi = Estimate(vendi_score(sampled), len(sampled))
    yield number_of(vendi, "Vendi score", higher_is_better=True, **facts)


def add_copies(
    found: Found, sampled: Features, training: Features, rows: Rows, facts: dict[str, Any]
) -> None:
    """Each sample's nearest training image, and the fraction of samples that are as near as copies.

    Args:
        found: what is added to.
        sampled: features, (N, D).
        training: features, (M, D).
        rows: of the samples.
        facts: as above.
    """
    nearest = nearest_training(training, sampled)
    found.add_scores(f"{NEAREST} {facts['features']}", nearest.index)
    found.add_scores(f"distance to it {facts['features']}", nearest.distance)
    usual = nearest_others(training).ratio
    limit = float(torch.quantile(usual[usual > 0], COPY_QUANTILE)) if bool((usual > 0).any()) else 0
    estimate = clustered_fraction(nearest.ratio < limit, rows.prompts)
    note = (
        f"nearest over 50 nearest below {limit:.3f}, as of {COPY_QUANTILE:.0%} of training images "
        "among themselves"
    )
    number = number_of(replace(estimate, note=note), "copies", higher_is_better=False, **facts)
    found.numbers.append(number)
