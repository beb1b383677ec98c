"""The CLIP text encoder on tiny random models saved in the test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from calotype.errors import ConfigError
from calotype.text import Tokenizer, build_text_encoder
from calotype.text.clip import CLIPTextEncoder

transformers = pytest.importorskip("transformers")

CAPTIONS = ["a fox", "", "a red fox on the moon, seen from far away", "ab"]
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 20,
}


def save_clip(folder: Path, *, whole: bool) -> Path:
    """A CLIP with a byte-level tokenizer without merges: one token a character."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    ends = [letter + "</w>" for letter in letters]
    pieces = [*letters, *ends, "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    marks = {"bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1}
    text = transformers.CLIPTextConfig(vocab_size=len(pieces), **SIZES, **marks)
    torch.manual_seed(0)
    if whole:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "image_size": 8, "patch_size": 4}
        layers = {"num_hidden_layers": 1, "num_attention_heads": 2}
        vision = transformers.CLIPVisionConfig(**sizes, **layers)
        config = transformers.CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
        transformers.CLIPModel(config).save_pretrained(folder)
    else:
        transformers.CLIPTextModel(text).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("whole", [False, True])
def test_states_are_the_penultimate_layer(tmp_path: Path, whole: bool) -> None:
    encoder = build_text_encoder(f"clip:{save_clip(tmp_path, whole=whole)}")
    assert encoder is not None and encoder.embed_dim == 32 and encoder.max_tokens == 20
    text = encoder(CAPTIONS)
    assert text.mask.sum(dim=1).tolist() == [6, 0, 20, 4]
    assert text.tokens[~text.mask].abs().max() == 0
    model = transformers.CLIPTextModel.from_pretrained(tmp_path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for row in (0, 2, 3):
        ids = tokenizer(CAPTIONS[row], return_tensors="pt", truncation=True, max_length=20)
        with torch.no_grad():
            truth = model(**ids, output_hidden_states=True).hidden_states[2][0]
        assert (text.tokens[row, : len(truth)] - truth).abs().max() < 1e-5


def test_limits_and_fingerprint(tmp_path: Path) -> None:
    folder = str(save_clip(tmp_path, whole=False))
    short = CLIPTextEncoder(folder, max_tokens=5)
    assert short(CAPTIONS).tokens.shape == (4, 5, 32)
    assert short.fingerprint != CLIPTextEncoder(folder).fingerprint
    assert short(["\x00\ud800" * 9]).mask.any()
    for max_tokens in (2, 21):
        with pytest.raises(ConfigError, match="expected 3 to 20"):
            CLIPTextEncoder(folder, max_tokens=max_tokens)


def test_ids_for_a_text_tower_of_its_own(tmp_path: Path) -> None:
    """As a recipe names them: between two marks, which a cut leaves, and which "" alone has."""
    encoder = build_text_encoder(f"clip_ids:{save_clip(tmp_path, whole=False)}", max_tokens=8)
    assert isinstance(encoder, Tokenizer) and encoder.vocabulary_size == 514
    text = encoder(CAPTIONS)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for row, caption in enumerate(CAPTIONS):
        ids = tokenizer(caption, truncation=True, max_length=8)["input_ids"]
        assert text.ids[row][text.mask[row]].tolist() == ids
        assert (ids[0], ids[-1]) == (512, 513)
    assert text.mask.sum(1).tolist() == [6, 2, 8, 4]
