import pytest
import torch

from calotype.diffusion import Estimate, dynamic_threshold, static_threshold, thresholding
from calotype.errors import UsageError

close = torch.testing.assert_close


def test_static_clips() -> None:
    x = torch.tensor([[-3.0, -1.0, 0.5, 1.5]])
    assert static_threshold(x).tolist() == [[-1.0, -1.0, 0.5, 1.0]]


def test_identity_inside() -> None:
    x = torch.rand(3, 3, 8, 8) * 2 - 1
    assert torch.equal(dynamic_threshold(x, 0.995), x)


def test_closed_form() -> None:
    x = torch.arange(-2.0, 2.01, 0.5)[None]  # |x|: 0 .5 .5 1 1 1.5 1.5 2 2
    close(dynamic_threshold(x, 1.0), x / 2)
    close(dynamic_threshold(x, 0.5), x.clamp(-1, 1))
    # Rank 0.7 * 8 = 5.6, between 1.5 and 1.5.
    close(dynamic_threshold(x, 0.7), x.clamp(-1.5, 1.5) / 1.5)
    # Rank 0.8 * 8 = 6.4, between 1.5 and 2.
    close(dynamic_threshold(x, 0.8), x.clamp(-1.7, 1.7) / 1.7)
    close(dynamic_threshold(x, 1.0, max_value=1.6), x.clamp(-1.6, 1.6) / 1.6)
    close(dynamic_threshold(x, 1.0, max_value=1.0), static_threshold(x))


@pytest.mark.parametrize("percentile", [1e-9, 0.1, 0.5, 0.9, 0.995, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_per_image_and_like_torch_quantile(percentile: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 3, 16, 16, generator=generator, dtype=dtype)
    x *= torch.tensor([0.1, 0.8, 1.5, 6.0], dtype=dtype)[:, None, None, None]
    got = dynamic_threshold(x, percentile)
    s = torch.quantile(x.abs().flatten(1), percentile, dim=1).clamp(min=1)[:, None, None, None]
    close(got, x.clamp(-s, s) / s, rtol=1e-6, atol=1e-6)
    assert got.dtype == dtype
    assert got.abs().max() <= 1
    for k in range(4):
        assert torch.equal(got[k], dynamic_threshold(x[k : k + 1], percentile)[0])


def test_large_batches_pass() -> None:
    """Six images of 1024x1024 are beyond torch.quantile's 2^24 elements."""
    x = torch.linspace(-2, 2, 3 * 1024 * 1024).reshape(1, 3, 1024, 1024).expand(6, -1, -1, -1)
    got = dynamic_threshold(x, 0.995)
    close(got, x.clamp(-1.99, 1.99) / 1.99, rtol=0, atol=1e-5)


def test_transform_thresholds_x_and_keeps_the_rest() -> None:
    fraction = torch.rand(2, 3, 4, 4)
    x = torch.full((2, 3, 4, 4), 3.0)
    x[:, :, 0] = -6
    z, logsnr = torch.zeros_like(x), torch.zeros(2)
    denoise = thresholding(1.0)(lambda z, logsnr: Estimate(x, fraction))
    close(denoise(z, logsnr).x_hat, x / 6)
    assert denoise(z, logsnr).variance_fraction is fraction
    static = thresholding(None)(lambda z, logsnr: Estimate(x))
    close(static(z, logsnr).x_hat, x.sign())
    plain = thresholding(None, static=False)(lambda z, logsnr: Estimate(x, fraction))
    assert torch.equal(plain(z, logsnr).x_hat, x)
    assert plain(z, logsnr).variance_fraction is fraction
    dynamic = thresholding(1.0, static=False)(lambda z, logsnr: Estimate(x))
    close(dynamic(z, logsnr).x_hat, x / 6)  # a percentile decides alone
    capped = thresholding(1.0, max_value=1.5)(lambda z, logsnr: Estimate(x))
    close(capped(z, logsnr).x_hat, x.sign())


@pytest.mark.parametrize("percentile", [0.0, -0.1, 1.01, float("nan")])
def test_illegal_percentile(percentile: float) -> None:
    with pytest.raises(UsageError, match="percentile"):
        thresholding(percentile)
    with pytest.raises(UsageError, match="percentile"):
        dynamic_threshold(torch.zeros(1, 2), percentile)


def test_illegal_ceiling() -> None:
    with pytest.raises(UsageError, match="max_value"):
        thresholding(0.99, max_value=0.9)
