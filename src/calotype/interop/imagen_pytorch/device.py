"""`.cuda()` that programs call without asking: a no-op with a warning where there is no GPU."""

from __future__ import annotations

import warnings
from typing import Self

import torch
from torch import nn


class CudaOptional(nn.Module):
    """A module whose `cuda()` does nothing where there is no GPU."""

    def cuda(self, device: int | torch.device | None = None) -> Self:
        """Move to a GPU, or warn and stay."""
        if torch.cuda.is_available():
            return super().cuda(device)
        warnings.warn(
            f"{type(self).__name__}.cuda(): there is no GPU here; staying on the CPU",
            stacklevel=2,
        )
        return self
