"""Inception Score: one-hot classes, equal to the library's, the global generator untouched."""

import math
import warnings

import pytest
import torch
from torch import nn

from calotype.errors import UsageError
from calotype.evaluation.metrics.inception_score import inception_score


def library(logits, splits, **settings):
    from torchmetrics.image.inception import InceptionScore

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metric = InceptionScore(feature=nn.Identity(), splits=splits, **settings)
    metric.update(logits)
    return metric


def random_logits(count, classes=7):
    generator = torch.Generator().manual_seed(0)
    return 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)


def test_sure_of_every_class_alike_scores_their_number():
    logits = 60 * torch.eye(10).repeat(12, 1)
    found = inception_score(logits, splits=4, seed=None)
    assert found.value == pytest.approx(10, rel=1e-9)
    assert found.deviation == pytest.approx(0, abs=1e-9)
    assert (found.splits, found.count) == (4, 120)


def test_one_class_or_no_idea_scores_one():
    assert inception_score(60 * torch.eye(10)[[3] * 40]).value == pytest.approx(1)
    assert inception_score(torch.zeros(40, 10)).value == pytest.approx(1)


def test_it_is_the_librarys_of_the_same_order():
    logits = random_logits(103)
    torch.manual_seed(5)
    mean, deviation = library(logits, 4).compute()
    found = inception_score(logits, splits=4, seed=5)
    assert found.value == pytest.approx(float(mean), rel=1e-12)
    assert found.deviation == pytest.approx(float(deviation), rel=1e-9)


def test_splits_come_from_the_seed_and_leave_the_global_generator_alone():
    logits = random_logits(100)
    before = torch.get_rng_state()
    first = inception_score(logits, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert inception_score(logits, seed=1) == first
    assert inception_score(logits, seed=2) != first
    library(logits, 10).compute()
    assert not torch.equal(before, torch.get_rng_state())


def test_the_library_truncates_pixels_where_we_give_it_none():
    # (0.999 * 255) is 254.7: its nearest level is 255, the library makes it 254.
    metric = library(torch.full((2, 3, 4, 4), 0.999), 1, normalize=True)
    assert metric.features[0].unique().tolist() == [254]


def test_bad_logits_are_refused():
    with pytest.raises(UsageError, match="got 1 sampled images"):
        inception_score(torch.zeros(1, 10), splits=1)
    with pytest.raises(UsageError, match="got 5 sampled images; expected at least 10"):
        inception_score(torch.zeros(5, 10))
    with pytest.raises(UsageError, match="row 2 of"):
        inception_score(torch.tensor([[0.0], [0], [math.nan]]), splits=1)
    with pytest.raises(UsageError, match="got 0 splits"):
        inception_score(torch.zeros(5, 10), splits=0)
