"""How long images take, learned from the engine's calls: what ETA and Retry-After are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WEIGHT = 0.1  # of the newest call in the running mean
_UNKNOWN_SECONDS = 2.0  # an image, before anything was measured
LEAST_RETRY, MOST_RETRY = 1.0, 120.0


class Speed:
    """Seconds a row of each model and resolution takes, as the calls go at present."""

    def __init__(self) -> None:
        self._row_seconds: dict[tuple[str, int], float] = {}

    def observe(self, model: str, resolution: int, rows: int, seconds: float) -> None:
        """Learn from a call on so many rows."""
        key, a_row = (model, resolution), seconds / max(rows, 1)
        before = self._row_seconds.get(key, a_row)
        self._row_seconds[key] = before + _WEIGHT * (a_row - before)

    def image_seconds(self, plan: Mapping[str, Any]) -> float:
        """What an image of this plan takes of the engine's time, beside others."""
        stages = plan.get("stages") or []
        steps = sum(stage["steps"] for stage in stages)
        if not steps or not self._row_seconds:
            return _UNKNOWN_SECONDS
        model = str(plan.get("model", ""))
        seconds = sum(one["steps"] * self._row(model, one["resolution"]) for one in stages)
        return float(seconds * plan.get("calls", steps) / steps)

    def _row(self, model: str, resolution: int) -> float:
        """Of one row; what was not measured is guessed by its area."""
        found = self._row_seconds.get((model, resolution))
        if found is not None:
            return found
        (_, near), seconds = min(
            self._row_seconds.items(), key=lambda one: abs(one[0][1] - resolution)
        )
        return seconds * (resolution / near) ** 2


def retry_seconds(seconds: float) -> float:
    """What a client is told to wait."""
    return min(max(seconds, LEAST_RETRY), MOST_RETRY)
