"""Evaluations that take no second: extractors that see colours alone, and images of colours."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for what these tests share

from eyes import colours, eyes, noisy

__all__ = ["colours", "eyes", "noisy"]
