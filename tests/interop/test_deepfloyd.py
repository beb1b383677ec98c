"""DeepFloyd IF against diffusers' own classes, at reduced widths with random weights.

The published `config.json` files are gated. Stage I's widths: XL as a model card quotes them; L and
M follow from the published parameter counts (0.9 B, 0.4 B), which the test checks. Those of II and
III are not known here: theirs are widths that come near the published counts (450 M, 1.2 B, 700 M).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.cascade import Cascade, Stage
from calotype.cli import run
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop import deepfloyd, load
from calotype.interop.loading import convert
from calotype.interop.unet import read_unet_config, rules
from calotype.networks import build_network
from calotype.text import build_text_encoder

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

TEXT = ["SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D"]
PLAIN = ["ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D"]
COMMON = {
    "in_channels": 3,
    "out_channels": 6,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "attention_head_dim": 16,
    "cross_attention_dim": 64,
    "cross_attention_norm": "group_norm",
    "encoder_hid_dim": 64,
    "encoder_hid_dim_type": "text_proj",
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 64,
    "act_fn": "gelu",
    "resnet_time_scale_shift": "scale_shift",
}
LARGER = COMMON | {
    "in_channels": 6,
    "class_embed_type": "timestep",
    "time_embedding_act_fn": "gelu",
    "resnet_skip_time_act": True,
    "resnet_out_scale_factor": 1 / 0.7071,
    "mid_block_scale_factor": 1 / 0.7071,
    "only_cross_attention": True,
}
STAGES = {
    "I": COMMON
    | {
        "sample_size": 8,
        "down_block_types": [PLAIN[0], TEXT[0]],
        "up_block_types": [TEXT[1], PLAIN[1]],
        "block_out_channels": [32, 64],
        "layers_per_block": 1,
    },
    "II": LARGER
    | {
        "sample_size": 32,
        "down_block_types": [PLAIN[0], TEXT[0]],
        "up_block_types": [TEXT[1], PLAIN[1]],
        "block_out_channels": [32, 64],
        "layers_per_block": [1, 2],
        "time_embedding_dim": 96,
    },
    "III": LARGER
    | {
        "sample_size": 32,
        "down_block_types": [PLAIN[0], PLAIN[0], TEXT[0]],
        "up_block_types": [TEXT[1], PLAIN[1], PLAIN[1]],
        "block_out_channels": [32, 32, 64],
        "layers_per_block": [1, 1, 2],
    },
}
NAMES = list(STAGES)


def make_unet(name: str) -> torch.nn.Module:
    torch.manual_seed(len(name))
    unet = diffusers.UNet2DConditionModel(**STAGES[name]).eval().requires_grad_(False)
    for parameter in unet.parameters():  # norms begin as the identity: no order would matter
        parameter.add_(0.01 * torch.randn_like(parameter))
    return unet


def scheduler_of(name: str) -> object:
    return diffusers.DDPMScheduler(
        beta_schedule="squaredcos_cap_v2",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5 if name == "I" else 1.0,
    )


def save_stage(folder: Path, name: str, **options: object) -> torch.nn.Module:
    unet = make_unet(name)
    unet.save_pretrained(folder / "unet", **options)
    scheduler_of(name).save_pretrained(folder / "scheduler")
    kind = "IFPipeline" if name == "I" else "IFSuperResolutionPipeline"
    if name != "I":
        noising = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
        noising.save_pretrained(folder / "image_noising_scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return unet


def save_encoder(folder: Path) -> torch.nn.Module:
    """A tiny T5 with a tokenizer of its kind, as a pipeline's folder holds them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], 2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        "$A </s>", special_tokens=[("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder / "tokenizer")
    torch.manual_seed(3)
    sizes = {"d_model": 64, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    encoder = transformers.T5EncoderModel(transformers.T5Config(vocab_size=len(pieces), **sizes))
    encoder.eval().save_pretrained(folder / "text_encoder")
    return encoder


def captions(count: int, *, seed: int = 5) -> TextEmbedding:
    states = torch.randn(count, 77, 64, generator=torch.Generator().manual_seed(seed))
    return TextEmbedding(states, torch.ones(count, 77, dtype=torch.bool))


class Recorded:
    """Noise that can be played again."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(11)
        self.drawn: list[Tensor] = []

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        self.drawn.append(torch.randn(tuple(shape), generator=self.generator))
        return self.drawn[-1]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_network_outputs_are_theirs(tmp_path: Path, name: str) -> None:
    unet = save_stage(tmp_path, name)
    stage = deepfloyd.load_stage(tmp_path)
    side, text = STAGES[name]["sample_size"], captions(2)
    z, lowres = torch.randn(2, 3, side, side), torch.randn(2, 3, side, side)
    timesteps, aug = torch.tensor([999, 3]), torch.tensor([0.25, 0.1])
    larger = name != "I"
    for dtype, limit in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        unet, stage = unet.to(dtype), stage.to(dtype)
        expected = unet(
            (torch.cat((z, lowres), 1) if larger else z).to(dtype),
            timesteps,
            encoder_hidden_states=text.tokens.to(dtype),
            class_labels=(aug * 1000).round().long() if larger else None,
        ).sample
        cond = Conditioning(text, lowres, aug) if larger else Conditioning(text)
        found = stage.network(z.to(dtype), timesteps, cond)
        difference = float((found - expected).abs().max())
        largest = float(expected.abs().max())
        print(f"IF {name}: output difference {difference:.2e} of {largest:.2f} in {dtype}")
        assert difference < limit


@pytest.mark.parametrize(
    "name", ["I", *(pytest.param(n, marks=pytest.mark.slow) for n in ("II", "III"))]
)
@torch.no_grad()
def test_trajectories_are_theirs(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole pipeline loop, guidance, learned variance and thresholding, in float64."""
    unet = save_stage(tmp_path, name).double()
    stage = deepfloyd.load_stage(tmp_path).double()
    side, weight = STAGES[name]["sample_size"], 7.0
    text, empty = captions(2), captions(2, seed=6)
    cond, uncond, lowres = Conditioning(text), Conditioning(empty), None
    noise = Recorded()
    if name != "I":
        small = torch.rand(2, 3, side // 4, side // 4) * 2 - 1
        cond = stage.lowres_condition(small, text, size=(side, side), aug_level=0.25, noise=noise)
        uncond = Conditioning(empty, cond.lowres, cond.aug_level)
        lowres = their_lowres(small, side, noise.drawn.pop(0))
        torch.testing.assert_close(cond.lowres, lowres, atol=1e-6, rtol=0)
        lowres = cond.lowres
    sampling = SamplingConfig(
        **{**to_dict(stage.config.sampling), "steps": 9, "guidance_weight": weight}
    )
    *_, found = stage.steps(cond, uncond, noise, size=(side, side), sampling=sampling)
    assert found.z.dtype == torch.float64
    draws = iter(noise.drawn)
    monkeypatch.setattr(
        diffusers.schedulers.scheduling_ddpm,
        "randn_tensor",
        lambda *_, **__: next(draws).double(),
    )
    expected = their_loop(
        unet, scheduler_of(name), next(draws).double(), text, empty, lowres, weight
    )
    difference = float((found.z - expected).abs().max())
    print(f"IF {name}: trajectory difference {difference:.2e}")
    assert difference < 1e-8


def their_lowres(small: Tensor, side: int, noise: Tensor) -> Tensor:
    enlarged = torch.nn.functional.interpolate(
        small, (side, side), mode="bilinear", align_corners=True
    )
    noising = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return noising.add_noise(enlarged, noise, timesteps=torch.tensor([250] * len(small)))


def their_loop(
    unet: torch.nn.Module,
    scheduler: object,
    z: Tensor,
    text: TextEmbedding,
    empty: TextEmbedding,
    lowres: Tensor | None,
    weight: float,
) -> Tensor:
    """The denoising loop of diffusers' IF pipelines; its float32 table is taken as it is."""
    scheduler.set_timesteps(9)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    scheduler.one = scheduler.one.double()
    states = torch.cat((empty.tokens, text.tokens)).double()
    labels = None if lowres is None else torch.full((4,), 250)
    for t in scheduler.timesteps:
        inputs = z if lowres is None else torch.cat((z, lowres.double()), dim=1)
        output = unet(
            torch.cat((inputs, inputs)), t, encoder_hidden_states=states, class_labels=labels
        ).sample
        away, towards = output.chunk(2)
        towards, variance = towards.split(3, dim=1)
        eps = away[:, :3] + weight * (towards - away[:, :3])
        z = scheduler.step(torch.cat((eps, variance), 1), t, z).prev_sample
    return z


@torch.no_grad()
def test_the_encoder_keeps_padding(tmp_path: Path) -> None:
    """77 states, those of padding and of the empty caption among them, as the pipeline has them."""
    encoder = save_encoder(tmp_path)
    texts = ["A Red Fox ", "", "a slice of pizza"]
    found = build_text_encoder(f"t5_padded:{tmp_path}")
    assert found is not None and found.embed_dim == 64
    text = found(texts)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    inputs = tokenizer(
        [caption.lower().strip() for caption in texts],
        padding="max_length",
        max_length=77,
        truncation=True,
        return_tensors="pt",
    )
    expected = encoder(inputs.input_ids, attention_mask=inputs.attention_mask)[0]
    assert text.tokens.shape == (3, 77, 64) and bool(text.mask.all())
    torch.testing.assert_close(text.tokens, expected, atol=1e-6, rtol=0)


def test_from_folders_to_an_image(tmp_path: Path) -> None:
    """Load, convert, read again: the same images; sharded fp16 gives images, too."""
    save_stage(tmp_path / "I", "I")
    save_encoder(tmp_path / "I")
    save_stage(tmp_path / "II", "II", variant="fp16", max_shard_size="300KB")
    assert len(list((tmp_path / "II" / "unet").glob("*.safetensors"))) > 1
    cascade = load(tmp_path / "II", tmp_path / "I")
    assert [stage.config.resolution for stage in cascade.stages] == [8, 32]
    base, larger = (stage.config.sampling for stage in cascade.stages)
    assert (base.steps, base.guidance_weight) == (100, 7.0)
    assert (base.threshold_percentile, base.threshold_ceiling) == (0.95, 1.5)
    assert (larger.steps, larger.guidance_weight, larger.aug_level) == (50, 4.0, 0.25)
    fast = {
        stage.config.resolution: SamplingConfig(**{**to_dict(stage.config.sampling), "steps": 2})
        for stage in cascade.stages
    }
    expected = cascade.sample(["a fox", ""], seeds=[1, 2], sampling=fast)
    convert([tmp_path / "I", tmp_path / "II"], tmp_path / "out")
    found = Cascade.load(tmp_path / "out").sample(["a fox", ""], seeds=[1, 2], sampling=fast)
    assert found.images[-1].shape == (2, 3, 32, 32)
    for a, b in zip(found.images, expected.images, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_pickles_are_read_by_convert_alone(tmp_path: Path) -> None:
    save_stage(tmp_path / "I", "I", safe_serialization=False)
    save_encoder(tmp_path / "I")
    with pytest.raises(UsageError, match="calotype convert"):
        load(tmp_path / "I")
    assert run(["convert", str(tmp_path / "I"), "-o", str(tmp_path / "out")]) == 0
    assert isinstance(Cascade.load(tmp_path / "out").stages[0], Stage)


def full_size(stage: str, widths: list[int], blocks: int | list[int]) -> dict:
    """Stage I attends on all levels but the finest, II and III on the coarsest alone."""
    attends = [False, True, True, True] if stage == "I" else [False, False, False, True]
    return (COMMON if stage == "I" else LARGER) | {
        "sample_size": {"I": 64, "II": 256, "III": 1024}[stage],
        "block_out_channels": widths,
        "cross_attention_dim": widths[-1],
        "encoder_hid_dim": 4096,
        "attention_head_dim": 64,
        "layers_per_block": blocks,
        "down_block_types": [(TEXT if text else PLAIN)[0] for text in attends],
        "up_block_types": [(TEXT if text else PLAIN)[1] for text in reversed(attends)],
    }


@pytest.mark.parametrize(
    ("name", "widths", "blocks", "count"),
    [
        ("I-M", [192, 384, 576, 768], 3, 371.6),
        ("I-L", [320, 640, 960, 1280], 3, 935.4),
        ("I-XL", [704, 1408, 2112, 2816], 3, 4304.7),
        ("II-M", [128, 256, 512, 768], [2, 4, 6, 6], 448.5),
        ("II-L", [160, 320, 640, 1280], [2, 4, 8, 8], 1239.4),
        ("III-L", [128, 256, 512, 1024], [2, 4, 6, 6], 660.5),
    ],
)
def test_full_sizes(name: str, widths: list[int], blocks: int | list[int], count: float) -> None:
    """Names and shapes of the full networks, without memory."""
    data = full_size(name.partition("-")[0], widths, blocks)
    if not name.startswith("I-"):
        data["time_embedding_dim"] = widths[-1]
    config = read_unet_config(data | {"_class_name": "UNet2DConditionModel"})
    with torch.device("meta"):
        theirs = {k: tuple(v.shape) for k, v in diffusers.UNet2DConditionModel(**data)
                  .state_dict().items()}  # fmt: skip
        ours = {k: tuple(v.shape) for k, v in build_network(config).state_dict().items()}
    seen = set()
    for rule in rules(config):
        parts = [theirs[there] for there in rule.there]
        assert ours[rule.here] == (sum(part[0] for part in parts), *parts[0][1:])
        seen |= set(rule.there)
    assert seen == set(theirs) and {rule.here for rule in rules(config)} == set(ours)
    total = sum(torch.Size(shape).numel() for shape in ours.values())
    assert round(total / 1e6, 1) == count, name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mystery": 1}, "unknown key 'mystery'; known"),
        ({"_class_name": "AutoencoderKL"}, "known: \\['UNet2DConditionModel'"),
        ({"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "known pairs"),
        ({"block_out_channels": [32]}, "different lengths"),
        ({"block_out_channels": ["x", 64]}, "got channels='x'"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"resnet_time_scale_shift": "default"}, "scale_shift"),
        ({"in_channels": 4}, "expected 3 or 6"),
        ({"attention_head_dim": [16, 32]}, "one number"),
    ],
)
def test_settings_without_a_counterpart_are_refused(change: dict, message: str) -> None:
    data = STAGES["I"] | {"_class_name": "UNet2DConditionModel"} | change
    with pytest.raises(ConfigError, match=message):
        read_unet_config(data)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"_class_name": "StableDiffusionUpscalePipeline"}, "autoencoder"),
        ({"_class_name": "EvilPipeline"}, "known:"),
        ({}, "known:"),
    ],
)
def test_other_pipelines_are_refused(tmp_path: Path, index: dict, message: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match=message):
        load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_stage(tmp_path, "I")
    path = tmp_path / "unet" / "config.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps(data | {"encoder_hid_dim": 128}))
    with pytest.raises(CalotypeError, match="of one model"):
        deepfloyd.load_stage(tmp_path)
    path.write_text(json.dumps(data | {"layers_per_block": 2}))
    with pytest.raises(CalotypeError, match="lacks"):
        deepfloyd.load_stage(tmp_path)


def test_convert_is_what_the_cascade_names(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(UsageError, match="calotype convert"):
        Cascade.load(tmp_path)
