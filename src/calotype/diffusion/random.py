"""Where noise comes from: always an argument, always made on the CPU in float32.

Type and device are always said: if a program changed torch's defaults, the noise would change.

`PerSampleNoise` gives every image its own generator, so the noise of an image is bitwise the same
alone and in any batch, on any device. `GlobalNoise` is the one stream of a training run.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from calotype.errors import UsageError


class NoiseSource(Protocol):
    """Something that makes random numbers."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers: (B, ...) float32 on the CPU."""

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers uniform in [0, 1): (B, ...) float32 on the CPU."""


class PerSampleNoise:
    """One independent stream of noise per image.

    Args:
        seeds: one seed per image of the batch, each in 0 ... 2^63-1.
        stream: a number that separates uses of one seed, such as the stages of a cascade.

    Raises:
        UsageError: if a seed is out of range.
    """

    def __init__(self, seeds: Sequence[int], *, stream: int = 0) -> None:
        self._generators = [_generator(seed, stream) for seed in seeds]

    @property
    def batch_size(self) -> int:
        """How many images it serves."""
        return len(self._generators)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers, row k of image k; `shape[0]` is the number of seeds."""
        return self._filled(shape, Tensor.normal_)

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers in [0, 1), row k of image k; `shape[0]` is the number of seeds."""
        return self._filled(shape, Tensor.uniform_)

    def _filled(self, shape: Sequence[int], fill: Callable[..., Tensor]) -> Tensor:
        if len(shape) == 0 or shape[0] != len(self._generators):
            raise UsageError(
                f"noise of shape {tuple(shape)} was asked of {len(self._generators)} seeds, "
                "expected one row per seed: pass as many seeds as images"
            )
        rows = torch.empty(tuple(shape), dtype=torch.float32, device="cpu")
        for row, generator in zip(rows, self._generators, strict=True):
            fill(row, generator=generator)
        return rows


class GlobalNoise:
    """One stream of noise for a whole run; its state can be saved for an exact resume.

    Args:
        generator: a CPU generator; None starts a new one that is the same every time.
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = torch.Generator().manual_seed(0) if generator is None else generator

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal numbers of any shape."""
        shape, generator = tuple(shape), self._generator
        return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """Numbers in [0, 1) of any shape."""
        shape, generator = tuple(shape), self._generator
        return torch.rand(shape, generator=generator, dtype=torch.float32, device="cpu")

    def get_state(self) -> Tensor:
        """Return the position in the stream, a uint8 tensor to store in a checkpoint."""
        return self._generator.get_state()

    def set_state(self, state: Tensor) -> None:
        """Resume from a position that `get_state` returned."""
        self._generator.set_state(state)


def _generator(seed: int, stream: int) -> torch.Generator:
    # BLAKE2b of both numbers: torch's CPU engine keeps the low 32 bits of a seed only, so seeds
    # must be mixed or s and s + 2^32 would make the same image.
    if not 0 <= seed < 2**63:
        raise UsageError(f"seed is {seed}, expected 0 ... 2^63-1: choose another")
    text = f"calotype noise {seed} {stream}".encode()
    mixed = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    return torch.Generator().manual_seed(mixed)
