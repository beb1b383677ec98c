"""Karlo, the open DALL-E 2: folders of diffusers' UnCLIPPipeline as cascades of this library.

A prior samples CLIP's embedding of the image, a decoder 64 pixels of it, and two networks enlarge
to 256: the second of them makes the last step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from calotype.cascade.prior import Prior
from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig, UnclipText
from calotype.config.prior import PriorConfig, PriorNetworkConfig
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError
from calotype.interop.safety import ForeignSettings
from calotype.interop.schedulers import SchedulerSettings, read_scheduler
from calotype.interop.stages import loaded, read_unet, text_projection_config
from calotype.interop.unet import Rule, linear_rules, rules, unclip_rules

PIPELINES = ("UnCLIPPipeline", "UnCLIPImageVariationPipeline")
# Defaults of the pipeline.
_PRIOR_STEPS, _DECODER_STEPS, _LARGER_STEPS = 25, 25, 7
_PRIOR_WEIGHT, _DECODER_WEIGHT = 4.0, 8.0
_FIXED: dict[str, tuple[Any]] = {
    "additional_embeddings": (4,),
    "dropout": (0.0,),
    "time_embed_act_fn": ("silu",),
    "norm_in_type": (None,),
    "embedding_proj_norm_type": (None,),
    "encoder_hid_proj_type": ("linear",),
    "added_emb_type": ("prd",),
    "time_embed_dim": (None,),
    "embedding_proj_dim": (None,),
    "clip_embed_dim": (None,),
}
# Fields of `PriorNetworkConfig`: their names there, and the defaults.
_NUMBERS = {
    "clip_dim": ("embedding_dim", 768),
    "heads": ("num_attention_heads", 32),
    "head_dim": ("attention_head_dim", 64),
    "layers": ("num_layers", 20),
    "context": ("num_embeddings", 77),
}


def load_stages(folder: Path) -> tuple[Stage, ...]:
    """Decoder and super-resolution of a Karlo folder; errors as in `interop.load`."""
    base, larger = read_stage_configs(folder)
    decoder, network = base.network, larger.network
    assert isinstance(decoder, AdmConfig) and isinstance(network, AdmConfig)

    decoder_rules = (folder / "decoder", rules(decoder)), (folder / "text_proj", unclip_rules())
    pair = (("first", "super_res_first"), ("last", "super_res_last"))
    larger_rules = (
        (folder / name, [Rule(f"{here}.{rule.here}", rule.there) for rule in rules(network)])
        for here, name in pair
    )
    return (
        loaded(lambda: Stage(base), *decoder_rules),
        loaded(lambda: Stage(larger), *larger_rules),
    )


def read_stage_configs(folder: Path) -> tuple[StageConfig, StageConfig]:
    """The settings of decoder and super-resolution; nothing of the weights is read."""
    resolution, decoder = read_unet(folder / "decoder")
    if not isinstance(decoder.text, UnclipText):
        raise ConfigError(f"{folder / 'decoder'} takes no CLIP embeddings; expected Karlo's")
    text_dim, text = text_projection_config(folder / "text_proj", decoder.text)
    scheduler = _scheduler(folder / "decoder_scheduler", decoder)
    base = StageConfig(
        resolution=resolution,
        network=replace(decoder, text=text, text_dim=text_dim),
        schedule=scheduler.schedule,
        parametrization=scheduler.parametrization,
        sampling=SamplingConfig(
            steps=_DECODER_STEPS,
            guidance_weight=_DECODER_WEIGHT,
            threshold_percentile=None,
            static_clip=scheduler.static_clip,
            ddpm_interpolation=scheduler.interpolation,
        ),
    )
    larger_side, network = read_unet(folder / "super_res_first")
    if read_unet(folder / "super_res_last") != (larger_side, network):
        raise ConfigError(
            f"{folder}: got super_res_first and super_res_last of different settings; expected "
            "the same network twice"
        )
    scheduler = _scheduler(folder / "super_res_scheduler", network)
    larger = StageConfig(
        resolution=larger_side,
        network=replace(network, last_step=True),
        lowres_resolution=resolution,
        lowres=LowresConfig(filter="bicubic_antialias"),
        schedule=scheduler.schedule,
        parametrization=scheduler.parametrization,
        sampling=SamplingConfig(
            steps=_LARGER_STEPS,
            threshold_percentile=None,
            static_clip=scheduler.static_clip,
            ddpm_interpolation=scheduler.interpolation,
        ),
    )
    return base, larger


def _scheduler(folder: Path, network: AdmConfig) -> SchedulerSettings:
    settings = read_scheduler(folder)
    if settings.learned_variance != network.learned_variance or settings.clip_range != 1:
        raise ConfigError(
            f"{folder}: got a variance or a clip_sample_range that does not fit the network; "
            "expected those of Karlo"
        )
    return settings


def load_prior(folder: Path) -> Prior:
    """The prior of a Karlo folder; errors as in `interop.load`."""
    config = read_prior_config(folder)
    return loaded(lambda: Prior(config), (folder / "prior", prior_rules(config.network)))


def read_prior_config(folder: Path) -> PriorConfig:
    """The settings of a prior; nothing of its weights is read."""
    data = ForeignSettings.read(folder / "prior" / "config.json")
    data.check(["PriorTransformer"], [there for there, _ in _NUMBERS.values()], _FIXED)
    scheduler = read_scheduler(folder / "prior_scheduler")
    if scheduler.parametrization != "x" or scheduler.learned_variance:
        raise ConfigError(
            f"{folder / 'prior_scheduler'}: got another prediction or variance; expected 'sample' "
            "with 'fixed_small_log'"
        )
    return PriorConfig(
        network=PriorNetworkConfig(**{here: data.whole(*of) for here, of in _NUMBERS.items()}),
        schedule=scheduler.schedule,
        steps=_PRIOR_STEPS,
        guidance_weight=_PRIOR_WEIGHT,
        clip_range=scheduler.clip_range,
    )


def prior_rules(config: PriorNetworkConfig) -> Iterator[Rule]:
    """Where each parameter of `PriorNetwork` stands in diffusers' `PriorTransformer`."""
    for here, there in (
        ("positions", "positional_embedding"),
        ("answer", "prd_embedding"),
        ("mean", "clip_mean"),
        ("std", "clip_std"),
    ):
        yield Rule(here, (there,))
    pairs: dict[str, tuple[str, ...]] = {
        "time.linear_1": ("time_embedding.linear_1",),
        "time.linear_2": ("time_embedding.linear_2",),
        "noisy": ("proj_in",),
        "text_embedding": ("embedding_proj",),
        "text_states": ("encoder_hidden_states_proj",),
        "norm": ("norm_out",),
        "head": ("proj_to_clip_embeddings",),
    }
    for index in range(config.layers):
        here, there = f"layers.{index}", f"transformer_blocks.{index}"
        pairs |= {
            f"{here}.norm1": (f"{there}.norm1",),
            f"{here}.qkv": tuple(f"{there}.attn1.to_{name}" for name in "qkv"),
            f"{here}.out": (f"{there}.attn1.to_out.0",),
            f"{here}.norm2": (f"{there}.norm3",),
            f"{here}.widen": (f"{there}.ff.net.0.proj",),
            f"{here}.narrow": (f"{there}.ff.net.2",),
        }
    for name, sources in pairs.items():
        yield from linear_rules(name, *sources)
