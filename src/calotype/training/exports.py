"""Weights that a run writes beside its checkpoints: averages for later choice, and LoRA files.

    RUN/ema/<images over all stages>-<length>.safetensors
    RUN/lora/<images over all stages>-<stage>.safetensors

They are written before the checkpoint of as many images, and cut back with the log: what lies
there after a resume is what an uninterrupted run would have written.
"""

from __future__ import annotations

import re
from pathlib import Path

from calotype.training.posthoc_ema import FOLDER as EMA_FOLDER

LORA_FOLDER = "lora"
EXPORT_FOLDERS = (EMA_FOLDER, LORA_FOLDER)
_AVERAGE = re.compile(r"(\d{1,15})-\d\.\d{3}\.safetensors")
_LORA = re.compile(r"(\d{1,15})-\w+\.safetensors", re.ASCII)


def cut_back_exports(run: Path, images: int, *, last: int) -> None:
    """Remove what the run wrote after `images` images over all stages; it has `last` in all.

    Files of other names than its own, or of more images than it has, are not its.
    """
    for folder, own in ((EMA_FOLDER, _AVERAGE), (LORA_FOLDER, _LORA)):
        for path in (run / folder).glob("*.safetensors"):
            name = own.fullmatch(path.name)
            if name is not None and images < int(name[1]) <= last:
                path.unlink()
