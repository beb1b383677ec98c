"""Joining runs: the averaged weights of each, from coarse to fine, as one cascade."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from calotype.cascade.find import find_cascade
from calotype.cascade.io import load_stage, read_cascade_file, save_cascade
from calotype.cascade.stage import Stage
from calotype.errors import UsageError
from calotype.training.run_folder import stage_runs


def assemble(runs: Sequence[Path], out: Path, *, name: str, dtype: torch.dtype) -> Path:
    """Write the newest averaged weights of some runs as a cascade.

    Args:
        runs: run folders (their latest checkpoint counts), folders of one run a stage,
            checkpoints or cascade folders.
        out: cascade folder to write.
        name: of the cascade.
        dtype: of the weights in the files.

    Returns:
        `out`.

    Raises:
        UsageError: two runs have the same stage, the stages do not fit each other, or the runs
            were trained with different text encoders.
    """
    if len(runs) == 0:
        raise UsageError("got no runs; expected at least one")
    stages: dict[int, Stage] = {}
    encoders: dict[str, tuple[Path, str]] = {}  # by what tells them apart: run, specification
    for run in [part for given in runs for part in stage_runs(given) or [given]]:
        folder = find_cascade(run)
        file = read_cascade_file(folder)
        if file.text_encoder != "none":
            encoders.setdefault(file.encoder_id, (run, file.text_encoder))
        for entry in file.stages:
            stage = load_stage(folder / entry.folder, sha256=entry.sha256)
            if stage.config.resolution in stages:
                raise UsageError(
                    f"got two stages of {stage.config.resolution} pixels, the second in {run}; "
                    "expected one run a stage"
                )
            stages[stage.config.resolution] = stage
    if len(encoders) > 1:
        found = " and ".join(f"{encoder} ({run})" for encoder, (run, _) in encoders.items())
        raise UsageError(f"got runs with the text encoders {found}; expected one encoder")
    ordered = [stages[resolution] for resolution in sorted(stages)]
    encoder = next((spec for _, spec in encoders.values()), "none")
    save_cascade(out, stages=ordered, text_encoder=encoder, name=name, dtype=dtype)
    return out
