"""How many judgements a study needs, before it is begun."""

from __future__ import annotations

import math

from calotype.errors import MissingExtra, UsageError

RATER_CORRELATION = 0.02
PROMPT_CORRELATION = 0.15
"""Correlation of two answers of one rater, and about one prompt, assumed until they are known.

With them, naive intervals of 25 raters and 18 prompts hold the truth in 62 % of all studies.
"""


def judgements_needed(
    rate: float, *, power: float = 0.8, level: float = 0.05, clustering: float = 1.0
) -> int:
    """Judgements that show a preference, two-sided, against indifference.

    Args:
        rate: of the preference that is to be found, in (0, 1) and not 0.5; ties count half.
        power: the chance to find it.
        level: the chance to find one where there is none.
        clustering: how many times more are needed than of independent ones; see `clustering`.

    Raises:
        UsageError: a number is out of its range.
    """
    if not (0 < rate < 1 and rate != 0.5):
        raise UsageError(f"the rate of a preference is in (0, 1) and not 0.5, got {rate:g}")
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is in (0, 1), got {value:g}")
    if not (clustering >= 1 and math.isfinite(clustering)):
        raise UsageError(f"clustering is at least 1, got {clustering:g}")
    try:
        from statsmodels.stats.power import NormalIndPower
        from statsmodels.stats.proportion import proportion_effectsize
    except ModuleNotFoundError as error:
        raise MissingExtra("rate", str(error.name)) from error
    effect = abs(float(proportion_effectsize(rate, 0.5)))
    count = NormalIndPower().solve_power(effect, alpha=level, power=power, ratio=0)
    return math.ceil(float(count) * clustering)


def clustering(
    raters: int,
    prompts: int,
    *,
    rater_correlation: float = RATER_CORRELATION,
    prompt_correlation: float = PROMPT_CORRELATION,
) -> float:
    """The variance of answers of all raters about all prompts to that of independent ones.

    1 + (prompts - 1) rho_rater + (raters - 1) rho_prompt: Kish's design effect, in both ways.
    """
    if raters < 1 or prompts < 1:
        raise UsageError(f"a study has raters and prompts, got {raters} and {prompts}")
    return 1 + (prompts - 1) * rater_correlation + (raters - 1) * prompt_correlation
