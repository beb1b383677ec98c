import pytest
import torch

from calotype.diffusion import GlobalNoise, PerSampleNoise
from calotype.errors import UsageError


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_noise_of_an_image_is_the_same_in_any_batch(kind: str) -> None:
    together, alone = PerSampleNoise([5, 9, 2**63 - 1]), PerSampleNoise([9])
    for shape in [(3, 5, 5), (1, 7), (), (3, 16, 16)]:
        first = getattr(together, kind)((3, *shape))
        second = getattr(alone, kind)((1, *shape))
        assert first.dtype == torch.float32
        assert torch.equal(first[1], second[0])


@pytest.mark.parametrize("kind", ["normal", "uniform"])
@pytest.mark.parametrize("source", [lambda: PerSampleNoise([3, 4]), GlobalNoise])
def test_a_program_that_changed_the_defaults_of_torch_gets_the_same_noise(source, kind) -> None:
    expected = getattr(source(), kind)((2, 5))
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            got = getattr(source(), kind)((2, 5))
    finally:
        torch.set_default_dtype(torch.float32)
    assert got.dtype == torch.float32
    assert torch.equal(got, expected)


def test_seeds_and_streams_are_independent() -> None:
    seeds = [0, 1, 2**32, 2**32 + 1, 2**62]
    rows = torch.cat(
        [PerSampleNoise(seeds, stream=stream).normal((5, 4000)) for stream in range(3)]
    )
    correlation = torch.corrcoef(rows) - torch.eye(15)
    assert correlation.abs().max() < 0.08
    assert abs(rows.mean()) < 0.02
    assert abs(rows.std() - 1) < 0.02


def test_seed_stays_what_it_is() -> None:
    """Images of a seed must not change between versions."""
    got = PerSampleNoise([1], stream=2).uniform((1, 3))
    expected = torch.tensor([[0.80719823, 0.92527997, 0.27590573]])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_global_noise_resumes_exactly() -> None:
    noise = GlobalNoise()
    noise.normal((3,))
    state = noise.get_state()
    first = noise.normal((2, 3)), noise.uniform((4,))
    other = GlobalNoise(torch.Generator().manual_seed(99))
    other.set_state(state)
    assert torch.equal(other.normal((2, 3)), first[0])
    assert torch.equal(other.uniform((4,)), first[1])


def test_global_noise_without_generator_is_the_same_every_time() -> None:
    torch.manual_seed(3)
    first = GlobalNoise().normal((4,))
    torch.manual_seed(4)
    assert torch.equal(first, GlobalNoise().normal((4,)))


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_out_of_range(seed: int) -> None:
    with pytest.raises(UsageError, match="seed is"):
        PerSampleNoise([seed])


def test_one_row_per_seed() -> None:
    with pytest.raises(UsageError, match="expected one row per seed"):
        PerSampleNoise([1, 2]).normal((3, 4))
