"""Karlo against diffusers' own classes, at reduced widths with random weights.

The widths of the published networks are those that diffusers' conversion script of Karlo has
(scripts/convert_kakao_brain_unclip_to_diffusers.py, commit 0080668); of the prior, the defaults of
diffusers' class, which that script takes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.prior import without_image
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.prior import PriorNetworkConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.errors import ConfigError
from calotype.interop import karlo, load
from calotype.interop.loading import convert
from calotype.interop.unet import read_unet_config, rules
from calotype.networks import PriorNetwork, build_network

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel  # noqa: E402
from diffusers.schedulers import scheduling_unclip  # noqa: E402

CLIP, CONTEXT, SIDE = 32, 77, 8
PRIOR = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "embedding_dim": CLIP,
    "num_embeddings": CONTEXT,
    "additional_embeddings": 4,
}
DECODER = {
    "sample_size": SIDE,
    "in_channels": 3,
    "out_channels": 6,
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "attention_head_dim": 16,
    "cross_attention_dim": 48,
    "class_embed_type": "identity",
    "resnet_time_scale_shift": "scale_shift",
}
LARGER = {
    "sample_size": 4 * SIDE,
    "in_channels": 6,
    "out_channels": 3,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 2,
    "up_block_types": ["ResnetUpsampleBlock2D"] * 2,
    "block_out_channels": [32, 64],
    "layers_per_block": 1,
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
}
SCHEDULERS = {
    "prior": {"prediction_type": "sample", "clip_sample_range": 5.0},
    "decoder": {"variance_type": "learned_range"},
    "super_res": {},
}


def random_module(module: torch.nn.Module) -> torch.nn.Module:
    for parameter in module.eval().requires_grad_(False).parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return module


def save_karlo(folder: Path) -> dict[str, torch.nn.Module]:
    """A folder of an UnCLIPPipeline without its text encoder; returns its networks."""
    torch.manual_seed(0)
    parts = {
        "prior": diffusers.PriorTransformer(**PRIOR),
        "decoder": diffusers.UNet2DConditionModel(**DECODER),
        "text_proj": UnCLIPTextProjModel(
            clip_embeddings_dim=CLIP, time_embed_dim=128, cross_attention_dim=48
        ),
        "super_res_first": diffusers.UNet2DModel(**LARGER),
        "super_res_last": diffusers.UNet2DModel(**LARGER),
    }
    for name, part in parts.items():
        random_module(part).save_pretrained(folder / name)
    for name in SCHEDULERS:
        scheduler_of(name).save_pretrained(folder / f"{name}_scheduler")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "UnCLIPPipeline"}))
    return parts


def scheduler_of(name: str, *, exact: bool = False) -> object:
    """A scheduler; `exact` takes its float32 table as it is, in float64 arithmetic."""
    scheduler = diffusers.UnCLIPScheduler(**SCHEDULERS[name])
    if exact:
        table = scheduler.alphas_cumprod.double()
        scheduler.alphas_cumprod, scheduler.one = table, table.new_ones(())
        scheduler.alphas = table / torch.cat((table.new_ones(1), table[:-1]))
        scheduler.betas = 1 - scheduler.alphas
    return scheduler


def save_encoder(folder: Path) -> torch.nn.Module:
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(x + "</w>" for x in letters), "<|startoftext|>", "<|endoftext|>"]
    place = folder / "tokenizer"
    place.mkdir()
    (place / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(pieces)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    transformers.CLIPTokenizer.from_pretrained(place, model_max_length=77).save_pretrained(place)
    torch.manual_seed(1)
    config = transformers.CLIPTextConfig(
        vocab_size=len(pieces),
        hidden_size=CLIP,
        projection_dim=CLIP,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=len(pieces) - 2,
        eos_token_id=len(pieces) - 1,
    )
    model = transformers.CLIPTextModelWithProjection(config).eval()
    model.save_pretrained(folder / "text_encoder")
    return model


def captions(*lengths: int, seed: int = 5) -> TextEmbedding:
    """CLIP's embedding and states of captions with these many tokens."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(len(lengths), 1 + CONTEXT, CLIP, generator=generator)
    mask = torch.arange(1 + CONTEXT) <= torch.tensor(lengths)[:, None]
    return TextEmbedding(tokens, mask)


class Recorded:
    """Noise that can be played again."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(11)
        self.drawn: list[Tensor] = []

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        self.drawn.append(torch.randn(tuple(shape), generator=self.generator))
        return self.drawn[-1]

    def play(self, patch: pytest.MonkeyPatch) -> Tensor:
        """Let diffusers draw the same again; returns the first draw."""
        draws = iter(self.drawn)
        first = next(draws).double()
        patch.setattr(scheduling_unclip, "randn_tensor", lambda *_, **__: next(draws).double())
        return first


def their_steps(scheduler: object, steps: int) -> list[tuple[Tensor, Tensor | None]]:
    scheduler.set_timesteps(steps)
    timesteps = list(scheduler.timesteps)
    return list(zip(timesteps, [*timesteps[1:], None], strict=True))


@torch.no_grad()
def test_prior(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = save_karlo(tmp_path)["prior"]
    prior = karlo.load_prior(tmp_path)
    assert (prior.config.steps, prior.config.guidance_weight, prior.config.clip_range) == (
        25,
        4.0,
        5.0,
    )
    text, empty, z = captions(5, 77), captions(2, 2, seed=6), torch.randn(2, CLIP)
    timestep = torch.tensor([999, 37])

    def ask(z: Tensor, t: Tensor, text: TextEmbedding) -> Tensor:
        tokens, mask = text.tokens.to(z), text.mask[:, 1:]
        return theirs(
            z, t, tokens[:, 0], encoder_hidden_states=tokens[:, 1:], attention_mask=mask
        ).predicted_image_embedding

    expected = ask(z, timestep, text)
    difference = float((prior.network.bind(text)(z, timestep) - expected).abs().max())
    print(f"Karlo prior: output difference {difference:.2e} of {float(expected.abs().max()):.2f}")
    assert difference < 1e-5

    prior, theirs, noise = prior.double(), theirs.double(), Recorded()
    theirs.causal_attention_mask = theirs.causal_attention_mask.double()
    found = prior.sample(text, empty, noise)
    z, scheduler = noise.play(monkeypatch), scheduler_of("prior", exact=True)
    both = TextEmbedding.cat(empty, text)
    for t, before in their_steps(scheduler, 25):
        away, towards = ask(torch.cat((z, z)), t, both).chunk(2)
        z = scheduler.step(away + 4.0 * (towards - away), t, z, prev_timestep=before).prev_sample
    difference = float((found - theirs.post_process_latents(z)).abs().max())
    print(f"Karlo prior: trajectory difference {difference:.2e}")
    assert difference < 1e-8


def with_image(text: TextEmbedding, image: Tensor) -> TextEmbedding:
    tokens = torch.cat((image[:, None], text.tokens), 1)
    return TextEmbedding(tokens, torch.nn.functional.pad(text.mask, (1, 0), value=True))


@torch.no_grad()
def test_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Text projection, masks, guidance and the learned variance."""
    parts = save_karlo(tmp_path)
    decoder, projection = parts["decoder"], parts["text_proj"]
    stage = karlo.load_stages(tmp_path)[0]
    text, empty, image = captions(5, 77), captions(2, 2, seed=6), torch.randn(2, CLIP)
    cond, uncond = Conditioning(with_image(text, image)), Conditioning(without_image(empty))

    def ask(z: Tensor, t: Tensor) -> Tensor:
        both = TextEmbedding.cat(empty, text)
        tokens = both.tokens.to(z)
        states, added = projection(
            image_embeddings=image.to(z),
            prompt_embeds=tokens[:, 0],
            text_encoder_hidden_states=tokens[:, 1:],
            do_classifier_free_guidance=True,
        )
        mask = torch.nn.functional.pad(both.mask[:, 1:], (4, 0), value=True)
        return decoder(
            torch.cat((z, z)),
            t,
            encoder_hidden_states=states,
            class_labels=added,
            attention_mask=mask,
        ).sample

    z, t = torch.randn(2, 3, SIDE, SIDE), torch.tensor(400)
    expected = ask(z, t)
    both = Conditioning.cat(uncond, cond)
    found = stage.network(torch.cat((z, z)), t.expand(4), both)
    difference = float((found - expected).abs().max())
    print(f"Karlo decoder: output difference {difference:.2e} of {float(expected.abs().max()):.2f}")
    assert difference < 1e-5

    stage, noise = stage.double(), Recorded()
    decoder.double(), projection.double()
    sampling = stage.config.sampling
    assert (sampling.steps, sampling.guidance_weight) == (25, 8.0)
    *_, end = stage.steps(cond, uncond, noise, size=(SIDE, SIDE))
    z, scheduler = noise.play(monkeypatch), scheduler_of("decoder", exact=True)
    for t, before in their_steps(scheduler, 25):
        away, towards = ask(z, t).chunk(2)
        towards, variance = towards.split(3, dim=1)
        eps = away[:, :3] + 8.0 * (towards - away[:, :3])
        output = torch.cat((eps, variance), 1)
        z = scheduler.step(output, t, z, prev_timestep=before).prev_sample
    difference = float((end.z - z).abs().max())
    print(f"Karlo decoder: trajectory difference {difference:.2e}")
    assert difference < 1e-8


@torch.no_grad()
def test_super_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks: the second makes the last step."""
    parts = save_karlo(tmp_path)
    stage, side = karlo.load_stages(tmp_path)[1], 4 * SIDE
    small, noise = torch.rand(2, 3, SIDE, SIDE) * 2 - 1, Recorded()
    cond = stage.lowres_condition(small, None, size=(side, side), aug_level=0.0, noise=noise)
    enlarged = torch.nn.functional.interpolate(
        small, (side, side), mode="bicubic", align_corners=False, antialias=True
    )
    torch.testing.assert_close(cond.lowres, enlarged, atol=0, rtol=0)
    for name, t in (("super_res_first", 300), ("super_res_last", 0)):
        z = torch.randn(2, 3, side, side)
        expected = parts[name](torch.cat((z, enlarged), 1), t).sample
        found = stage.network(z, torch.full((2,), t), cond)
        difference = float((found - expected).abs().max())
        print(f"Karlo {name}: output difference {difference:.2e}")
        assert difference < 1e-5

    stage, noise = stage.double(), Recorded()
    first, last = parts["super_res_first"].double(), parts["super_res_last"].double()
    *_, end = stage.steps(cond, None, noise, size=(side, side))
    assert stage.config.sampling.steps == 7
    z, scheduler = noise.play(monkeypatch), scheduler_of("super_res", exact=True)
    for t, before in their_steps(scheduler, 7):
        network = last if before is None else first
        output = network(torch.cat((z, enlarged.double()), 1), t).sample
        z = scheduler.step(output, t, z, prev_timestep=before).prev_sample
    difference = float((end.z - z).abs().max())
    print(f"Karlo super-resolution: trajectory difference {difference:.2e}")
    assert difference < 1e-8


@torch.no_grad()
def test_from_a_folder_to_an_image(tmp_path: Path) -> None:
    """Load, convert, read again: the same images; seeds decide them."""
    save_karlo(tmp_path / "karlo")
    model = save_encoder(tmp_path / "karlo")
    cascade = load(tmp_path / "karlo")
    assert cascade.prior is not None and cascade.text_encoder is not None
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "karlo" / "tokenizer")
    inputs = tokenizer(
        ["a fox", ""], padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    expected, text = model(inputs.input_ids), cascade.text_encoder(["a fox", ""])
    torch.testing.assert_close(text.tokens[:, 0], expected.text_embeds, atol=1e-6, rtol=0)
    torch.testing.assert_close(text.tokens[:, 1:], expected.last_hidden_state, atol=1e-6, rtol=0)
    assert text.mask[:, 1:].tolist() == inputs.attention_mask.bool().tolist()
    fast = {
        stage.config.resolution: SamplingConfig(**{**to_dict(stage.config.sampling), "steps": 3})
        for stage in cascade.stages
    }
    one = cascade.sample(["a fox", ""], seeds=[1, 2], sampling=fast)
    alone = cascade.sample([""], seeds=[2], sampling=fast)
    torch.testing.assert_close(one.images[-1][1:], alone.images[-1], atol=1e-4, rtol=0)
    convert([tmp_path / "karlo"], tmp_path / "out")
    found = Cascade.load(tmp_path / "out").sample(["a fox", ""], seeds=[1, 2], sampling=fast)
    torch.testing.assert_close(found.images[-1], one.images[-1], atol=1e-5, rtol=0)


def test_published_networks() -> None:
    """Names and shapes of the full decoder, super-resolution and prior, without memory."""
    widths, text = [320, 640, 960, 1280], "SimpleCrossAttn{}Block2D"
    decoder = DECODER | {
        "block_out_channels": widths,
        "layers_per_block": 3,
        "attention_head_dim": 64,
        "cross_attention_dim": 1536,
        "down_block_types": ["ResnetDownsampleBlock2D", *[text.format("Down")] * 3],
        "up_block_types": [*[text.format("Up")] * 3, "ResnetUpsampleBlock2D"],
    }
    larger = LARGER | {
        "block_out_channels": widths,
        "layers_per_block": 3,
        "down_block_types": ["ResnetDownsampleBlock2D"] * 4,
        "up_block_types": ["ResnetUpsampleBlock2D"] * 4,
    }
    for data, kind in ((decoder, "UNet2DConditionModel"), (larger, "UNet2DModel")):
        config = read_unet_config(data | {"_class_name": kind})
        with torch.device("meta"):
            theirs = getattr(diffusers, kind)(**data).state_dict()
            ours = build_network(config).state_dict()
        compare(list(rules(config)), ours, theirs, prefix="text.")
    network = PriorNetworkConfig()
    with torch.device("meta"):
        theirs = diffusers.PriorTransformer(**{**PRIOR, **full_prior()}).state_dict()
        ours = PriorNetwork(network).state_dict()
    compare(list(karlo.prior_rules(network)), ours, theirs)


def full_prior() -> dict:
    sizes = {"num_attention_heads": 32, "attention_head_dim": 64, "num_layers": 20}
    return sizes | {"embedding_dim": 768}


def compare(places: list, ours: dict, theirs: dict, *, prefix: str = "-") -> None:
    seen = set()
    for rule in places:
        parts = [tuple(theirs[there].shape) for there in rule.there]
        assert tuple(ours[rule.here].shape) == (sum(p[0] for p in parts), *parts[0][1:])
        seen |= set(rule.there)
    assert seen == set(theirs)
    assert {rule.here for rule in places} == {k for k in ours if not k.startswith(prefix)}


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("prior", {"mystery": 1}, "unknown key 'mystery'"),
        ("prior", {"added_emb_type": None}, "added_emb_type"),
        ("prior", {"num_layers": "many"}, "whole number"),
        ("prior_scheduler", {"prediction_type": "epsilon"}, "'sample'"),
    ],
)
def test_settings_without_a_counterpart_are_refused(
    tmp_path: Path, part: str, change: dict, message: str
) -> None:
    for name, data in (
        ("prior", PRIOR | {"_class_name": "PriorTransformer"}),
        ("prior_scheduler", SCHEDULERS["prior"] | {"_class_name": "UnCLIPScheduler"}),
    ):
        (tmp_path / name).mkdir()
        file = "scheduler_config.json" if "scheduler" in name else "config.json"
        changed = data | (change if name == part else {})
        (tmp_path / name / file).write_text(json.dumps(changed))
    with pytest.raises(ConfigError, match=message):
        karlo.read_prior_config(tmp_path)
