"""CLIP folders: ours, and those of transformers, whose numbers ours have."""

import json

import pytest
import torch

from calotype.config.clip import ClipConfig, ClipTraining, ImageTowerConfig, TextTowerConfig
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.training.recipes import load_recipe
from calotype.vision.clip import (
    EMBEDDED_GUIDE,
    EMBEDDED_JUDGE,
    ClipFile,
    ClipModel,
    load_clip,
    read_clip_file,
    save_clip,
    square,
)
from calotype.vision.transformers_clip import towers

CAPTIONS = ["a fox", "", "a red fox on the moon, seen from far away", "ab"]


def small(**changes):
    tower = {"width": 16, "layers": 2, "heads": 2}
    image = ImageTowerConfig(resolution=16, patch=4, **tower)
    text = TextTowerConfig(states=8, context=6, **tower)
    return ClipConfig(image=image, text=text, embed_dim=12, **changes)


def model(**changes):
    torch.manual_seed(1)
    config, encoder = small(**changes), ByteTextEncoder(8)
    file = ClipFile(
        format=1, name="small", text_encoder="bytes:8", text_fingerprint=encoder.fingerprint,
        sha256="", clip=config,
    )  # fmt: skip
    return ClipModel(file, Clip(config))


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("clip-vit-b-32", 151_277_313),
        ("clip-vit-l-14", 427_616_513),
        ("clip-noised-64", 428_087_553),
        ("clip-emoji", 3_788_737),
        ("clip-emoji-noised", 3_875_137),
        ("clip-emoji-judge", 4_324_353),
    ],
)
def test_presets_have_the_published_counts(name, count):
    config = load_recipe(name).stages[0]
    assert isinstance(config, ClipTraining)
    with torch.device("meta"):
        found = sum(p.numel() for p in Clip(config.clip).parameters())
    assert found == count


def test_the_noised_preset_is_that_of_the_paper():
    config = load_recipe("clip-noised-64").stages[0]
    image, noise = config.clip.image, config.clip.noise
    assert (image.resolution, image.patch, image.width, image.layers) == (64, 4, 1024, 24)
    assert config.total_images == 390_000 * config.batch_size == 390_000 * 2**15
    assert config.optimizer.weight_decay == 0.0125
    assert noise.schedule == load_recipe("glide-64").stages[0].stage.schedule


@pytest.mark.parametrize("loss", ["info_nce", "siglip"])
def test_a_folder_is_read_as_it_was_written(tmp_path, loss):
    written = model(loss=loss)
    save_clip(tmp_path / "clip", written)
    read = load_clip(tmp_path / "clip")
    x = torch.rand(3, 3, 16, 16) * 2 - 1
    assert torch.equal(read.embed_images(x), written.embed_images(x))
    assert torch.equal(read.embed_texts(CAPTIONS), written.embed_texts(CAPTIONS))
    assert read.embed_images(x).square().sum(1) == pytest.approx(torch.ones(3))
    cosines = (read.embed_images(x) * read.embed_texts(CAPTIONS[:3])).sum(1)
    assert read.scores(x, CAPTIONS[:3]) == pytest.approx(100 * cosines)
    assert len(read.fingerprint) == 64 and read.name == "small"


def test_padding_and_the_rest_of_a_batch_change_nothing():
    clip = model()
    alone = torch.cat([clip.embed_texts([caption]) for caption in CAPTIONS])
    torch.testing.assert_close(clip.embed_texts(CAPTIONS), alone, rtol=1e-5, atol=1e-6)
    assert alone.isfinite().all()  # the empty caption, too


def test_patches_that_are_left_out_are_not_looked_at():
    network = model().network
    x = torch.rand(2, 3, 16, 16)
    kept = torch.tensor([[0, 5, 7], [3, 2, 15]])
    other = x.clone()
    other[0, :, 0:4, 4:8] = 9  # patch 1 of the first image
    assert torch.equal(network.embed_image(x, None, kept), network.embed_image(other, None, kept))
    every = torch.arange(16).expand(2, -1)
    torch.testing.assert_close(network.embed_image(x, None, every), network.embed_image(x))


def test_images_of_any_size_are_cut_square():
    x = torch.rand(1, 3, 40, 20)
    assert square(x, 16).shape == (1, 3, 16, 16)
    assert torch.equal(square(x[..., :16, :16], 16), x[..., :16, :16])
    flat = torch.full((1, 3, 9, 31), 0.25)
    torch.testing.assert_close(square(flat, 16), torch.full((1, 3, 16, 16), 0.25))


def test_damaged_folders_are_refused(tmp_path):
    save_clip(tmp_path / "clip", model())
    weights = tmp_path / "clip/weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CalotypeError, match="SHA-256"):
        load_clip(tmp_path / "clip")
    with pytest.raises(UsageError, match="got CLIP"):
        load_clip(tmp_path / "none")
    file = tmp_path / "clip/clip.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 2}))
    with pytest.raises(ConfigError, match="format=2"):
        load_clip(tmp_path / "clip")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/thesis.txt").write_text("mine")
    with pytest.raises(UsageError):
        save_clip(tmp_path / "own", model())
    assert (tmp_path / "own/thesis.txt").read_text() == "mine"


def test_another_text_encoder_than_in_training_is_refused(tmp_path):
    save_clip(tmp_path / "clip", model())
    file = tmp_path / "clip/clip.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "text_encoder": "bytes:16"}))
    with pytest.raises(CalotypeError, match="text encoder 'bytes:16'"):
        load_clip(tmp_path / "clip").embed_texts(["a"])


@pytest.fixture(params=["quick_gelu", "gelu"])
def foreign(request, tmp_path):
    """A tiny CLIP as transformers saves it, with one token a character."""
    transformers = pytest.importorskip("transformers")
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    pieces.append("<|endoftext|>")
    folder = tmp_path / "tiny-clip"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(folder).save_pretrained(folder)
    sizes = {"num_attention_heads": 2, "hidden_act": request.param}
    text = transformers.CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=32, intermediate_size=128, num_hidden_layers=3,
        max_position_embeddings=20, bos_token_id=len(pieces) - 2, eos_token_id=len(pieces) - 1,
        **sizes,
    )  # fmt: skip
    vision = transformers.CLIPVisionConfig(
        hidden_size=48, intermediate_size=192, num_hidden_layers=2, image_size=24, patch_size=8,
        **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    config = transformers.CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=20
    )
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def test_transformers_folders_have_its_numbers(foreign):
    import transformers

    ours = load_clip(foreign)
    theirs = transformers.CLIPModel.from_pretrained(foreign).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(foreign)
    read = tokenizer(CAPTIONS, padding=True, truncation=True, max_length=20, return_tensors="pt")
    x = torch.rand(4, 3, 24, 24) * 2 - 1
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    with torch.no_grad():
        found = theirs(**read, pixel_values=((x + 1) / 2 - mean) / std)
    torch.testing.assert_close(ours.embed_texts(CAPTIONS), found.text_embeds, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.embed_images(x), found.image_embeds, rtol=0, atol=1e-5)
    diagonal = found.logits_per_image.diagonal() / theirs.logit_scale.exp() * 100
    torch.testing.assert_close(ours.scores(x, CAPTIONS), diagonal, rtol=0, atol=1e-3)
    assert (ours.name, len(ours.fingerprint)) == ("tiny-clip", 64)


@pytest.mark.parametrize(
    ("tower", "setting", "value", "message"),
    [
        ("vision_config", "hidden_act", "relu", "hidden_act='relu'"),
        ("text_config", "hidden_act", None, "hidden_act of both towers"),
        ("text_config", "layer_norm_eps", 0.1, "layer_norm_eps"),
        ("vision_config", "num_channels", 4, "num_channels"),
    ],
)
def test_transformers_folders_that_do_not_fit_are_refused(foreign, tower, setting, value, message):
    file = foreign / "config.json"
    config = json.loads(file.read_text())
    if value is None:
        value = "gelu" if config[tower][setting] == "quick_gelu" else "quick_gelu"
    config[tower][setting] = value
    with pytest.raises(ConfigError, match=message):
        towers(config)
    file.write_text(json.dumps(config))
    if setting != "num_channels":  # transformers refuses the weights then
        with pytest.raises(ConfigError, match=message):
            load_clip(foreign)


def test_transformers_folders_that_lack_something_are_refused(foreign):
    for name in ("vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"):
        (foreign / name).unlink(missing_ok=True)
    with pytest.raises(CalotypeError, match="tokenizer"):
        load_clip(foreign)
    (foreign / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(ConfigError, match="text_config"):
        read_clip_file(foreign)


def test_the_embedded_judge_is_of_another_kind_than_whom_it_judges():
    judge, *judged = map(load_clip, (EMBEDDED_JUDGE, EMBEDDED_GUIDE, None))
    assert judge.file.clip.image.kind == "conv" and judge.file.clip.noise is None
    assert {clip.file.clip.image.kind for clip in judged} == {"vit"}
    assert judged[0].file.clip.noise is not None
    assert len({clip.file.sha256 for clip in (judge, *judged)}) == 3
