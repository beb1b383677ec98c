"""The real T5 code paths, on tiny random models saved in the test and loaded as any other."""

from __future__ import annotations

import io
import json
import os
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from calotype.errors import CalotypeError, ConfigError
from calotype.text import build_text_encoder
from calotype.text.t5 import T5TextEncoder

transformers = pytest.importorskip("transformers")

SIZES = {"d_model": 24, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 3}
CAPTIONS = ["a red fox", "a slice of pizza on a light blue background", "", "赤い狐", "   "]


def save_unigram_tokenizer(folder: Path) -> int:
    """A small tokenizer of T5's kind (Unigram, </s> at the end); returns its size."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    letters = "abcdefghijklmnopqrstuvwxyz赤い狐"
    pieces = ["<pad>", "</s>", "<unk>", "▁a", "▁red", "▁fox", "▁", *letters]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(len(piece) < 2)) for piece in pieces], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    end = [("</s>", 1)]
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=end)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return len(pieces)


def save_t5(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    if kind == "byt5":
        transformers.ByT5Tokenizer().save_pretrained(folder)
        config = transformers.T5Config(vocab_size=384, feed_forward_proj="gated-gelu", **SIZES)
        transformers.T5EncoderModel(config).save_pretrained(folder)
        return folder
    vocabulary = save_unigram_tokenizer(folder)
    if kind == "mt5":
        config = transformers.MT5Config(vocab_size=vocabulary, **SIZES)
        transformers.MT5EncoderModel(config).save_pretrained(folder)
    elif kind == "umt5":
        config = transformers.UMT5Config(vocab_size=vocabulary, **SIZES)
        transformers.UMT5EncoderModel(config).save_pretrained(folder)
    else:  # with a decoder, as published
        config = transformers.T5Config(vocab_size=vocabulary, decoder_start_token_id=0, **SIZES)
        transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["t5", "mt5", "umt5", "byt5"])
def test_states_are_the_models_own(tmp_path: Path, kind: str) -> None:
    encoder = build_text_encoder(f"t5:{save_t5(tmp_path, kind)}")
    assert encoder is not None and encoder.embed_dim == 24
    text = encoder(CAPTIONS)
    assert text.mask.any(dim=1).tolist() == [True, True, False, True, False]
    assert text.tokens[~text.mask].abs().max() == 0
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    model = transformers.AutoModel.from_pretrained(tmp_path).get_encoder().eval()
    for row in (0, 1, 3):
        with torch.no_grad():
            truth = model(**tokenizer(CAPTIONS[row], return_tensors="pt")).last_hidden_state[0]
        assert int(text.mask[row].sum()) == len(truth)
        assert (text.tokens[row, : len(truth)] - truth).abs().max() < 1e-5


def test_hostile_and_long_captions(tmp_path: Path) -> None:
    encoder = T5TextEncoder(str(save_t5(tmp_path, "byt5")), max_tokens=700)
    text = encoder(["\x00", "\ud800 fox", "赤" * 3_000_000])
    assert text.mask.sum(dim=1).tolist() == [2, 6, 700]  # bytes and </s>
    assert bool(torch.isfinite(text.tokens).all())
    assert encoder(["", " "]).tokens.shape == (2, 1, 24)


def test_fingerprint_follows_what_decides_the_numbers(tmp_path: Path) -> None:
    folder = save_t5(tmp_path / "a", "t5")
    one = T5TextEncoder(str(folder))
    before = one.fingerprint
    one(CAPTIONS)  # calling sets the tokenizer's cutting: it must not count
    again = T5TextEncoder(str(save_t5(tmp_path / "b", "t5")))
    again(CAPTIONS)
    assert again.fingerprint == before
    assert T5TextEncoder(str(folder), max_tokens=9).fingerprint != before
    assert T5TextEncoder(str(folder), dtype=torch.bfloat16).fingerprint != before
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.shared.weight[0, 0] += 1
    model.save_pretrained(folder)
    assert T5TextEncoder(str(folder)).fingerprint != before


def test_bfloat16_is_near(tmp_path: Path) -> None:
    folder = str(save_t5(tmp_path, "t5"))
    a, b = T5TextEncoder(folder)(CAPTIONS), T5TextEncoder(folder, dtype=torch.bfloat16)(CAPTIONS)
    assert b.tokens.dtype is torch.float32
    assert (a.tokens - b.tokens).abs().max() < 0.1 * a.tokens.abs().max()


def test_errors_are_one_line_and_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CalotypeError, match="hf download nobody/no-such-model") as absent:
        T5TextEncoder("nobody/no-such-model")
    folder = save_t5(tmp_path, "t5")
    with pytest.raises(ConfigError, match="max_tokens of t5: got 1"):
        T5TextEncoder(str(folder), max_tokens=1)
    with pytest.raises(ConfigError, match="float16"):
        T5TextEncoder(str(folder), dtype=torch.float16)
    with pytest.raises(ConfigError, match="type 't5', expected one of"):
        build_text_encoder(f"clip:{folder}")
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CalotypeError, match="cannot read its weights") as broken:
        T5TextEncoder(str(folder))
    assert "http" not in str(absent.value) and str(absent.value).endswith("`")
    assert "\n" not in str(absent.value) + str(broken.value)


@pytest.mark.parametrize("where", ["config.json", "tokenizer_config.json"])
def test_8_code_in_a_model_folder_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """transformers would ask whether to run it, and a pipe can say yes."""
    folder, canary = save_t5(tmp_path / "encoder", "t5"), tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').write('run')\n"
    (folder / "stranger.py").write_text(code + "class Stranger: pass\n")
    settings = json.loads((folder / where).read_text())
    settings["auto_map"] = {
        "AutoConfig": "stranger.Stranger",
        "AutoModel": "stranger.Stranger",
        "AutoTokenizer": ["stranger.Stranger", "stranger.Stranger"],
    }
    settings |= {"model_type": "stranger"} if where == "config.json" else {}
    settings |= {"tokenizer_class": "Stranger"} if where != "config.json" else {}
    (folder / where).write_text(json.dumps(settings))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    with suppress(CalotypeError, ConfigError):
        build_text_encoder(f"t5:{folder}")(["a cat"])
    assert not canary.exists()


def test_8_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = save_t5(tmp_path / "encoder", "t5")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    torch.save(load_file(tmp_path / "model.safetensors"), folder / "pytorch_model.bin")
    with pytest.raises(CalotypeError, match="cannot read its weights"):
        build_text_encoder(f"t5:{folder}")(["a cat"])


def test_21_a_fifo_in_an_encoders_folder_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(CalotypeError, match=r"is a FIFO; expected a regular file"):
        build_text_encoder(f"t5:{tmp_path}")
