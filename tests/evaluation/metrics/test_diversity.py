"""Distances within prompts, and the effective number of different images, in closed form."""

import math

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics.diversity import (
    over_prompts,
    vendi_score,
    within_prompt_distance,
)


def test_distances_within_prompts_by_hand():
    features = torch.tensor([[0.0, 0], [3, 4], [0, 0], [7, 7], [9, 9], [9, 9]])
    found = within_prompt_distance(features, ["a", "a", "a", "alone", "b", "b"])
    assert found.value == pytest.approx((10 / 3 + 0) / 2)  # 5, 5 and 0; then 0
    assert found.count == 2
    assert within_prompt_distance(torch.ones(6, 4), list("aabbcc")).value == 0


def test_distances_of_any_kind():
    found = over_prompts(lambda rows: rows.diff().double(), ["a", "b", "a", "a", "b"])
    assert found.value == pytest.approx((1.5 + 3) / 2)


def test_prompts_of_one_sample_are_refused():
    with pytest.raises(UsageError, match="at least two of some"):
        within_prompt_distance(torch.ones(3, 4), list("abc"))
    with pytest.raises(UsageError, match="got 2 prompts for 3 rows"):
        within_prompt_distance(torch.ones(3, 4), list("ab"))


def test_vendi_scores_count_what_is_different():
    assert vendi_score(torch.ones(7, 3)) == pytest.approx(1)
    assert vendi_score(torch.eye(12)) == pytest.approx(12)
    assert vendi_score(5 * torch.eye(4).repeat(9, 1)) == pytest.approx(4)
    # Two at an angle: eigenvalues (1 +- cos) / 2.
    pair = torch.tensor([[1.0, 0], [1, math.sqrt(3)]])
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert vendi_score(pair) == pytest.approx(math.exp(entropy), rel=1e-6)
    assert vendi_score(pair.repeat(5, 1)) == pytest.approx(math.exp(entropy), rel=1e-6)


def test_the_streamed_matrix_has_the_same_eigenvalues(monkeypatch):
    from calotype.evaluation.metrics import rows

    x = torch.randn(60, 20, generator=torch.Generator().manual_seed(0)).double()
    unit = x / x.norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(unit @ unit.T / 60).clamp(min=0)
    expected = float(torch.special.entr(values).sum().exp())
    assert vendi_score(x) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(rows, "AT_ONCE", 7)
    assert vendi_score(x) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(UsageError, match="is zero"):
        vendi_score(torch.zeros(3, 2))
