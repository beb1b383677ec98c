"""Where files that can be made anew are kept for this user."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Calotype's folder in the user's cache; None where the user has no home at all."""
    root = os.environ.get("XDG_CACHE_HOME")
    if root:
        return Path(root) / "calotype"
    try:
        return Path.home() / ".cache" / "calotype"
    except RuntimeError:  # no HOME, and a user number that nobody has a name for: a container
        return None
