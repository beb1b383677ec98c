"""GLIDE's published weights: files come in, a cascade and a noised CLIP come out.

Reference: Nichol et al. 2021, arXiv:2112.10741. Names are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {
    "NoisedClipGuide": "noised_clip",
    "ReferenceStage": "reference",
    "convert_glide": "load",
    "is_glide": "load",
    "load_glide": "load",
    "load_guide": "noised_clip",
}

__all__ = [
    "NoisedClipGuide",
    "ReferenceStage",
    "convert_glide",
    "is_glide",
    "load_glide",
    "load_guide",
]

if TYPE_CHECKING:
    from calotype.interop.glide.load import convert_glide, is_glide, load_glide
    from calotype.interop.glide.noised_clip import NoisedClipGuide, load_guide
    from calotype.interop.glide.reference import ReferenceStage


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"calotype.interop.glide.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'calotype.interop.glide' has no attribute {name!r}")
