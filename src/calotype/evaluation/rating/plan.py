"""Whether a study asks enough people: told when it is made, before anybody has answered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from calotype.evaluation.rating.power import clustering, judgements_needed
from calotype.evaluation.rating.study import Study

RATES = (0.6, 0.55)


@dataclass(frozen=True)
class Needed:
    """Judgements of a question that find a preference: if independent, and as the study has them.

    Power 80 %, level 5 %, two-sided.
    """

    rate: float
    independent: int
    clustered: int


def needed(study: Study) -> list[Needed]:
    """What the study needs for each of `RATES`; nothing where it compares no pairs."""
    if not study.rules.is_pair:
        return []
    prompts = Counter(pool for pool, _ in {(trial.pool, trial.prompt) for trial in study.real})
    most = max(prompts.values())
    if study.per_rater is not None:
        most = min(most, study.per_rater)
    times = clustering(study.raters, most)
    return [
        Needed(rate, judgements_needed(rate), judgements_needed(rate, clustering=times))
        for rate in RATES
    ]
