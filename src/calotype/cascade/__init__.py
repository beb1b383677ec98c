"""The cascade room: captions and seeds go in, images of every stage come out.

`Stage` binds a network to its schedule, `Cascade` samples with stages from coarse to fine, `edit`
holds edits as data, `io` keeps cascades as safetensors and JSON, `png` writes images that carry
their recipe. May import `diffusion`, `networks`, `text`
and the modules that stand between rooms; knows nothing of data sets or training. Names are
imported when they are first asked for, so that reading a PNG's recipe loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "Cascade": "cascade", "CascadeSample": "results", "KnownPixels": "stage_edit",
    "Preview": "results", "Resampling": "edit", "SampleOptions": "plan", "Stage": "stage",
    "StageEdit": "stage_edit", "Tiling": "tiles", "image_to_image": "edit", "inpaint": "edit",
    "load": "cascade", "load_stage": "io", "save_cascade": "io", "save_stage": "io",
}  # fmt: skip
__all__ = [
    "Cascade", "CascadeSample", "KnownPixels", "Preview", "Resampling", "SampleOptions", "Stage",
    "StageEdit", "Tiling", "image_to_image", "inpaint", "load", "load_stage", "save_cascade",
    "save_stage",
]  # fmt: skip

if TYPE_CHECKING:
    from calotype.cascade.cascade import Cascade, load
    from calotype.cascade.edit import Resampling, image_to_image, inpaint
    from calotype.cascade.io import load_stage, save_cascade, save_stage
    from calotype.cascade.plan import SampleOptions
    from calotype.cascade.results import CascadeSample, Preview
    from calotype.cascade.stage import Stage
    from calotype.cascade.stage_edit import KnownPixels, StageEdit
    from calotype.cascade.tiles import Tiling


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"calotype.cascade.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'calotype.cascade' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, also those that were not asked for yet."""
    return sorted({*globals(), *__all__})
