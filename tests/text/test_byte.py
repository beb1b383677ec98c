"""The byte encoder: fixed numbers, exact cutting, null captions."""

from __future__ import annotations

import pytest
import torch

from calotype.errors import ConfigError
from calotype.text import build_text_encoder
from calotype.text.byte import ByteTextEncoder, sinusoidal_positions


def test_the_table_is_the_same_everywhere() -> None:
    text = ByteTextEncoder(4)(["a"])
    # First row of "a" (byte 97) minus its position: pinned, for trained models depend on it.
    expected = torch.tensor([0.755311, 0.723813, 0.554992, -0.271402])
    position = torch.tensor([0.0, 0.0, 1.0, 1.0])
    assert torch.allclose(text.tokens[0, 0] - position, expected, atol=1e-6)
    table = ByteTextEncoder(64)._table
    assert abs(float(table.mean())) < 0.03 and abs(float(table.var()) - 1.0) < 0.03


def test_one_token_a_byte_and_padding_is_zero() -> None:
    encoder = ByteTextEncoder(16, max_tokens=5)
    text = encoder(["ab", "", "é!", "abcdefgh", " \n"])
    assert text.tokens.shape == (5, 5, 16)
    assert text.mask.sum(dim=1).tolist() == [2, 0, 3, 5, 0]
    assert text.tokens[~text.mask].abs().max() == 0
    assert torch.equal(text.tokens[0, :2], encoder(["ab"]).tokens[0])
    assert torch.equal(text.tokens[3], encoder(["abcde"]).tokens[0])
    assert not torch.equal(encoder(["aa"]).tokens[0, 0], encoder(["aa"]).tokens[0, 1])


def test_hostile_captions() -> None:
    encoder = ByteTextEncoder(3, max_tokens=8)
    text = encoder(["\x00", "\ud800", "赤" * 5_000_000, ""])
    assert text.mask.sum(dim=1).tolist() == [1, 1, 8, 0]
    assert encoder([""]).tokens.shape == (1, 1, 3)


def test_positions_of_odd_width() -> None:
    positions = sinusoidal_positions(7, 5)
    assert positions.shape == (7, 5)
    assert torch.allclose(positions[:, 0], torch.arange(7.0).sin(), atol=1e-6)
    assert torch.allclose(positions[:, 3], torch.arange(7.0).cos(), atol=1e-6)


def test_build_text_encoder() -> None:
    encoder = build_text_encoder("bytes:16", max_tokens=9)
    assert encoder is not None and encoder.embed_dim == 16 and encoder.max_tokens == 9
    assert encoder.fingerprint != ByteTextEncoder(16).fingerprint != ByteTextEncoder(17).fingerprint
    assert build_text_encoder("none") is None
    for spec in ("", "bytes", "bytes:", "bytes:x", "bytes:-1", "t5:", "clip", "minilm:", "none:1"):
        with pytest.raises(ConfigError, match="expected minilm"):
            build_text_encoder(spec)
    for spec in ("bytes:0", "bytes:99999"):
        with pytest.raises(ConfigError, match="expected 1 to"):
            build_text_encoder(spec)
