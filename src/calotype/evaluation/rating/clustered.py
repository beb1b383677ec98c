"""Means of answers, with intervals for new raters and new prompts at once.

Answers of one rater are alike, and so are answers about one prompt: taken for independent, they
give intervals that are far too narrow. The variance is clustered in both ways, V_rater + V_prompt -
V_intersection (Cameron, Gelbach and Miller 2011, "Robust Inference with Multiway Clustering",
equation 2.11), by statsmodels, with the t distribution of min(raters, prompts) - 1 degrees of
freedom. The sum may come out negative, or below one of its parts; the largest of it and its parts
is taken, so that an interval is never narrower than with one clustering. Where all of them are zero
though answers differ, or one rater or prompt holds all answers, answers are their own clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, t
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.sandwich_covariance import cov_cluster, cov_cluster_2groups

Numbers = NDArray[np.float64]
LEVEL = 0.95


@dataclass(frozen=True)
class Scale:
    """The least and the largest value that a mean can have, and what it is tested against."""

    least: float
    most: float
    null: float | None = None


@dataclass(frozen=True)
class Clustered:
    """A mean, or a difference of means.

    Args:
        value: of it.
        low, high: 95 % interval, within the scale; None where one cluster holds all answers.
        p_value: two-sided, against the scale's null.
        count, raters, prompts: answers, and whose and about what they are.
        design_effect: its variance to that of as many independent answers; None if unknown.
        note: what the interval does not say.
    """

    value: float
    low: float | None
    high: float | None
    p_value: float | None
    count: int
    raters: int
    prompts: int
    design_effect: float | None = None
    note: str = ""


def clustered_mean(
    values: Sequence[float], raters: Sequence[str], prompts: Sequence[str], scale: Scale
) -> Clustered:
    """The mean of (N,) answers, by whom (N,), about which prompts (N,); N is at least 1."""
    return _estimate(np.ones((len(values), 1)), values, (raters, prompts), scale)


def clustered_difference(
    values: Sequence[float],
    of_first: Sequence[bool],
    clusters: tuple[Sequence[str], Sequence[str]],
    scale: Scale,
) -> Clustered:
    """The mean of the answers about a first set less that about a second; both have some.

    What a rater or a prompt does to both sets cancels: where each rater saw both images of a
    prompt, this is the mean of the paired differences and their interval.

    Args:
        values: (N,).
        of_first: which of them are about the first set, (N,).
        clusters: raters (N,) and prompts (N,).
        scale: of the difference.
    """
    first = np.asarray(of_first, dtype=np.float64)
    return _estimate(np.stack([first, np.ones(len(first))], axis=1), values, clusters, scale)


def _estimate(
    design: Numbers,
    values: Sequence[float],
    clusters: tuple[Sequence[str], Sequence[str]],
    scale: Scale,
) -> Clustered:
    """The first coefficient of the regression of values on the design, (N, K)."""
    fit = OLS(np.asarray(values, dtype=np.float64), design).fit()
    codes = [np.unique(np.asarray(names, dtype=object), return_inverse=True) for names in clusters]
    sizes = [len(names) for names, _ in codes]
    spread = bool(np.abs(fit.resid).max() > 1e-9)
    # Rounded, as sums of halves come out with a rest in the last digit.
    value = float(np.clip(round(fit.params[0], 12), scale.least, scale.most))
    variance = _variance(fit, [code for _, code in codes]) if spread else 0.0
    low = high = p_value = effect = None
    free = _clusters(sizes)
    if not spread:
        low, high, p_value = _all_alike(value, free, scale)
    elif variance is not None:
        error, most = variance**0.5, float(t.ppf(0.5 + LEVEL / 2, free - 1))
        low, high = max(scale.least, value - most * error), min(scale.most, value + most * error)
        effect = variance / float(fit.cov_params()[0, 0])
        if scale.null is not None:
            p_value = float(2 * t.sf(abs(value - scale.null) / error, free - 1))
    note = _note(sizes, spread=spread)
    return Clustered(value, low, high, p_value, len(values), sizes[0], sizes[1], effect, note)


def _clusters(sizes: list[int]) -> int:
    """How many clusters an interval rests on: a way that has only one cannot be told from."""
    return min((size for size in sizes if size > 1), default=1)


def _variance(fit: Any, codes: list[NDArray[np.int64]]) -> float | None:
    """Of the first coefficient; None where one rater answered about one prompt only."""
    several = [code for code in codes if code.max() > 0]
    if not several:
        return None
    alone = float(cov_cluster(fit, np.arange(fit.nobs, dtype=int))[0, 0])
    if len(several) == 1:
        return max(float(cov_cluster(fit, several[0])[0, 0]), alone)
    both, *single = cov_cluster_2groups(fit, *several)
    found = [both, *single, single[0] + single[1] - both]
    largest = max(float(matrix[0, 0]) for matrix in found)
    # Within a few clusters answers can cancel (0 and 1 of one rater, 0.5 of another), and nothing
    # is left to tell the spread between clusters from.
    return largest if largest > 1e-9 * alone else alone


def _all_alike(value: float, clusters: int, scale: Scale) -> tuple[float, float, float | None]:
    """Clopper and Pearson's interval with one answer a cluster, and the exact test's p-value."""
    width = scale.most - scale.least
    fraction = (value - scale.least) / width
    low, high = proportion_confint(fraction * clusters, clusters, 1 - LEVEL, method="beta")
    p_value = None
    if scale.null is not None:
        extreme = fraction in (0.0, 1.0)
        p_value = float(binomtest(round(fraction * clusters), clusters).pvalue) if extreme else 1.0
    return scale.least + width * float(low), scale.least + width * float(high), p_value


def _note(sizes: list[int], *, spread: bool) -> str:
    if not spread:
        return "all answers are alike: the interval is exact, with one answer a rater or prompt"
    single = [name for name, size in zip(("rater", "prompt"), sizes, strict=True) if size == 1]
    if len(single) == 2:
        return "one rater and one prompt: no interval"
    return f"one {single[0]}: the interval is about no other" if single else ""
