"""Other people's files and programs: weights of DeepFloyd IF, GLIDE and Karlo, and their APIs.

Folders come in, cascades of this library come out; `export` goes the other way. Fenced: nothing
but the command line imports it. Names are imported when they are first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_LAZY = {"convert": "loading", "export_to_diffusers": "diffusers_export", "load": "loading"}

__all__ = ["convert", "export_to_diffusers", "load"]

if TYPE_CHECKING:
    from calotype.interop.diffusers_export import export_to_diffusers
    from calotype.interop.loading import convert, load


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(f"calotype.interop.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'calotype.interop' has no attribute {name!r}")
