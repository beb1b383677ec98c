"""Weights that a run writes beside its checkpoints: averages for later choice, and LoRA files.

    RUN/ema/<images over all stages>-<length>.safetensors
    RUN/lora/<images over all stages>-<stage>.safetensors

They are written before the checkpoint of as many images, and cut back with the log: what lies
there after a resume is what an uninterrupted run would have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from calotype.training.posthoc_ema import FOLDER as EMA_FOLDER

LORA_FOLDER = "lora"
EXPORT_FOLDERS = (EMA_FOLDER, LORA_FOLDER)


def cut_back_exports(run: Path, images: int) -> None:
    """Remove what was written after `images` pictures over all stages."""
    for path in _exports(run):
        number = path.stem.partition("-")[0]
        if number.isdecimal() and int(number) > images:
            path.unlink()


def _exports(run: Path) -> Iterator[Path]:
    for name in EXPORT_FOLDERS:
        yield from (run / name).glob("*.safetensors")
