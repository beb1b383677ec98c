"""Grids of samples: fixed prompts, fixed seeds, averaged weights, once in a while."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade.pixels import contact_sheet, to_pixels
from calotype.cascade.png import write_png
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.diffusion import PerSampleNoise, upsample_lowres
from calotype.tasks.captions import TextLookup
from calotype.tasks.validation import Probe

_GAP = 2  # pixels between images


def sample_prompts(stage: Stage, captions: tuple[str, ...], text: TextLookup | None) -> Tensor:
    """One image a caption from a base stage, seeds 0, 1, ...; (B, 3, H, W) in [-1, 1]."""
    # A network without text ignores the null captions; they only say how many images.
    embedded = TextEmbedding.null(len(captions), 1) if text is None else text(captions)
    side = stage.config.resolution
    noise = PerSampleNoise(range(len(captions)))
    return _sample(stage, Conditioning(embedded.to(stage.device)), noise, (side, side))


def sample_enlarged(stage: Stage, probe: Probe, text: TextLookup | None) -> Tensor:
    """Rows of three: enlarged bicubically, sampled, real; (3B, 3, H, W) in [-1, 1]."""
    assert probe.lowres is not None
    size = (probe.x.shape[2], probe.x.shape[3])
    noise = PerSampleNoise(range(len(probe)), stream=1)
    level = stage.config.sampling.aug_level
    cond = probe.condition(stage, text, noise, aug_level=level)
    samples = _sample(stage, cond, noise, size).cpu()
    enlarged = upsample_lowres(probe.lowres, size)
    return torch.stack((enlarged, samples, probe.x), dim=1).flatten(0, 1)


def sample_holes(stage: Stage, probe: Probe, text: TextLookup | None) -> Tensor:
    """Rows of three: what is known, over grey; sampled; real; (3B, 3, H, W) in [-1, 1]."""
    assert probe.known is not None
    noise = PerSampleNoise(range(len(probe)), stream=1)
    cond = probe.condition(stage, text, noise, aug_level=stage.config.sampling.aug_level)
    size = (probe.x.shape[2], probe.x.shape[3])
    samples = _sample(stage, cond, noise, size, edit=StageEdit(known=probe.known)).cpu()
    holed = torch.where(probe.known.mask, probe.x, 0.0)
    return torch.stack((holed, samples, probe.x), dim=1).flatten(0, 1)


def save_sheet(images: Tensor, path: Path, *, columns: int) -> None:
    """Write images, (B, 3, H, W) in [-1, 1], as one PNG with `columns` a row."""
    pixels = to_pixels(images.float().cpu())
    write_png(path, contact_sheet(list(pixels), columns=columns, gap=_GAP))


@torch.no_grad()
def _sample(
    stage: Stage,
    cond: Conditioning,
    noise: PerSampleNoise,
    size: tuple[int, int],
    *,
    edit: StageEdit | None = None,
) -> Tensor:
    guided = stage.config.sampling.guidance_weight != 1
    told = cond.text is not None or cond.classes is not None
    uncond = cond.null() if guided and told else None
    return stage.sample(cond, uncond, noise, size=size, edit=edit)
