"""`python -m calotype` is the command `calotype`."""

from __future__ import annotations

import sys

from calotype.cli import run

if __name__ == "__main__":
    sys.exit(run())
