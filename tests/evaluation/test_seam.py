"""The seam ratio: what a known shift across an edge gives, and what holes without a seam have."""

import pytest
import torch

from calotype.evaluation.seam import NEAR, seam_ratio


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0])
def test_a_shift_across_an_edge_gives_the_ratio_that_it_predicts(shift):
    """A slope of 0.1 a pixel along rows, and a shift where the right half begins."""
    image = 0.1 * torch.arange(40.0).expand(1, 1, 40, 40).clone()
    keep = torch.ones(1, 1, 40, 40, dtype=torch.bool)
    keep[..., 20:] = False
    image[..., 20:] += shift
    assert seam_ratio(image, keep) == pytest.approx((0.1 + shift) / 0.1)


def test_noise_has_no_seam_and_what_is_far_does_not_count():
    torch.manual_seed(0)
    keep = torch.rand(4, 1, 1, 1).expand(4, 1, 64, 64) > 2
    keep = keep.clone()
    keep[..., :20, 10:50] = True
    noise = torch.randn(4, 3, 64, 64)
    assert seam_ratio(noise, keep) == pytest.approx(1, abs=0.05)
    noise[..., 20 + NEAR + 1 :, :] *= 100
    near = noise.clone()
    near[..., 60:, :] = 0
    assert seam_ratio(noise, keep) == pytest.approx(seam_ratio(near, keep), rel=1e-9)


def test_misfits_are_refused():
    keep = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(ValueError, match="without an edge"):
        seam_ratio(torch.zeros(2, 3, 8, 8), keep)
    with pytest.raises(ValueError, match="expected"):
        seam_ratio(torch.zeros(1, 3, 8, 8), keep)
