"""The cascade room: captions and seeds go in, pictures of every stage come out.

`Stage` binds a network to its schedule, `Cascade` draws with stages from coarse to fine, `edit`
holds edits as data, `io` keeps cascades as safetensors and JSON, `png` writes pictures that carry
their recipe, `runtime` chooses device and number type. May import `diffusion`, `networks`, `text`
and the modules that stand between rooms; knows nothing of data sets or training.
"""

from __future__ import annotations

from pathlib import Path

from calotype.cascade.cascade import Cascade, CascadeSample, Preview
from calotype.cascade.edit import KeepKnown, image_to_image, inpaint, keep_known
from calotype.cascade.io import load_stage, save_cascade, save_stage
from calotype.cascade.runtime import Runtime, choose_runtime
from calotype.cascade.stage import Stage, StageEdit

__all__ = [
    "Cascade",
    "CascadeSample",
    "KeepKnown",
    "Preview",
    "Runtime",
    "Stage",
    "StageEdit",
    "choose_runtime",
    "image_to_image",
    "inpaint",
    "keep_known",
    "load",
    "load_stage",
    "save_cascade",
    "save_stage",
]


def load(path_or_name: str | Path | None = None) -> Cascade:
    """Load a cascade: the embedded default, a cascade folder or a training run.

    Raises:
        CalotypeError: nothing is there, or it is damaged; the message says what to do.
    """
    return Cascade.load(path_or_name)
