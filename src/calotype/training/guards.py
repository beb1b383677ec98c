"""Guards: numbers that are not finite, and loss spikes."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from calotype.errors import CalotypeError
from calotype.training.state import TrainState
from calotype.training.step import StepMetrics

RECENT_LOSSES = 256
_MAD_TO_STD = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Guards:
    """When a run is stopped or sent back.

    Args:
        nonfinite_in_row: steps in a row without finite numbers that end the run.
        spike_score: robust z-score of log(loss) above which a step counts as a spike; None = never.
        spike_steps: how many of those in a row send the run back: single hard batches do not.
        warmup_steps: losses that must be known before any can be called a spike.
        max_rewinds: rewinds that end the run.
    """

    nonfinite_in_row: int = 20
    spike_score: float | None = 8.0
    spike_steps: int = 3
    warmup_steps: int = 64
    max_rewinds: int = 10

    def count(self, state: TrainState, metrics: StepMetrics) -> None:
        """Count a step that was skipped.

        Raises:
            CalotypeError: there were too many in a row.
        """
        if not metrics.skipped:
            state.skipped_in_row = 0
            return
        state.skipped += 1
        state.skipped_in_row += 1
        if state.skipped_in_row >= self.nonfinite_in_row:
            raise CalotypeError(
                f"{state.skipped_in_row} steps in a row had a loss or gradient that is not finite; "
                "their images are listed in skipped.jsonl: lower the learning rate or use "
                "float32, and continue with --resume"
            )

    def spiked(self, state: TrainState, metrics: StepMetrics) -> bool:
        """Whether the last steps are a loss spike; ordinary losses are remembered.

        Raises:
            CalotypeError: it happens again and again.
        """
        if metrics.skipped:
            return False
        known = state.recent_losses
        state.recent_losses = [*known, metrics.loss][-RECENT_LOSSES:]
        last = [*known[len(known) - self.spike_steps + 1 :], metrics.loss]
        past = known[: len(known) - self.spike_steps + 1]
        if self.spike_score is None or len(past) < self.warmup_steps:
            return False
        if min(robust_score(loss, past) for loss in last) <= self.spike_score:
            return False
        if state.rewinds >= self.max_rewinds:
            raise CalotypeError(
                f"the loss has spiked after {state.rewinds} rewinds (now {metrics.loss:.4g}); "
                "lower the learning rate or look at the images in skipped.jsonl"
            )
        return True

    def settled(self, losses: list[float]) -> bool:
        """Whether a state with these last losses is one to go back to: it ends in no spike."""
        past, last = losses[:-1], losses[-1:]
        if self.spike_score is None or len(past) < max(1, self.warmup_steps):
            return True
        return robust_score(last[0], past) <= self.spike_score


def check_skipped(skipped: int, *, steps: int) -> None:
    """Refuse a stage that came to its end and has hardly been trained.

    Raises:
        CalotypeError: more than half of its steps were skipped.
    """
    if 2 * skipped > steps:
        raise CalotypeError(
            f"{skipped} of {steps} steps were skipped, for their loss or gradient was not finite; "
            "expected at most half: look at the images in skipped.jsonl, lower the learning rate "
            "or use float32, and begin anew, or continue with --resume and more --images"
        )


def robust_score(loss: float, past: list[float]) -> float:
    """How many (robust) standard deviations log(loss) lies above the median of the past."""
    logs = [math.log(max(value, 1e-12)) for value in past]
    centre = statistics.median(logs)
    spread = statistics.median(abs(value - centre) for value in logs) * _MAD_TO_STD
    return (math.log(max(loss, 1e-12)) - centre) / max(spread, 0.02)
