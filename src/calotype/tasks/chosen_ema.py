"""A stage with an average of its weights whose length is chosen after training."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from calotype.cascade.find import find_cascade
from calotype.cascade.io import load_stage, read_cascade_file, save_cascade
from calotype.cascade.stage import Stage
from calotype.config.typed_json import to_dict
from calotype.errors import UsageError
from calotype.storage.files import write_with
from calotype.storage.headers import NOTES
from calotype.storage.weights import tensors_to_save
from calotype.training.posthoc_ema import ProfileFit, combine, find_snapshots, fit_profile
from calotype.training.shards import copy_weights


@dataclass(frozen=True)
class ChosenAverage:
    """A stage with averaged weights.

    Args:
        stage: ready to sample.
        images: images it had seen when the average ends.
        length: sigma_rel of the profile.
        snapshots: how many the average was made of.
        fit: how well they made the profile.
    """

    stage: Stage
    images: int
    length: float
    snapshots: int
    fit: ProfileFit


def choose_average(
    run: Path, *, length: float, images: int | None = None, resolution: int | None = None
) -> ChosenAverage:
    """Average a run's snapshots with a profile of the wanted length.

    Args:
        run: folder of a run with snapshots.
        length: sigma_rel, the width of the profile as a fraction of the run.
        images: where the average ends, in images of the stage: at the last snapshot that is
            not after it; None = at the last one.
        resolution: of the stage; None = the finest that has snapshots.

    Raises:
        UsageError: there are no such snapshots, or the length is out of range.
        CalotypeError: files are damaged, or the run has no checkpoint.
    """
    found = find_snapshots(run)
    stages = sorted({one.resolution for one in found})
    chosen = stages[-1] if resolution is None else resolution
    found = [one for one in found if one.resolution == chosen]
    if not found:
        raise UsageError(f"got --resolution {chosen}; the run has averages of {stages}")
    used = [one for one in found if images is None or one.images <= images]
    if not used:
        raise UsageError(f"got --images {images}; the first snapshot is of {found[0].images}")
    end = used[-1].images
    fit = fit_profile(used, length=length, images=end)
    # Buffers are not averaged: those of the newest checkpoint serve.
    stage = load_stage(find_cascade(run) / str(chosen))
    parameters = {name for name, _ in stage.named_parameters()}
    buffers = {k: v.clone() for k, v in stage.state_dict().items() if k not in parameters}
    copy_weights(stage, {**combine(used, fit.weights), **buffers})
    return ChosenAverage(stage, end, length, len(used), fit)


def write_average(chosen: ChosenAverage, run: Path, out: Path, *, dtype: torch.dtype) -> None:
    """Write the stage: as one file for `--init`, or as the run's cascade with it in its place.

    Args:
        chosen: what is written.
        run: where it comes from.
        out: a name ending in .safetensors, or a cascade folder.
        dtype: of the weights.

    Raises:
        CalotypeError: the disk is full or cannot be written to.
    """
    if out.suffix == ".safetensors":
        tensors = tensors_to_save(chosen.stage, dtype)
        stage = to_dict(chosen.stage.config)
        facts = {"stage": stage, "length": chosen.length, "images": chosen.images}
        metadata = {NOTES: json.dumps(facts)}
        write_with(out, lambda place: save_file(tensors, place, metadata=metadata))
        return
    folder = find_cascade(run)
    file = read_cascade_file(folder)
    stages = [load_stage(folder / entry.folder, sha256=entry.sha256) for entry in file.stages]
    resolution = chosen.stage.config.resolution
    stages = [chosen.stage if one.config.resolution == resolution else one for one in stages]
    save_cascade(out, stages=stages, text_encoder=file.text_encoder, name=file.name, dtype=dtype)
