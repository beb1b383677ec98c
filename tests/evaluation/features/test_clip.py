"""CLIP as an extractor: the embedded one under its own name, and folders of transformers."""

import json

import pytest
import torch
from torch.nn import functional as F

from calotype.config.clip import ClipConfig, ImageTowerConfig, TextTowerConfig
from calotype.errors import CalotypeError
from calotype.evaluation.features.clip import architecture_name, load_clip_features, squash
from calotype.evaluation.features.extractor import CaptionExtractor, Classifier, load_extractor
from calotype.evaluation.features.store import caption_features
from calotype.vision.clip import load_clip


def some(count, height, width):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def test_the_embedded_one_has_its_own_name_and_numbers():
    extractor, model = load_extractor("clip"), load_clip()
    assert extractor.name == "clip-emoji" and extractor.description.startswith(
        "clip-emoji, 64 x 64"
    )
    images = some(18, 70, 90)
    expected = model.embed_images(images.float() / 127.5 - 1)
    torch.testing.assert_close(extractor(images), expected, rtol=0, atol=1e-5)
    assert isinstance(extractor, CaptionExtractor) and not isinstance(extractor, Classifier)
    assert torch.equal(extractor.embed_captions(["a fox"]), model.embed_texts(["a fox"]))


def test_cmmd_resizes_its_own_way():
    """Its code squashes without antialiasing; the results then carry another name and key."""
    plain, cmmd = load_extractor("clip"), load_extractor("clip-cmmd")
    assert cmmd.name == "clip-emoji-cmmd" and cmmd.fingerprint != plain.fingerprint
    assert cmmd.captions_fingerprint == plain.captions_fingerprint
    x = some(1, 90, 70).float()
    found = squash(x, 64)
    assert torch.equal(found, F.interpolate(x, (64, 64), mode="bicubic"))
    assert (cmmd(some(1, 90, 70)) - plain(some(1, 90, 70))).norm() > 1e-2


def tower(**changes):
    image = {"resolution": 336, "patch": 14, "width": 1024, "layers": 24, "heads": 16} | changes
    text = TextTowerConfig(width=768, layers=12, heads=12, context=77, vocabulary=49408)
    return ClipConfig(image=ImageTowerConfig(**image), text=text, embed_dim=768)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "l-14-336"),
        ({"resolution": 224}, "l-14"),
        ({"resolution": 224, "patch": 32, "width": 768}, "b-32"),
        ({"resolution": 224, "patch": 16, "width": 640}, "w640-16"),
    ],
)
def test_towers_have_names(changes, name):
    assert architecture_name(tower(**changes)) == name


@pytest.fixture
def foreign(tmp_path):
    """A tiny CLIP as transformers saves it, with one token a character and 12 places."""
    transformers = pytest.importorskip("transformers")
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    pieces.append("<|endoftext|>")
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 64, "num_attention_heads": 2}
    text = {
        "vocab_size": len(pieces), "num_hidden_layers": 2, "max_position_embeddings": 12,
        "bos_token_id": len(pieces) - 2, "eos_token_id": len(pieces) - 1, **sizes,
    }  # fmt: skip
    vision = {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8, **sizes}
    torch.manual_seed(0)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_a_folder_of_transformers_has_its_numbers(foreign, tmp_path):
    """Captions too long for the tower are cut, but keep the end mark, whose state is the caption.

    torchmetrics' CLIPScore cuts that off, too, and reads the state of some word instead.
    """
    import transformers

    extractor = load_clip_features(foreign)
    assert extractor.name == "clip-w16-8-16"
    assert extractor.description.startswith("CLIP ViT w16-8-16 (tiny), 16 x 16")
    theirs = transformers.CLIPModel.from_pretrained(foreign).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(foreign)
    captions = ["a fox", "a red fox on the moon, seen from far away"]
    full = tokenizer(captions[1])["input_ids"]
    assert len(full) > 12
    rows = [tokenizer(captions[0])["input_ids"], [*full[:11], full[-1]]]
    with torch.no_grad():
        expected = [theirs.get_text_features(torch.tensor([row])) for row in rows]
    expected = torch.cat([getattr(x, "pooler_output", x) for x in expected])
    found = caption_features(captions, extractor, tmp_path / "kept").rows()[:]
    torch.testing.assert_close(found, F.normalize(expected, dim=1), rtol=0, atol=1e-5)
    with torch.no_grad():  # cut without the mark: another vector
        wrong = theirs.get_text_features(torch.tensor([full[:12]]))
    wrong = F.normalize(getattr(wrong, "pooler_output", wrong), dim=1)
    assert (wrong - found[1]).norm() > 1e-2


def test_settings_are_part_of_the_fingerprint(foreign):
    before = load_clip_features(foreign)
    file = foreign / "config.json"
    config = json.loads(file.read_text())
    for part in ("text_config", "vision_config"):
        config[part]["hidden_act"] = "gelu"
    file.write_text(json.dumps(config))
    after = load_clip_features(foreign)
    assert after.fingerprint != before.fingerprint
    assert (after(some(1, 16, 16)) - before(some(1, 16, 16))).norm() > 1e-6


def test_pickles_are_refused(foreign):
    (foreign / "model.safetensors").rename(foreign / "pytorch_model.bin")
    with pytest.raises(CalotypeError, match="tiny") as raised:
        load_clip_features(foreign)
    assert "\n" not in str(raised.value)
