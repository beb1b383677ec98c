"""Records of what a network is told: joined, dropped and padded without mixing anything up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from calotype.conditioning import Conditioning, TextEmbedding


def conditioning(batch: int, length: int) -> Conditioning:
    text = TextEmbedding(torch.randn(batch, length, 4), torch.ones(batch, length).bool())
    images = torch.randn(batch, 3, 8, 8)
    return Conditioning(text, images, torch.rand(batch), torch.randn(batch, 4, 8, 8))


def test_joined_batches_keep_every_row() -> None:
    a, b = conditioning(2, 3), conditioning(1, 5)
    both = Conditioning.cat(a, b)
    assert both.text is not None and a.text is not None and b.text is not None
    assert torch.equal(both.text.tokens[:2, :3], a.text.tokens)
    assert torch.equal(both.text.mask.sum(1), torch.tensor([3, 3, 5]))
    for name in ("lowres", "aug_level", "extra"):
        assert torch.equal(getattr(both, name), torch.cat((getattr(a, name), getattr(b, name))))


@pytest.mark.parametrize("name", ["text", "lowres", "aug_level", "extra"])
def test_what_only_one_of_two_batches_has_is_not_lost_in_silence(name: str) -> None:
    a = conditioning(1, 2)
    with pytest.raises(ValueError, match=f"{name} in one"):
        Conditioning.cat(a, replace(a, **{name: None}))


def test_dropping_captions_leaves_images_alone() -> None:
    a = conditioning(2, 3)
    dropped = a.drop_text(torch.tensor([False, True]))
    assert dropped.text is not None and a.text is not None
    assert not dropped.text.mask[0].any()
    assert torch.equal(dropped.text[1:].tokens, a.text[1:].tokens)
    assert dropped.lowres is a.lowres and dropped.extra is a.extra
