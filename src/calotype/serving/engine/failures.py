"""What went wrong with an image, as its client is told."""

from __future__ import annotations

import torch

from calotype.errors import CalotypeError


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, of this process or of a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def explained(error: BaseException) -> tuple[str, str]:
    """The kind of an error, and what a client is told of it."""
    if is_out_of_memory(error):
        return "memory", "there is too little memory for this image; make it smaller"
    if isinstance(error, CalotypeError):
        return "usage", str(error)
    return "internal", f"the engine failed with {type(error).__name__}; its log says more"
