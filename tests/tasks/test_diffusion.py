"""What a super-resolution stage is told in a training step, all its weights or adapters."""

import dataclasses

import pytest
import torch
from torch.nn.functional import interpolate

from calotype.cascade.stage import Stage
from calotype.config.lora import LoraConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.diffusion import CosineSchedule
from calotype.tasks.captions import build_encoder
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.training.recipes import load_recipe
from calotype.training.state import TrainState
from calotype.training.step import train_step


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)])
def test_it_sees_the_real_small_image_noised_by_a_level_of_its_own(images, monkeypatch, lora):
    """Not the noisy large image once more, and never one level for all."""
    config = dataclasses.replace(load_recipe("tiny").stages[1], lora=lora)
    source = open_source(images, resolution=16, data=config.data)
    plan = BatchPlan(resolution=16, lowres_resolution=8, config=config.data, batch_size=8, seed=0)
    made = batches(source, plan, prefetch=0)
    batch = next(made)
    made.close()
    told = []
    loss = Stage.loss

    def watched(stage, x, cond, logsnr, eps, **objective):
        told.append((x, cond, logsnr, eps))
        return loss(stage, x, cond, logsnr, eps, **objective)

    monkeypatch.setattr(Stage, "loss", watched)
    text = build_encoder(config.text_encoder, 16)
    state = TrainState(
        DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32), text)
    )
    levels = []
    for _ in range(25):
        train_step(state, batch)
        x, cond, _, eps = told[-1]
        assert torch.equal(batch.lowres, x.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean((3, 5)))
        enlarged = interpolate(batch.lowres, scale_factor=2, mode="bicubic").clamp(-1, 1)
        logsnr = CosineSchedule().logsnr(cond.aug_level)[:, None, None, None]
        alpha, sigma = torch.sigmoid(logsnr).sqrt(), torch.sigmoid(-logsnr).sqrt()
        noise = (cond.lowres - alpha * enlarged) / sigma
        plain = cond.aug_level > 0.05  # below, the noise cannot be told from rounding
        assert abs(noise[plain].mean()) < 0.1 and abs(noise[plain].std() - 1) < 0.1
        correlation = (noise[plain] * eps[plain]).mean()
        assert abs(correlation) < 0.1  # noise of its own, too
        levels.append(cond.aug_level)
    every = torch.cat(levels)
    assert len(every.unique()) == 200
    assert 0 <= every.min() < 0.05 and 0.95 < every.max() <= config.aug_level_max
    assert abs(every.mean() - 0.5) < 0.08
