"""One thread a test process, since processes share the cores; and the same numbers every time."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    """Tests that draw from torch's global generator see the same draws in any order."""
    import torch

    torch.manual_seed(20221)
