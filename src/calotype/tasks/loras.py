"""Adapters of a stage in training: their files, and the stage without them."""

from __future__ import annotations

import copy
from pathlib import Path

from calotype.cascade.lora import save_lora, trained_lora
from calotype.cascade.stage import Stage
from calotype.config.lora import LoraConfig
from calotype.networks.lora import merge_adapters
from calotype.storage.files import make_folder
from calotype.training.run_folder import LORA_FOLDER


def write_lora(run: Path, stage: Stage, config: LoraConfig, *, images: int) -> Path:
    """Write the adapters of a stage into RUN/lora.

    Raises:
        CalotypeError: the disk is full or cannot be written to.
    """
    folder = run / LORA_FOLDER
    make_folder(folder)
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
