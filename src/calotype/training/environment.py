"""What has to be in the environment before torch is imported; so this module imports no torch."""

from __future__ import annotations

import os


def prepare_environment() -> None:
    """Let idle OpenMP threads sleep instead of spin, unless the user has decided otherwise.

    The loading thread and the training threads share the cores; spinning threads take them from
    the ones that work.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
