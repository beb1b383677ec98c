"""Retrieval on made-up pools whose answers are known."""

import pytest
import torch

from calotype.evaluation.retrieval import concept_rank, thumbnails


def flat(value):
    return torch.full((3, 4, 4), float(value))


POOL = torch.stack([flat(v) for v in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)])
NAMES = ("a", "b", "c", "d", "e", "f", "g")


def test_thumbnails_are_box_averages():
    x = torch.arange(2 * 4 * 4 * 4, dtype=torch.float32).reshape(2, 4, 4, 4)
    small = thumbnails(x, 2)
    assert torch.equal(small[1, 2, 0, 1], x[1, 2, 0:2, 2:4].mean())
    with pytest.raises(ValueError, match="at least 16"):
        thumbnails(x)


@pytest.mark.parametrize(("concept", "rank"), [("a", 0), ("b", 1), ("f", 5), ("g", 6)])
def test_rank_counts_nearer_concepts(concept, rank):
    assert concept_rank(flat(-0.2), POOL, NAMES, concept=concept) == rank


def test_images_of_the_own_concept_do_not_crowd_it_out():
    names = ("a", "a", "a", "a", "a", "a", "b")
    assert concept_rank(flat(0.31), POOL, names, concept="a") == 0
    # of several images of a concept the nearest counts
    assert concept_rank(flat(0.6), POOL, names, concept="a") == 1


def test_an_equal_image_of_another_name_does_not_count_against():
    pool = torch.stack([flat(0), flat(0), flat(1)])
    assert concept_rank(flat(0.1), pool, ("a", "twin", "b"), concept="a") == 0


def test_refuses_what_cannot_be_answered():
    with pytest.raises(ValueError, match="'zebra'"):
        concept_rank(flat(0), POOL, NAMES, concept="zebra")
    with pytest.raises(ValueError, match="not finite"):
        concept_rank(flat(float("nan")), POOL, NAMES, concept="a")
    with pytest.raises(ValueError, match="expected"):
        concept_rank(flat(0), POOL, NAMES[:-1], concept="a")
    with pytest.raises(ValueError, match="expected"):
        concept_rank(torch.zeros(3, 8, 8), POOL, NAMES, concept="a")
