import pytest
import torch

from calotype.conditioning import TokenIds
from calotype.config.adm import TokensText
from calotype.errors import ConfigError, UsageError
from calotype.tasks.captions import build_encoder, caption_statistics, embed_ahead
from calotype.tasks.tokenizers import build_tokenizer
from calotype.text import build_text_encoder
from calotype.text.store import embed_captions

TOWER = TokensText(width=8, layers=1, heads=1)
CAPTIONS = ["a cat", "two dogs", "", "a house by the sea", "x"]


def test_statistics_are_those_of_the_mean_states():
    encoder = build_text_encoder("bytes:8")
    pooled = []
    for caption in CAPTIONS:
        text = encoder([caption])
        if text.mask.any():
            pooled.append(text.tokens[0][text.mask[0]].double().mean(0))
    pooled = torch.stack(pooled)
    mean, covariance = caption_statistics(encoder, [*CAPTIONS, "a cat"])  # once each
    torch.testing.assert_close(mean, pooled.mean(0))
    torch.testing.assert_close(covariance, torch.cov(pooled.T, correction=0))


def test_too_few_captions_have_no_statistics():
    encoder = build_text_encoder("bytes:8")
    assert caption_statistics(encoder, ["", "one"]) is None


def test_embedding_ahead_gives_what_the_encoder_gives(tmp_path):
    encoder = build_text_encoder("bytes:8")
    store = embed_ahead(encoder, CAPTIONS, folder=tmp_path)
    assert store.missing(CAPTIONS) == []
    text, expected = store[CAPTIONS], encoder(CAPTIONS)
    torch.testing.assert_close(text.tokens, expected.tokens, rtol=1e-3, atol=1e-3)
    assert torch.equal(text.mask, expected.mask)


def test_a_missing_caption_is_computed_or_refused(tmp_path):
    encoder = build_text_encoder("bytes:8")
    computing = embed_ahead(encoder, ["a"], folder=tmp_path / "a")
    assert len(computing[["never seen"]]) == 1
    refusing = embed_ahead(encoder, ["a"], folder=tmp_path / "b", missing="refuse")
    with pytest.raises(LookupError):
        refusing[["never seen"]]


def test_encoder_and_network_must_fit():
    with pytest.raises(ConfigError, match="states of 16 channels"):
        build_encoder("bytes:8", 16)
    with pytest.raises(ConfigError, match="makes nothing"):
        build_encoder("none", 16)
    with pytest.raises(ConfigError, match="states of 1 channels; expected token ids"):
        build_tokenizer("bytes:1", TOWER)


def test_ids_go_past_the_store(tmp_path, monkeypatch):
    """A network with a text tower of its own is trained on the tokenizer's numbers, all exact."""
    numbers = TokenIds(torch.tensor([[50256]]), torch.ones(1, 1, dtype=torch.bool))

    class Ids:
        vocabulary_size, max_tokens, fingerprint, spec = 50257, 128, "f" * 64, "ids"

        def __call__(self, captions):
            return numbers

    for place in ("captions", "tokenizers"):
        monkeypatch.setattr(f"calotype.tasks.{place}.build_text_encoder", lambda *_, **__: Ids())
    assert build_tokenizer("glide:here", TOWER)(["a"]).ids.item() == 50256
    with pytest.raises(ConfigError, match="makes token ids; expected states of 1"):
        build_encoder("glide:here", 1)
    with pytest.raises(UsageError, match="'ids', which makes token ids"):
        embed_captions(Ids(), ["a"], folder=tmp_path)
    assert not any(tmp_path.iterdir())
