"""The noise schedule of models trained at whole timesteps: a table, exact where it has entries.

Timesteps run from 0 (nearly clean) to T - 1 (noise). Between them the log-SNR is interpolated, so
that every sampler and grid of this library works on such models, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from calotype.diffusion.schedule import ending_clean, float64
from calotype.errors import UsageError

# Levels come back from float32; what is closer than this to a timestep is that timestep.
_SNAP = 1e-3
Spacing = Literal["leading", "linspace", "trailing"]


class DiscreteSchedule:
    """A table of noise levels.

    Args:
        alphas_cumprod: alpha^2 at each timestep, (T,), strictly falling, within (0, 1).
        spacing: which timesteps fewer steps take, by diffusers' names.

    Raises:
        UsageError: the table does not fall.
    """

    def __init__(self, alphas_cumprod: Tensor, *, spacing: Spacing = "leading") -> None:
        self.spacing = spacing
        table = float64(alphas_cumprod).cpu()
        inside = bool(((table > 0) & (table < 1)).all())
        if table.ndim != 1 or len(table) < 2 or not inside or not bool((table.diff() < 0).all()):
            raise UsageError(
                "got a table of alphas that does not fall strictly within (0, 1); expected the "
                "cumulative products of a noise schedule"
            )
        self.table = torch.log(table) - torch.log1p(-table)  # log-SNR, falling

    @property
    def steps(self) -> int:
        """Length T of the table."""
        return len(self.table)

    def logsnr(self, t: Tensor) -> Tensor:
        """Return the float64 log-SNR at times `t` in [0, 1]; timestep k is time k / (T - 1)."""
        return self.logsnr_at(float64(t) * (self.steps - 1))

    def logsnr_at(self, timesteps: Tensor) -> Tensor:
        """Return the float64 log-SNR at timesteps in [0, T - 1], exact at whole ones."""
        place = float64(timesteps).clamp(0, self.steps - 1)
        place = torch.where((place - place.round()).abs() < 1e-9 * self.steps, place.round(), place)
        below = place.floor().long().clamp_max(self.steps - 2)
        table = self.table.to(place.device)
        low, high, fraction = table[below], table[below + 1], place - below
        # Not lerp: it must return the entry itself where the fraction is 0 or 1.
        return torch.where(fraction == 1, high, low + fraction * (high - low))

    def time(self, logsnr: Tensor) -> Tensor:
        """Return the float64 time of a log-SNR; levels beyond the ends give 0 or 1."""
        return self.timestep(logsnr) / (self.steps - 1)

    def timestep(self, logsnr: Tensor) -> Tensor:
        """Return the float64 timesteps of log-SNRs, exactly whole ones for entries of the table.

        Entries are recognised after rounding to float32, too.
        """
        level = float64(logsnr)
        table = self.table.to(level.device)
        above = torch.searchsorted(-table, -level.contiguous()).clamp(1, self.steps - 1)
        high, low = table[above - 1], table[above]
        place = above - 1 + ((high - level) / (high - low)).clamp(0, 1)
        return torch.where((place - place.round()).abs() < _SNAP, place.round(), place)

    def sampling_timesteps(self, steps: int) -> list[int]:
        """Return the falling timesteps of fewer steps, as diffusers' DDPMScheduler spaces them.

        Raises:
            UsageError: `steps` is not in 1 ... T.
        """
        if not 1 <= steps <= self.steps:
            raise UsageError(
                f"steps is {steps}, expected 1 to {self.steps}: this model was trained on "
                f"{self.steps} timesteps"
            )
        if self.spacing == "leading":
            ratio = self.steps // steps
            chosen = [k * ratio for k in range(steps)]
        elif self.spacing == "linspace":
            # The arithmetic of numpy.linspace; ties go to the even number in both.
            between = (self.steps - 1) / (steps - 1) if steps > 1 else 0.0
            chosen = [round(k * between) for k in range(steps)]
        else:
            # The rounding of numpy.arange(T, 0, -T / steps), which decides ties.
            stride = (self.steps - self.steps / steps) - self.steps
            return [max(round(self.steps + k * stride) - 1, 0) for k in range(steps)]
        return chosen[::-1]

    def sampling_levels(self, timesteps: Sequence[int], *, start_time: float = 1.0) -> Tensor:
        """Return the grid of a sampler through falling timesteps, then to the clean image.

        Args:
            timesteps: falling, in 0 ... T - 1.
            start_time: timesteps above this fraction of T are left out, in (0, 1].

        Returns:
            Levels (N+1,), float64 on the CPU, rising and ending at +inf.

        Raises:
            UsageError: a timestep or `start_time` is out of range.
        """
        if not 0 < start_time <= 1:
            raise UsageError(f"start_time is {start_time}, expected a number in (0, 1]")
        if len(timesteps) == 0 or not 0 <= min(timesteps) <= max(timesteps) < self.steps:
            raise UsageError(
                f"got timesteps outside 0 ... {self.steps - 1}; expected the schedule's"
            )
        kept = [t for t in timesteps if t < start_time * self.steps] or [min(timesteps)]
        return ending_clean(self.table[torch.tensor(kept)])


def squaredcos_betas(steps: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the betas of the cosine schedule of published models, cut at 0.999.

    Reference: Nichol & Dhariwal 2021, section 3.2, arXiv:2102.09672.
    """

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    ratios = [alpha_bar((k + 1) / steps) / alpha_bar(k / steps) for k in range(steps)]
    # On the CPU whatever the default device: a stage may be built without memory.
    return torch.tensor([min(1 - ratio, 0.999) for ratio in ratios], dtype=dtype, device="cpu")


def linear_betas(
    steps: int, *, start: float = 1e-4, end: float = 0.02, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return evenly spaced betas (Ho et al. 2020, arXiv:2006.11239)."""
    return torch.linspace(start, end, steps, dtype=dtype, device="cpu")


def schedule_from_betas(betas: Tensor, *, spacing: Spacing = "leading") -> DiscreteSchedule:
    """Return the schedule of betas (T,); the products are taken in the betas' own number type."""
    return DiscreteSchedule(torch.cumprod(1.0 - betas, dim=0), spacing=spacing)
