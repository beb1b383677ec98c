"""calotype turns text into images with cascades of pixel-space diffusion models.

Public names only, and each is imported when it is first asked for: `import calotype` loads no
torch, touches no network and reads no weights.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from calotype.errors import CalotypeError, ConfigError, MissingExtra, UsageError

__version__ = "0.1.0"

_CASCADE = ("Cascade", "Stage", "image_to_image", "inpaint", "load")
_LAZY = {
    "SamplingConfig": "calotype.config.sampling",
    **dict.fromkeys(_CASCADE, "calotype.cascade"),
}
__all__ = [
    "CalotypeError", "Cascade", "ConfigError", "MissingExtra", "SamplingConfig", "Stage",
    "UsageError", "__version__", "image_to_image", "inpaint", "load",
]  # fmt: skip

if TYPE_CHECKING:
    from calotype.cascade import Cascade, Stage, image_to_image, inpaint, load
    from calotype.config.sampling import SamplingConfig


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'calotype' has no attribute {name!r}")


def __dir__() -> list[str]:
    """All public names, also those that were not asked for yet."""
    return sorted({*globals(), *__all__})
