"""Levels of sigma/alpha, the noise-to-signal ratio, at which errors are reported."""

from __future__ import annotations

import itertools

NOISE_RATIOS = (20.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05)
"""Where errors are measured in validation."""
BOUNDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 20.0)
"""sigma/alpha between the bins, rising; the first and the last bin are open."""
BINS = (
    f"<{BOUNDS[0]:g}",
    *(f"{low:g}-{high:g}" for low, high in itertools.pairwise(BOUNDS)),
    f">{BOUNDS[-1]:g}",
)
"""Names of the bins, from little noise to much."""
