"""How different samples are: of one prompt from each other, and all of them together.

Reference: Friedman and Dieng 2023, arXiv:2210.02410 (Vendi score).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from calotype.errors import UsageError
from calotype.evaluation.metrics.intervals import Estimate, clustered_mean
from calotype.evaluation.metrics.rows import Features, check_rows, take, take_unit, tiles

Distances = Callable[[Tensor], Tensor]
"""Of the rows of one prompt, given by number: the distances of their pairs, (n (n - 1) / 2,)."""


def within_prompt_distance(features: Features, prompts: Sequence[str]) -> Estimate:
    """The mean distance of features of samples of one prompt, averaged over prompts.

    Args:
        features: (N, D).
        prompts: N ids; prompts with a single sample say nothing, and are left out.

    Returns:
        At least 0; 0 where every prompt gave one image over and over. Clustered by prompt.

    Raises:
        UsageError: no prompt has two samples, or a row is not finite.
    """
    check_rows(features, "sampled")
    if len(features) != len(prompts):
        raise UsageError(f"got {len(prompts)} prompts for {len(features)} rows; expected one each")
    return over_prompts(lambda rows: torch.pdist(take(features, rows)), prompts)


def over_prompts(distances: Distances, prompts: Sequence[str]) -> Estimate:
    """The mean over prompts of the mean distance of its samples' pairs; of LPIPS, say.

    Args:
        distances: called once a prompt that has two samples or more.
        prompts: of each sample, N ids.

    Raises:
        UsageError: no prompt has two samples.
    """
    rows: dict[str, list[int]] = {}
    for number, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(number)
    several = {prompt: numbers for prompt, numbers in rows.items() if len(numbers) > 1}
    if not several:
        raise UsageError("got one sample a prompt; expected at least two of some, to compare them")
    means = [float(distances(torch.tensor(numbers)).mean()) for numbers in several.values()]
    return clustered_mean(means, list(several))


def vendi_score(features: Features) -> float:
    """The effective number of different images: exp of the entropy of K/N, K of cosines.

    The eigenvalues are those of the (D, D) matrix of products, which is streamed, where that is
    the smaller one.

    Args:
        features: (N, D).

    Returns:
        From 1 (all alike) to N (all at right angles).

    Raises:
        UsageError: a row is zero or not finite.
    """
    check_rows(features, "sampled", least=1)
    count, dimension = features.shape
    if count <= dimension:
        x = take_unit(features, torch.arange(count))
        kernel = x @ x.T
    else:
        kernel = torch.zeros(dimension, dimension, dtype=torch.float64)
        for _, rows in tiles(count):
            x = take_unit(features, rows)
            kernel.addmm_(x.T, x)
    values = torch.linalg.eigvalsh(kernel / count).clamp(min=0)
    return float(torch.special.entr(values).sum().exp())
