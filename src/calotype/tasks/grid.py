"""Grids of samples: fixed prompts, fixed seeds, averaged weights, once in a while."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade.pixels import contact_sheet, to_pixels
from calotype.cascade.png import write_png
from calotype.cascade.sampling import told_nothing
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import StageEdit
from calotype.conditioning import Conditioning
from calotype.diffusion import PerSampleNoise, upsample_lowres
from calotype.tasks.captions import TextLookup
from calotype.tasks.validation import Probe

_EXAMPLES = 8
_GAP = 2  # pixels between images
_FEWEST, _MOST_CLASSES = 8, 64  # images of a sheet without captions


def save_preview(
    stage: Stage,
    path: Path,
    probe: Probe | None,
    *,
    captions: tuple[str, ...],
    text: TextLookup | None,
) -> None:
    """Write a sheet of samples; nothing where there is nothing to sample from.

    Args:
        stage: what samples.
        path: of the sheet.
        probe: examples for holes and super-resolution, and their captions where none are given.
        captions: of a base.
        text: looks captions up; None for a network without text, whose classes are shown.
    """
    some = None if probe is None else probe[:_EXAMPLES]
    if some is not None and some.known is not None:
        save_sheet(sample_holes(stage, some, text), path, columns=6)
    elif stage.config.lowres_resolution is not None:
        if some is not None:
            save_sheet(sample_enlarged(stage, some, text), path, columns=6)
    elif text is None:
        save_sheet(sample_classes(stage), path, columns=8)
    elif captions := captions or (() if some is None else some.captions):
        save_sheet(sample_prompts(stage, captions, text), path, columns=min(8, len(captions)))


def sample_prompts(stage: Stage, captions: tuple[str, ...], text: TextLookup) -> Tensor:
    """One image a caption from a base stage, seeds 0, 1, ...; (B, 3, H, W) in [-1, 1]."""
    embedded = text(captions).to(stage.device)
    classes = _some_classes(stage, len(captions))
    return _sample_base(stage, Conditioning(embedded, classes=classes), len(captions))


def sample_classes(stage: Stage) -> Tensor:
    """Images of a base stage without text, of its classes in turn, if it has any; as above."""
    count = min(_MOST_CLASSES, max(_FEWEST, stage.config.class_count))
    return _sample_base(stage, Conditioning(classes=_some_classes(stage, count)), count)


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


def _some_classes(stage: Stage, count: int) -> Tensor | None:
    """So many numbers of classes, from the first on, and again; None without classes."""
    known = stage.config.class_count
    return None if known == 0 else (torch.arange(count) % known).to(stage.device)


def _sample_base(stage: Stage, cond: Conditioning, count: int) -> Tensor:
    side = stage.config.resolution
    return _sample(stage, cond, PerSampleNoise(range(count)), (side, side))


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
    uncond = told_nothing(cond, stage.config) if guided and told else None
    return stage.sample(cond, uncond, noise, size=size, edit=edit)
