"""Validation: error of the estimated image by noise level, on images seen and not seen.

The mean squared error of x_hat from a nearly pure noise says what the text decides; from little
noise, how fine the images are. That of as many trained images beside it shows memorising.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, Text
from calotype.diffusion import PerSampleNoise, add_noise
from calotype.diffusion.noise_marks import NOISE_RATIOS
from calotype.tasks.captions import TextLookup
from calotype.tasks.probe import PROBE_SEED, Probe

_CHUNK = 32


@torch.no_grad()
def errors_by_level(
    stage: Stage,
    probe: Probe,
    text: TextLookup | None,
    *,
    ratios: Sequence[float] = NOISE_RATIOS,
) -> dict[str, float]:
    """Mean squared error of x_hat (images in [-1, 1]) at each sigma/alpha, with fixed noise.

    Super-resolution stages get their low-resolution images clean (aug_level 0).
    """
    totals = dict.fromkeys(ratios, 0.0)
    for start in range(0, len(probe), _CHUNK):
        rows = slice(start, min(start + _CHUNK, len(probe)))
        x = probe.x[rows].to(stage.device)
        noise = PerSampleNoise([PROBE_SEED + i for i in range(rows.start, rows.stop)])
        eps = noise.normal(x.shape).to(x)
        embedded = None if text is None else text(probe.captions[rows])
        denoise = stage.denoiser(_condition(stage, probe, rows, embedded=embedded))
        for ratio in ratios:
            logsnr = torch.full((len(x),), -2 * math.log(ratio), device=x.device)
            x_hat = denoise(add_noise(x, logsnr, eps), logsnr).x_hat
            totals[ratio] += float((x_hat - x).double().square().flatten(1).mean(1).sum())
    return {f"{ratio:g}": total / len(probe) for ratio, total in totals.items()}


def _condition(stage: Stage, probe: Probe, rows: slice, *, embedded: Text | None) -> Conditioning:
    embedded = None if embedded is None else embedded.to(stage.device)
    if probe.lowres is None:
        return Conditioning(embedded)
    lowres = probe.lowres[rows].to(stage.device)
    height, width = probe.x.shape[2:]
    noise = PerSampleNoise([PROBE_SEED] * len(lowres), stream=1)
    return stage.lowres_condition(
        lowres, embedded, size=(height, width), aug_level=0.0, noise=noise
    )
