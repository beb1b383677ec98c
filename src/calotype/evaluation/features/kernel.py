"""How far two sets of features lie apart: torchmetrics' estimate of KID.

Reference: Binkowski et al. 2018, arXiv:1801.01401 (KID).
"""

from __future__ import annotations

import torch
from torch import Tensor

from calotype.errors import UsageError


def kernel_distance(real: Tensor, sampled: Tensor) -> float:
    """KID: the squared maximum mean discrepancy of two sets, for the cubic polynomial kernel.

    The estimate is unbiased, so for equal distributions it is about 0, on either side of it. It is
    the mean over parts of the real features, each as large as `sampled`, as torchmetrics' estimate
    takes sets of one size.

    Args:
        real: features, (M, D).
        sampled: features, (N, D), 2 <= N <= M; the last M mod N of the real ones are left out.
    """
    from torchmetrics.image.kid import poly_mmd

    count = len(sampled)
    if not 2 <= count <= len(real):
        raise UsageError(
            f"got {count} samples and {len(real)} real images for KID; expected at least two "
            "samples, and no fewer real images"
        )
    parts = torch.split(real[: len(real) // count * count].double(), count)
    return float(torch.stack([poly_mmd(part, sampled.double()) for part in parts]).mean())
