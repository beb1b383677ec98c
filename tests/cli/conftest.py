"""Extractors that see colours alone, for commands that evaluate."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for what these tests share

from eyes import colours, eyes, noisy

__all__ = ["colours", "eyes", "noisy"]
