"""What pixels say of samples, without any network's features: colours, grids, copies, pairs.

Pairs: where the real images have captions, and each prompt is the caption of exactly one of them,
samples are held against that image (PSNR, SSIM). That is so for a suite that was made of the
reference's own captions, and asks for reconstruction or super-resolution to be measured.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from calotype.data.looks import looks
from calotype.data.source import EncodedSource
from calotype.data.work import source_of
from calotype.evaluation.metrics.copies import Look, equal_looks
from calotype.evaluation.metrics.diversity import over_prompts
from calotype.evaluation.metrics.intervals import Estimate, clustered_fraction
from calotype.evaluation.metrics.lpips import LEAST_SIDE, Lpips
from calotype.evaluation.metrics.neighbours import centre_of
from calotype.evaluation.metrics.pixels import grid_artefacts, psnr, ssim
from calotype.evaluation.metrics.rows import Features
from calotype.evaluation.reference import ImageList
from calotype.evaluation.results import Number, number_of
from calotype.evaluation.rows import Found, Rows, add_mean
from calotype.evaluation.samples import Manifest, SampleSet

_MOST_PIXELS = 24_000_000  # of the images that are looked through for grids, at once in memory
_AT_ONCE = 64
_LEAST_SSIM_SIDE = 11
_MOST_PSNR = 100  # dB: more only equal images have, of which it is infinite
_LEAST_PERIODS = 6  # of a grid on each side, for `grid_artefacts`


def colour_number(sampled: Features, real: Features, facts: dict[str, Any]) -> Number:
    """How far the mean colour of the samples is from that of the real images, in levels of 255.

    Args:
        sampled: mean colours, (N, 3).
        real: likewise, (M, 3).
        facts: those of `Number`.
    """
    shift = centre_of(sampled) - centre_of(real)
    names = ("red", "green", "blue")
    said = ", ".join(
        f"{name} {part:+.1f}" for name, part in zip(names, shift.tolist(), strict=True)
    )
    estimate = Estimate(float(shift.norm()), len(sampled), note=f"levels of 255: {said}")
    return number_of(estimate, "colour shift", higher_is_better=False, **facts)


def grid_numbers(samples: SampleSet) -> Iterator[Number]:
    """Grid artefacts at the pixels of each earlier stage, in the images' own size.

    They are of as many samples as fit in memory, evenly spread over the set; images of several
    sizes, and images that were not sampled by stages, have none.
    """
    size, periods = samples.manifest.size, list(upsampling_periods(samples.manifest))
    if size is None or size[0] != size[1] or not periods:
        return
    count = min(len(samples), max(1, _MOST_PIXELS // (size[0] * size[1])))
    chosen = sorted({number * len(samples) // count for number in range(count)})
    images = samples.pixels(chosen)
    for period in periods:
        note = "about 1 = no grid: power at its frequencies over that beside them"
        estimate = Estimate(grid_artefacts(images, period), len(chosen), note=note)
        facts: dict[str, Any] = {"higher_is_better": False, "side": size[0]}
        yield number_of(estimate, f"grid artefacts, period {period}", **facts)


def upsampling_periods(manifest: Manifest) -> Iterator[int]:
    """How many pixels of a sample are one of each earlier stage, where that is a whole number."""
    stages = (manifest.recipe or {}).get("stages", ())
    sides = [stage.get("resolution") for stage in stages[:-1]]
    last = None if manifest.size is None else manifest.size[0]
    for side in dict.fromkeys(sides):
        if isinstance(side, int) and last is not None and last % side == 0:
            if 2 <= last // side <= last // _LEAST_PERIODS:
                yield last // side


def add_paired(
    found: Found, samples: SampleSet, rows: Rows, images: ImageList, *, side: int
) -> None:
    """PSNR and SSIM of samples and the real images of their captions, if each prompt has one.

    Args:
        found: what is added to.
        samples: the set.
        rows: of it.
        images: the reference.
        side: pixels that both are brought to.
    """
    pairs = paired_images(rows, images)
    if pairs is None or side < _LEAST_SSIM_SIDE:
        return
    likenesses: dict[str, list[Tensor]] = {"PSNR": [], "SSIM": []}
    for first in range(0, len(rows), _AT_ONCE):
        part = range(first, min(first + _AT_ONCE, len(rows)))
        ours, theirs = samples.pixels(part, side), images.pixels([pairs[n] for n in part], side)
        likenesses["PSNR"].append(psnr(ours, theirs).clamp(max=_MOST_PSNR))
        likenesses["SSIM"].append(ssim(ours, theirs))
    note = "beside the real image of the same caption"
    equal = f"; of equal images {_MOST_PSNR} dB"
    for name, parts in likenesses.items():
        notes = (note + equal * (name == "PSNR"),)
        add_mean(found, rows, name, torch.cat(parts), side=side, notes=notes)


def paired_images(rows: Rows, images: ImageList) -> list[int] | None:
    """The real image of each sample's caption, by its number; None unless all have just one."""
    source: EncodedSource = source_of(images.data)
    known = defaultdict[str, list[int]](list)
    for row, number in enumerate(images.numbers):
        for caption in source.captions(number)[:1]:
            known[" ".join(caption.text.split())].append(row)
    found = [known.get(" ".join(sample.caption.split()), []) for sample in rows.samples]
    return [one[0] for one in found] if all(len(one) == 1 for one in found) else None


def add_equal_looks(
    found: Found, samples: SampleSet, rows: Rows, training: ImageList, *, side: int
) -> None:
    """The fraction of samples that look the same as a training image, by hashes of both.

    Args: as those of `add_paired`; `training` are the images that may have been copied.

    Raises:
        MissingExtra: imagehash is not installed.
    """
    ours = [look for part in _parts(len(samples)) for look in _looks(samples.pixels(part, side))]
    theirs = [
        look for part in _parts(len(training)) for look in _looks(training.pixels(part, side))
    ]
    same = equal_looks(theirs, ours)
    nearest = [np.nan if place is None else place for place in same]
    found.add_scores("training image of equal looks", nearest)
    estimate = clustered_fraction(torch.tensor([one is not None for one in same]), rows.prompts)
    estimate = replace(estimate, note="by perceptual and colour hash")
    facts: dict[str, Any] = {"higher_is_better": False, "side": side}
    found.numbers.append(number_of(estimate, "equal looks", **facts))


def lpips_number(samples: SampleSet, rows: Rows, lpips: Lpips, *, side: int) -> Number:
    """LPIPS between the images of each prompt, of which some have several."""

    def distances(chosen: Tensor) -> Tensor:
        images = samples.pixels(chosen.tolist(), max(side, LEAST_SIDE))
        return lpips.pairs(images.float() / 127.5 - 1)

    facts: dict[str, Any] = {"features": "alexnet", "side": max(side, LEAST_SIDE)}
    estimate = over_prompts(distances, rows.prompts)
    return number_of(estimate, "LPIPS diversity", higher_is_better=True, **facts)


def _looks(images: Tensor) -> Iterator[Look]:
    for image in images:
        rgb = image.permute(1, 2, 0).numpy()
        opaque = np.full((*rgb.shape[:2], 1), 255, np.uint8)
        yield looks(np.concatenate([rgb, opaque], 2))


def _parts(count: int) -> Iterator[Sequence[int]]:
    for first in range(0, count, _AT_ONCE):
        yield range(first, min(first + _AT_ONCE, count))
