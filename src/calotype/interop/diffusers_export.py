"""Writing stages as folders of diffusers' IF pipelines, where the architecture is theirs.

diffusers' U-Nets are conditioned on whole timesteps and know no draft, no folded pixels and no null
token; a stage of this library's own networks cannot be written as one. ADM stages can.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig, StatesText
from calotype.config.network import EfficientUNetConfig, UNetConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.interop.deepfloyd import ENLARGEMENT
from calotype.interop.unet import PLAIN_BLOCKS, SAME, TEXT_BLOCKS, rules
from calotype.storage.files import new_folder, write_file

_VERSION = "0.30.0"  # of the settings' format
_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "x": "sample"}
_STEPS = 1000
_BLOCKS = {False: PLAIN_BLOCKS, True: TEXT_BLOCKS}  # down and up, by whether they attend


def export_to_diffusers(cascade: Cascade, out: Path | str) -> list[Path]:
    """Write every stage as a folder that diffusers loads; returns the folders.

    The folders hold no text encoder: give the pipelines `prompt_embeds`, or the T5 the stages were
    trained with.

    Args:
        cascade: with stages of kind "adm_unet" that take the states of a text encoder.
        out: new folder; the stages are written into "<resolution>" in it.

    Raises:
        UsageError: a stage has no counterpart in diffusers; the message says why.
    """
    for stage in cascade.stages:
        reason = _why_not(stage.config)
        if reason is not None:
            raise UsageError(
                f"the {stage.config.resolution} stage cannot be written for diffusers: {reason}"
            )
    out = Path(out)
    if out.exists():
        raise UsageError(f"{out} exists; name a new folder")
    with new_folder(out) as temporary:
        for stage in cascade.stages:
            _write_stage(stage, temporary / str(stage.config.resolution))
    return [out / str(stage.config.resolution) for stage in cascade.stages]


def _why_not(config: StageConfig) -> str | None:
    """Why diffusers has no counterpart of a stage; None if it has one."""
    network = config.network
    if isinstance(network, UNetConfig | EfficientUNetConfig):
        return _why_not_own(network)
    larger, lowres = config.lowres_resolution, config.lowres
    checks: Sequence[tuple[bool, str]] = (
        (config.residual, "it diffuses the difference to the enlarged image"),
        (config.data_std != 1, f"its images are scaled by data_std={config.data_std}"),
        (network.extra_channels > 0, "its network has further input channels for in-painting"),
        (network.output_scale != 1, "its network scales what it predicts"),
        (network.fold > 1, "its network folds squares of pixels into channels"),
        (network.classes > 0, "its network is told of classes"),
        (network.last_step, "a second network makes its last step"),
        (
            not isinstance(network.text, StatesText),
            "its network does not take the states of a text encoder, as IF pipelines do",
        ),
        (network.middle == "none", "its network has no attention in the middle"),
        (
            larger is not None and not network.aug_level,
            "its network is not conditioned on the noise of the low-resolution image",
        ),
        (
            larger is not None and config.resolution != ENLARGEMENT * larger,
            f"it does not enlarge {ENLARGEMENT} times",
        ),
        (
            larger is not None and (lowres.filter != "bilinear_corners" or lowres.schedule is None),
            "its low-resolution image is not enlarged and noised as IF pipelines do",
        ),
    )
    return next((reason for wrong, reason in checks if wrong), None)


def _why_not_own(network: UNetConfig | EfficientUNetConfig) -> str:
    parts = [f"its network ({network.kind}) gets the log-SNR, not a timestep"]
    if network.fold > 1:
        parts.append(f"folds {network.fold}x{network.fold} pixels into channels")
    if isinstance(network, UNetConfig) and network.draft is not None:
        parts.append("has a draft")
    if network.text_dim > 0:
        parts.append("joins a learned null token to the text")
    listed = ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]
    return f"{listed}; diffusers' U-Nets have nothing of it"


def _write_stage(stage: Stage, folder: Path) -> None:
    from safetensors.torch import save_file

    config = stage.config
    network = config.network
    assert isinstance(network, AdmConfig)
    larger = config.lowres_resolution is not None
    (folder / "unet").mkdir(parents=True)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file(_unet_tensors(network, stage), file, metadata={"format": "pt"})
    _write(folder / "unet" / "config.json", _unet_settings(config))
    _write(folder / "scheduler" / "scheduler_config.json", _scheduler_settings(network, stage))
    index: dict[str, Any] = {
        "_class_name": "IFSuperResolutionPipeline" if larger else "IFPipeline",
        "_diffusers_version": _VERSION,
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "requires_safety_checker": False,
    }
    empty = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor", "watermarker")
    index |= {name: [None, None] for name in empty}
    if larger:
        assert config.lowres.schedule is not None
        index["image_noising_scheduler"] = ["diffusers", "DDPMScheduler"]
        noising = _table(config.lowres.schedule) | {"_class_name": "DDPMScheduler"}
        _write(folder / "image_noising_scheduler" / "scheduler_config.json", noising)
    _write(folder / "model_index.json", index)


def _unet_tensors(config: AdmConfig, stage: Stage) -> dict[str, Tensor]:
    """The network's tensors under diffusers' names."""
    state = stage.network.state_dict()
    tensors = {}
    for rule in rules(config):
        parts = state[rule.here].detach().cpu().chunk(len(rule.there))
        for name, part in zip(rule.there, parts, strict=True):
            tensors[name] = part.clone(memory_format=torch.contiguous_format)
    return tensors


def _unet_settings(config: StageConfig) -> dict[str, Any]:
    network = config.network
    assert isinstance(network, AdmConfig) and isinstance(network.text, StatesText)
    attending = [level.attention != "none" for level in network.levels]
    embed_act = network.embed_activation
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": _VERSION,
        "sample_size": config.resolution,
        "in_channels": 6 if network.lowres else 3,
        "out_channels": 6 if network.learned_variance else 3,
        "down_block_types": [_BLOCKS[attends][0] for attends in attending],
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "up_block_types": [_BLOCKS[attends][1] for attends in reversed(attending)],
        "only_cross_attention": [level.attention == "cross" for level in network.levels],
        "mid_block_only_cross_attention": network.middle == "cross",
        "block_out_channels": [level.channels for level in network.levels],
        "layers_per_block": [level.blocks for level in network.levels],
        "resnet_time_scale_shift": "scale_shift",
        "act_fn": network.activation,
        "cross_attention_dim": network.text.width,
        "cross_attention_norm": "group_norm" if network.text.norm else None,
        "encoder_hid_dim": network.text_dim,
        "encoder_hid_dim_type": "text_proj",
        "attention_head_dim": network.head_dim,
        "class_embed_type": "timestep" if network.aug_level else None,
        "addition_embed_type": "text" if network.text.pool_heads > 0 else None,
        "addition_embed_type_num_heads": max(network.text.pool_heads, 1),
        "time_embedding_dim": network.embed_dim if network.embed_dim > 0 else None,
        "time_embedding_act_fn": None if embed_act == "none" else embed_act,
        **{there: getattr(network, here) for here, (there, _) in SAME.items()},
    }


def _scheduler_settings(network: AdmConfig, stage: Stage) -> dict[str, Any]:
    """`scheduler_config.json`; a schedule of this library's own is written out as its betas."""
    config, sampling = stage.config, stage.config.sampling
    if isinstance(config.schedule, DiscreteScheduleConfig):
        table = _table(config.schedule)
    else:
        times = torch.linspace(0, 1, _STEPS, dtype=torch.float64)
        # diffusers keeps the table in float32, where 1 - 2e-9 is 1 and makes it divide by zero.
        kept = torch.sigmoid(stage.schedule.logsnr(times)).clamp_max(1 - 1e-6)
        before = torch.cat((kept.new_ones(1), kept[:-1]))
        table = {"num_train_timesteps": _STEPS, "trained_betas": (1 - kept / before).tolist()}
    thresholding = sampling.threshold_percentile is not None
    ceiling = sampling.threshold_ceiling
    return table | {
        "_class_name": "DDPMScheduler",
        "_diffusers_version": _VERSION,
        "prediction_type": _PREDICTIONS[config.parametrization],
        "variance_type": "learned_range" if network.learned_variance else "fixed_small",
        "clip_sample": not thresholding and sampling.static_clip,
        "thresholding": thresholding,
        "dynamic_thresholding_ratio": sampling.threshold_percentile if thresholding else 0.995,
        "sample_max_value": 1e6 if ceiling is None else ceiling,
    }


def _table(schedule: DiscreteScheduleConfig) -> dict[str, Any]:
    return {
        "num_train_timesteps": schedule.steps,
        "beta_schedule": schedule.betas,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "timestep_spacing": schedule.spacing,
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, (json.dumps(data, indent=2) + "\n").encode())
