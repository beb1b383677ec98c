"""CLIP scores are cosines; ranks among chosen captions, which are never the own one."""

import math

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics.alignment import Captions, caption_ranks, clip_scores


def suite(count, *, seed=0):
    texts = tuple(f"a thing, number {number}" for number in range(count))
    generator = torch.Generator().manual_seed(seed)
    return Captions(texts, torch.randn(count, 256, generator=generator))


def test_clip_scores_are_cosines():
    images = torch.tensor([[2.0, 0], [0, 3], [1, 1], [-1, 0]])
    texts = torch.tensor([[5.0, 0], [1, 0], [1, 0], [1, 0]])
    expected = [100, 0, 100 / math.sqrt(2), -100]
    assert clip_scores(images, texts).tolist() == pytest.approx(expected)


def test_clip_scores_refuse():
    x = torch.ones(3, 4)
    with pytest.raises(UsageError, match=r"images \(3, 4\) and captions \(2, 4\)"):
        clip_scores(x, x[:2])
    with pytest.raises(UsageError, match="is zero"):
        clip_scores(x, 0 * x)
    with pytest.raises(UsageError, match="row 1 of the image features"):
        clip_scores(torch.tensor([[1.0], [math.nan]]), torch.ones(2, 1))


def test_images_that_show_their_captions_rank_first():
    captions = suite(150)
    found = caption_ranks(captions.embeddings * 3, captions.texts, captions)
    assert found.others == 99
    assert bool(found.first.all())
    wrong = caption_ranks(captions.embeddings.roll(1, 0), captions.texts, captions)
    assert float(wrong.first.double().mean()) < 0.1


def test_images_that_show_nothing_are_first_one_time_in_a_hundred():
    captions = suite(300)
    images = torch.randn(4000, 256, generator=torch.Generator().manual_seed(9))
    own = [captions.texts[number % 300] for number in range(4000)]
    found = caption_ranks(images, own, captions)
    assert float(found.first.double().mean()) == pytest.approx(0.01, abs=0.006)
    assert float(found.ranks.double().mean()) == pytest.approx(49.5, abs=2)
    assert int(found.ranks.min()) == 0 and int(found.ranks.max()) == 99


def test_an_image_that_fits_all_alike_is_not_first():
    captions = Captions(tuple("abc"), torch.ones(3, 2))
    assert caption_ranks(torch.ones(1, 2), ["a"], captions).ranks.tolist() == [2]


def test_equal_captions_are_not_among_the_others():
    texts = ("A cat", "a  cat ", "a CAT", "a dog")
    captions = Captions(texts, torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]]))
    found = caption_ranks(torch.tensor([[1.0, 0.5]] * 2), ["A cat", "a  cat "], captions)
    assert found.others == 1
    assert found.ranks.tolist() == [0, 0]  # the others would have tied


def test_the_choice_is_the_captions_and_the_seeds():
    captions = suite(200)
    images = torch.randn(200, 256, generator=torch.Generator().manual_seed(3))
    state = torch.get_rng_state()
    ranks = caption_ranks(images, captions.texts, captions).ranks
    assert torch.equal(state, torch.get_rng_state())
    back = Captions(captions.texts[::-1], captions.embeddings.flip(0))
    some = torch.tensor([150, 3, 77])
    again = caption_ranks(images[some], [captions.texts[row] for row in some.tolist()], back)
    assert torch.equal(again.ranks, ranks[some])
    assert not torch.equal(caption_ranks(images, captions.texts, captions, seed=1).ranks, ranks)


def test_refusals():
    captions = suite(3)
    with pytest.raises(UsageError, match="sample 0 has a caption that the suite lacks: 'b'"):
        caption_ranks(torch.ones(1, 256), ["b"], captions)
    with pytest.raises(UsageError, match="got 1 different captions"):
        caption_ranks(torch.ones(1, 256), ["x"], Captions(("x", "X"), torch.ones(2, 256)))
    with pytest.raises(UsageError, match="1 captions of samples"):
        caption_ranks(torch.ones(2, 256), ["x"], captions)
