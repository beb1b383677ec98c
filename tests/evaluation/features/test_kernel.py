"""KID against its closed form."""

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.features import kernel_distance


def normal(count, mean, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((count, 1), generator=generator, dtype=torch.float64) / 2 + mean


@pytest.mark.parametrize(("mean", "expected", "within"), [(0.0, 0.0, 0.02), (0.5, 1.1875, 0.2)])
def test_distance_of_gaussians(mean, expected, within):
    """(xy + 1)^3 compares moments: 3 (m1 - m1')^2 + 3 (m2 - m2')^2 + (m3 - m3')^2.

    Those of N(0, 1/4) are 0, 1/4, 0, and those of N(1/2, 1/4) are 1/2, 1/2, 1/2.
    """
    pytest.importorskip("torchmetrics")
    found = kernel_distance(normal(6000, 0.0, 1), normal(1500, mean, 2))
    assert found == pytest.approx(expected, abs=within)


def test_distance_refuses_too_few():
    for real, sampled in ((4, 1), (4, 5)):
        with pytest.raises(UsageError, match="no fewer real images"):
            kernel_distance(torch.zeros(real, 3), torch.zeros(sampled, 3))
