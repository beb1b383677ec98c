"""Folders for diffusers: its own classes load them, answer as the stage does, and draw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from calotype.cascade import Cascade, Stage
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.adm import AdmConfig, AdmLevel, StatesText
from calotype.config.network import DraftConfig, LevelConfig, UNetConfig
from calotype.config.sampling import LowresConfig, SamplingConfig
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.interop import load
from calotype.interop.diffusers_export import export_to_diffusers

diffusers = pytest.importorskip("diffusers")

NETWORK = AdmConfig(
    levels=(
        AdmLevel(channels=32, blocks=1),
        AdmLevel(channels=64, blocks=1, attention="joined"),
    ),
    text_dim=16,
    text=StatesText(width=32, pool_heads=2),
    head_dim=16,
    learned_variance=True,
)


def stage_of(**changes: object) -> Stage:
    torch.manual_seed(2)
    settings = {
        "resolution": 8,
        "network": NETWORK,
        "schedule": DiscreteScheduleConfig(),
        "sampling": SamplingConfig(steps=5, ddpm_interpolation=0.0, threshold_ceiling=1.5),
    }
    stage = Stage(StageConfig(**{**settings, **changes})).eval().requires_grad_(False)
    for parameter in stage.parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    return stage


def cascade_of(*stages: Stage) -> Cascade:
    return Cascade("bytes:16", list(stages))


def larger_stage() -> Stage:
    network = AdmConfig(
        levels=(AdmLevel(channels=32, blocks=1), AdmLevel(channels=32, blocks=1)),
        text_dim=16,
        text=StatesText(width=32, pool_heads=0, norm=False),
        middle="cross",
        head_dim=16,
        lowres=True,
        aug_level=True,
        learned_variance=True,
        activation="gelu",
        embed_activation="gelu",
        skip_embed_activation=True,
        block_divisor=1.4,
    )
    lowres = LowresConfig(filter="bilinear_corners", schedule=DiscreteScheduleConfig())
    return stage_of(resolution=32, lowres_resolution=8, network=network, lowres=lowres)


@pytest.mark.parametrize("schedule", [DiscreteScheduleConfig(betas="linear"), "cosine"])
@torch.no_grad()
def test_pipelines_load_and_draw(tmp_path: Path, schedule: object) -> None:
    """diffusers' network answers as the stage's does, and its pipeline draws from the folder."""
    prediction = "v" if schedule == "cosine" else "eps"
    stage = stage_of(schedule=schedule, parametrization=prediction)
    (folder,) = export_to_diffusers(cascade_of(stage), tmp_path / "out")
    pipeline = diffusers.IFPipeline.from_pretrained(folder, watermarker=None)
    assert pipeline.text_encoder is None
    states, z = torch.randn(1, 9, 16), torch.randn(1, 3, 8, 8)
    text = TextEmbedding(states, torch.ones(1, 9, dtype=torch.bool))
    for timestep in (999, 500, 0):
        t = torch.tensor([timestep])
        found = stage.network(z, t, Conditioning(text))
        expected = pipeline.unet(z, t, encoder_hidden_states=states).sample
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    scheduler = pipeline.scheduler
    level = torch.tensor(700 / 999, dtype=torch.float64)
    kept = float(torch.sigmoid(stage.schedule.logsnr(level)))
    assert abs(float(scheduler.alphas_cumprod[700]) - kept) < 1e-5
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline(
        prompt_embeds=states,
        negative_prompt_embeds=states,
        num_inference_steps=3,
        output_type="pt",
        generator=torch.Generator().manual_seed(0),
    ).images
    assert drawn.shape == (1, 3, 8, 8) and bool(drawn.isfinite().all())


@pytest.mark.parametrize("clip", [True, False])
def test_whether_estimates_are_clipped_comes_back(tmp_path: Path, clip: bool) -> None:
    sampling = SamplingConfig(threshold_percentile=None, static_clip=clip)
    (folder,) = export_to_diffusers(cascade_of(stage_of(sampling=sampling)), tmp_path / "out")
    assert diffusers.DDPMScheduler.from_pretrained(folder / "scheduler").config.clip_sample is clip
    (found,) = load(folder, text_encoder="bytes:16").stages
    assert found.config.sampling.threshold_percentile is None
    assert found.config.sampling.static_clip is clip


def test_round_trip(tmp_path: Path) -> None:
    """What was written for diffusers is read back bit by bit, settings and weights."""
    stages = stage_of(), larger_stage()
    folders = export_to_diffusers(cascade_of(*stages), tmp_path / "out")
    found = load(*folders, text_encoder="bytes:16")
    for before, after in zip(stages, found.stages, strict=True):
        assert after.config.network == before.config.network
        assert after.config.schedule == before.config.schedule
        assert after.config.lowres == before.config.lowres
        state = after.state_dict()
        assert all(torch.equal(state[name], v) for name, v in before.state_dict().items())


@pytest.mark.parametrize(
    ("stage", "reason"),
    [
        (
            lambda: Stage(
                StageConfig(
                    resolution=8,
                    network=UNetConfig(
                        levels=(LevelConfig(channels=8, blocks=1),),
                        text_dim=16,
                        fold=2,
                        head_dim=8,
                        text_pooling="whitened_mean",
                        draft=DraftConfig(width=8, rank=4, resolution=8),
                    ),
                )
            ),
            "log-SNR.*folds 2x2 pixels.*draft.*null token",
        ),
        (lambda: stage_of(data_std=0.5), "data_std=0.5"),
        (lambda: stage_of(network=replace(NETWORK, fold=2)), "folds squares"),
        (lambda: stage_of(network=replace(NETWORK, output_scale=5.0)), "scales what it predicts"),
        (
            lambda: stage_of(
                network=AdmConfig(levels=(AdmLevel(channels=32, blocks=1),), head_dim=16)
            ),
            "states of a text encoder",
        ),
    ],
)
def test_what_diffusers_has_no_counterpart_of(tmp_path: Path, stage: object, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        export_to_diffusers(cascade_of(stage()), tmp_path / "out")
    assert not (tmp_path / "out").exists()
