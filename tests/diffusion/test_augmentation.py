import pytest
import torch
from torch.nn import functional

from calotype.diffusion import augment_lowres, upsample_lowres
from calotype.errors import UsageError


def test_enlarging_keeps_flat_colours_and_range() -> None:
    flat = torch.full((2, 3, 4, 4), 0.25)
    torch.testing.assert_close(upsample_lowres(flat, 16), torch.full((2, 3, 16, 16), 0.25))
    edge = torch.ones(1, 3, 4, 4)
    edge[..., 2:] = -1
    assert upsample_lowres(edge, 16).abs().max() == 1
    assert functional.interpolate(edge, 16, mode="bicubic").abs().max() > 1
    assert upsample_lowres(edge, (8, 24)).shape == (1, 3, 8, 24)


def test_no_augmentation_returns_the_input_bit_by_bit() -> None:
    x, noise = torch.rand(2, 3, 8, 8) * 2 - 1, torch.randn(2, 3, 8, 8)
    assert torch.equal(augment_lowres(x, torch.zeros(2), noise), x)
    mixed = augment_lowres(x, torch.tensor([0.0, 0.5]), noise)
    assert torch.equal(mixed[0], x[0])
    torch.testing.assert_close(mixed[1], (x[1] + noise[1]) / 2**0.5)


def test_variance_is_preserved() -> None:
    x, noise = torch.randn(2, 5, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.01, 0.2, 0.5, 0.8, 1.0])
    out = augment_lowres(x, levels, noise)
    assert (out.flatten(1).var(1) - 1).abs().max() < 0.05
    torch.testing.assert_close(out[4], noise[4], rtol=0, atol=1e-3)
    kept = (out * x).flatten(1).mean(1)
    assert (kept.diff() < 0).all()


@pytest.mark.parametrize("level", [-0.1, 1.1, float("nan")])
def test_level_out_of_range(level: float) -> None:
    x = torch.zeros(1, 3, 4, 4)
    with pytest.raises(UsageError, match="aug_level"):
        augment_lowres(x, torch.tensor([level]), x)
