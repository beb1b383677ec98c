"""Weights that a run writes beside its checkpoints: averages for later choice, and LoRA files.

    RUN/ema/<pictures over all stages>-<length>.safetensors
    RUN/lora/<pictures over all stages>-<resolution>.safetensors

They are written before the checkpoint of as many pictures, and cut back with the log: what lies
there after a resume is what an uninterrupted run would have written.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

from calotype.cascade.lora import save_lora, trained_lora
from calotype.cascade.stage import Stage
from calotype.config.lora import LoraConfig
from calotype.networks.lora import merge_adapters
from calotype.storage.files import write_error
from calotype.training.posthoc_ema import FOLDER as EMA_FOLDER

LORA_FOLDER = "lora"
EXPORT_FOLDERS = (EMA_FOLDER, LORA_FOLDER)


def write_lora(run: Path, stage: Stage, config: LoraConfig, *, images: int) -> Path:
    """Write the adapters of a stage into RUN/lora.

    Raises:
        CalotypeError: the disk is full or cannot be written to.
    """
    folder = run / LORA_FOLDER
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    path = folder / f"{images}-{stage.config.resolution}.safetensors"
    save_lora(trained_lora(stage, config), path)
    return path


def without_adapters(stage: Stage, config: LoraConfig | None) -> Stage:
    """The stage as others load it: itself, or a copy with its adapters added to the weights."""
    if config is None:
        return stage
    merged = copy.deepcopy(stage)
    merge_adapters(merged.network)
    return merged


def cut_back_exports(run: Path, images: int) -> None:
    """Remove what was written after `images` pictures over all stages."""
    for path in _exports(run):
        number = path.stem.partition("-")[0]
        if number.isdecimal() and int(number) > images:
            path.unlink()


def _exports(run: Path) -> Iterator[Path]:
    for name in EXPORT_FOLDERS:
        yield from (run / name).glob("*.safetensors")
