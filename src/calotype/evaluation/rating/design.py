"""Which trial a rater meets next, and on which sides.

Everything follows from the study's seed and from the answers so far: sides are balanced within each
trial and for each rater, the next trial is the least answered one, and one trial in ten is a
control at a place that cannot be foreseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from calotype.evaluation.rating.judgements import CONTROL_LIMIT
from calotype.evaluation.rating.study import Study, Trial

CONTROL_FRACTION = 0.1  # of all trials a rater meets


def control_count(real: int) -> int:
    """Control trials among which `real` others are nine in ten, at least one."""
    return max(1, round(real * CONTROL_FRACTION / (1 - CONTROL_FRACTION)))


@dataclass(frozen=True)
class Progress:
    """What choosing the next trial goes by.

    Args:
        answered: by trial id, answers of raters in good standing, and pages that are open.
        seen: trials that the rater has met, in order.
        swapped: by trial id, how often its sides were shown in order and swapped.
        own: the same of all trials of the rater.
    """

    answered: Mapping[str, int]
    seen: Sequence[str]
    swapped: Mapping[str, tuple[int, int]]
    own: tuple[int, int] = (0, 0)


def work_of(study: Study, pool: str) -> tuple[int, int]:
    """How many trials a rater who began with a pool is asked: those that count, and controls."""
    if study.per_rater is not None:
        real = min(study.per_rater, len(study.real))
    else:
        real = sum(trial.pool == pool for trial in study.real)
    has_controls = len(study.real) < len(study.trials)
    return real, control_count(real) if has_controls else 0


def next_trial(study: Study, rater: int, pool: str, progress: Progress) -> Trial | None:
    """The trial a rater meets next; None = there is nothing more to do.

    Args:
        study: that is rated.
        rater: number of the rater within the study.
        pool: that the rater began with.
        progress: so far.
    """
    real, controls = work_of(study, pool)
    seen = set(progress.seen)
    met = sum(study.by_id[name].control is None for name in seen)
    total = real + controls
    if len(seen) >= total:
        return None
    found = None
    if len(seen) in _control_places(study.seed, rater, controls, total):
        found = _least_answered(study, rater, pool, progress, is_control=True)
    if found is None and met < real:
        found = _least_answered(study, rater, pool, progress, is_control=False)
    return found


def _least_answered(
    study: Study, rater: int, pool: str, progress: Progress, *, is_control: bool
) -> Trial | None:
    seen = set(progress.seen)
    wanted = [
        trial
        for trial in study.trials
        if trial.id not in seen
        and (trial.pool == pool or study.per_rater is not None)
        and (trial.control is not None) == is_control
        and (is_control or progress.answered.get(trial.id, 0) < study.raters)
    ]

    def order(trial: Trial) -> tuple[bool, str, int, str]:
        is_other = trial.pool != pool
        other = _hash(study.seed, rater, trial.pool) if is_other else ""
        rank = _hash(study.seed, rater, trial.id)
        return is_other, other, progress.answered.get(trial.id, 0), rank

    return min(wanted, key=order, default=None)


def is_swapped(study: Study, rater: int, trial: Trial, progress: Progress) -> bool:
    """Whether the second side is shown as A: balanced in the trial, then for the rater."""
    for in_order, swapped in (progress.swapped.get(trial.id, (0, 0)), progress.own):
        if in_order != swapped:
            return swapped < in_order
    return int(_hash(study.seed, rater, trial.id, "side")[0], 16) % 2 == 1


def fails(passed: int, asked: int) -> bool:
    """Whether a rater fails more control trials than may be."""
    return asked - passed > CONTROL_LIMIT * asked


def least(pools: Collection[str], taken: Mapping[str, int], seed: int, rater: int) -> str:
    """The pool with the fewest raters; equal ones by the study's seed."""
    return min(pools, key=lambda pool: (taken.get(pool, 0), _hash(seed, rater, pool)))


def _control_places(seed: int, rater: int, controls: int, total: int) -> set[int]:
    """Where a rater's control trials stand: one at random in each of as many equal stretches."""
    places = set()
    for number in range(controls):
        start, end = number * total // controls, (number + 1) * total // controls
        places.add(Random(f"{seed}:{rater}:{number}").randrange(start, end))
    return places


def _hash(*words: object) -> str:
    return hashlib.sha256("\0".join(map(str, words)).encode("utf-8", "replace")).hexdigest()
