"""Sample what judges a cascade: the fixed prompts at every stage, and random captions small."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.config.sampling import SamplingConfig
from calotype.data.resize import area_resize
from calotype.diffusion import upsample_lowres
from calotype.emoji.gallery import Gallery, Pool
from calotype.emoji.prompts import EvaluationPrompt, ImageRow
from calotype.evaluation.retrieval import NEAREST, THUMBNAIL_SIDE, concept_rank, thumbnails
from calotype.evaluation.sheet import at_most, most_detailed
from calotype.evaluation.superresolution import edge_contrast

PROMPT_SEED = 1
_CHUNK = 8
_CELL_SIDE = 256
Reals = Callable[[Sequence[EvaluationPrompt]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Finding:
    """One sample looked up: how many images of other concepts were nearer than its own."""

    prompt: str
    rank: int

    @property
    def found(self) -> bool:
        """Whether its own concept is among the nearest few."""
        return self.rank < NEAREST


@dataclass(frozen=True)
class GroupResult:
    """Samples of one group: the mean squared error to the real images, at the base's resolution.

    `chance` is how many an unrelated image from the pool would find, on average.
    """

    name: str
    findings: tuple[Finding, ...]
    error: float
    chance: float

    @property
    def found(self) -> int:
        """How many were found."""
        return sum(finding.found for finding in self.findings)


@dataclass(frozen=True)
class EdgeContrast:
    """Sharpness (see `edge_contrast`) of a stage's enlarged input, its sample, the real one."""

    bicubic: float
    sampled: float
    real: float


@dataclass(frozen=True)
class SampledPrompt:
    """The samples of one prompt.

    Args:
        prompt: what was asked for.
        real: the real image, (3, S, S), at most 256 wide.
        real_crop: its most detailed part, as fine as there is.
        images: by resolution, (3, s, s), at most 256 wide.
        crops: by resolution, the same part of the sample in all its pixels.
        ranks: by resolution; see `concept_rank`.
    """

    prompt: EvaluationPrompt
    real: Tensor
    real_crop: Tensor
    images: Mapping[int, Tensor]
    crops: Mapping[int, Tensor]
    ranks: Mapping[int, int]


@dataclass(frozen=True)
class SampledSuite:
    """All prompts sampled; sharpness by resolution."""

    prompts: tuple[SampledPrompt, ...]
    contrasts: Mapping[int, EdgeContrast]

    def found(self, group: str, resolution: int) -> int:
        """How many of a group were found, looking at the images of one stage."""
        return sum(p.ranks[resolution] < NEAREST for p in self.of(group))

    def of(self, group: str) -> list[SampledPrompt]:
        """The prompts of a group."""
        return [sample for sample in self.prompts if sample.prompt.group == group]


def sample_suite(
    cascade: Cascade,
    gallery: Gallery,
    prompts: Sequence[EvaluationPrompt],
    *,
    stop_at: int | None = None,
    reals: Reals | None = None,
) -> SampledSuite:
    """Sample prompts of the gallery's keys once, all with seed 1; nothing is sampled again.

    Stages sample to the resolution `stop_at`; `reals` gives finer real images, (3, S, S), by key.
    """
    sampled: list[SampledPrompt] = []
    contrasts: dict[int, list[EdgeContrast]] = {}
    for start in range(0, len(prompts), _CHUNK):
        chunk = prompts[start : start + _CHUNK]
        result = cascade.sample(
            [prompt.prompt for prompt in chunk], seeds=[PROMPT_SEED] * len(chunk), stop_at=stop_at
        )
        finer = {} if reals is None else reals(chunk)
        for number, prompt in enumerate(chunk):
            images = {int(x.shape[-1]): x[number] for x in result.images}
            real = finer.get(prompt.key)
            if real is None:
                real = gallery.real(prompt.key, prompt.background)
            sampled.append(_looked_up(images, prompt, gallery, real=real))
            _add_contrasts(contrasts, images, real)
    means = {resolution: _mean(values) for resolution, values in contrasts.items()}
    return SampledSuite(tuple(sampled), means)


def _looked_up(
    images: dict[int, Tensor], prompt: EvaluationPrompt, gallery: Gallery, *, real: Tensor
) -> SampledPrompt:
    row = gallery.rows[gallery.places[prompt.key]]
    pool = gallery.pool(row, prompt.background)
    detail = most_detailed(real)
    return SampledPrompt(
        prompt,
        at_most(real, _CELL_SIDE),
        detail.crop(real),
        {side: at_most(x, _CELL_SIDE) for side, x in images.items()},
        {side: detail.crop(x) for side, x in images.items()},
        {side: look_up(x, pool, row) for side, x in images.items()},
    )


def look_up(sample: Tensor, pool: Pool, row: ImageRow) -> int:
    """`concept_rank` of one sample, (3, H, W), of `row`."""
    side = min(THUMBNAIL_SIDE, int(pool.images.shape[-1]))
    small = thumbnails(sample[None], side)[0]
    return concept_rank(small, pool.images, pool.concepts, concept=row.concept)


def _add_contrasts(
    contrasts: dict[int, list[EdgeContrast]], images: dict[int, Tensor], real: Tensor
) -> None:
    for before, after in pairwise(sorted(images)):
        if real.shape[-1] < after:
            continue  # there is no real image as fine as this
        enlarged = upsample_lowres(images[before][None], after)
        contrasts.setdefault(after, []).append(
            EdgeContrast(
                edge_contrast(enlarged),
                edge_contrast(images[after][None]),
                edge_contrast(area_resize(real[None], after)),
            )
        )


def _mean(values: list[EdgeContrast]) -> EdgeContrast:
    count = len(values)
    bicubic, sampled, real = (sum(each) / count for each in zip(*map(astuple, values), strict=True))
    return EdgeContrast(bicubic, sampled, real)


def measure_group(
    cascade: Cascade,
    gallery: Gallery,
    rows: Sequence[ImageRow],
    *,
    name: str,
    sampling: SamplingConfig | None = None,
) -> GroupResult:
    """Sample the plain captions of `rows` with the base, seeds 0, 1, ..., and look them up.

    The gallery is of the base's resolution; `sampling` None is the base's own.
    """
    resolution = cascade.stages[0].config.resolution
    result = cascade.sample(
        [row.caption for row in rows],
        seeds=range(len(rows)),
        stop_at=resolution,
        sampling=None if sampling is None else {resolution: sampling},
    )
    findings, errors, chance = [], [], 0.0
    for row, image in zip(rows, result.images[0], strict=True):
        pool = gallery.pool(row)
        findings.append(Finding(row.caption, look_up(image, pool, row)))
        real = area_resize(gallery.real(row.key)[None], resolution)[0]
        errors.append((image - real).double().square().mean())
        chance += min(1.0, NEAREST / len(pool.concepts))
    return GroupResult(name, tuple(findings), float(torch.stack(errors).mean()), chance)
