"""Makes the folder's own modules importable by its tests, and those of evaluation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))

from eyes import colours, eyes, noisy

__all__ = ["colours", "eyes", "noisy"]
