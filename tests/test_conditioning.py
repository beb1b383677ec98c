"""Records of what a network is told: joined, dropped and padded without mixing anything up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from calotype.conditioning import (
    Conditioning,
    Text,
    TextEmbedding,
    TokenIds,
    token_ids,
    token_states,
)


def conditioning(batch: int, length: int) -> Conditioning:
    text = TextEmbedding(torch.randn(batch, length, 4), torch.ones(batch, length).bool())
    images = torch.randn(batch, 3, 8, 8)
    extra, classes = torch.randn(batch, 4, 8, 8), torch.arange(batch)
    return Conditioning(text, images, torch.rand(batch), extra, classes=classes)


def test_joined_batches_keep_every_row() -> None:
    a, b = conditioning(2, 3), conditioning(1, 5)
    both = Conditioning.cat(a, b)
    assert both.text is not None and a.text is not None and b.text is not None
    assert torch.equal(both.text.tokens[:2, :3], a.text.tokens)
    assert torch.equal(both.text.mask.sum(1), torch.tensor([3, 3, 5]))
    for name in ("lowres", "aug_level", "extra", "classes"):
        assert torch.equal(getattr(both, name), torch.cat((getattr(a, name), getattr(b, name))))


@pytest.mark.parametrize("kind", ["states", "ids"])
def test_captions_of_both_kinds_are_cut_padded_dropped_and_joined(kind: str) -> None:
    def captions(batch: int, length: int) -> Text:
        mask = torch.ones(batch, length, dtype=torch.bool)
        if kind == "ids":
            return TokenIds(torch.randint(1, 50257, (batch, length)), mask)
        return TextEmbedding(torch.randn(batch, length, 4), mask)

    def values(text: Text) -> torch.Tensor:
        return text.ids if isinstance(text, TokenIds) else text.tokens

    a, b = captions(2, 3), captions(1, 5)
    both = a.cat(a, b)
    assert type(both) is type(a) and len(both) == 3
    assert torch.equal(values(both)[:2, :3], values(a)) and torch.equal(values(both[2:]), values(b))
    assert torch.equal(values(both[torch.tensor([2])]), values(b))
    assert both.mask.sum(1).tolist() == [3, 3, 5] and not values(both)[:2, 3:].any()
    dropped = a.drop(torch.tensor([True, False]))
    assert dropped.mask.sum(1).tolist() == [3, 0] and values(dropped).dtype == values(a).dtype
    assert torch.equal(values(dropped)[0], values(a)[0]) and not values(dropped)[1].any()
    assert a.padded(2) is a and a.to("cpu").mask.dtype is torch.bool


def test_networks_get_the_kind_they_take() -> None:
    ids, states = TokenIds.null(2), TextEmbedding.null(2, 4)
    assert token_ids(ids) is ids and token_states(states) is states
    for check, text in ((token_ids, states), (token_states, ids), (token_ids, None)):
        with pytest.raises(ValueError, match=r"got (no text|token \w+) .*expected"):
            check(text)
    with pytest.raises(ValueError, match="int64"):
        TokenIds(torch.zeros(2, 1), ids.mask)


@pytest.mark.parametrize("name", ["text", "lowres", "aug_level", "extra", "classes"])
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


def test_dropped_classes_are_the_null_class_and_null_drops_all_that_was_told() -> None:
    a = conditioning(3, 2)
    assert a.drop_classes(torch.tensor([True, False, True])).classes.tolist() == [0, -1, 2]
    assert a.classes.tolist() == [0, 1, 2]
    null = a.null()
    assert null.classes.tolist() == [-1] * 3 and not null.text.mask.any()
    assert null.lowres is a.lowres
    assert Conditioning().drop_classes(torch.tensor([False])).null() == Conditioning()
    for wrong in (torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2)):
        with pytest.raises(ValueError, match=r"got classes .*expected \(B,\) int64"):
            Conditioning(classes=wrong)
