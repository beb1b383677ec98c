import dataclasses

import pytest
import torch

import calotype.tasks.cost as module
from calotype.cascade.stage import Stage
from calotype.config.lora import LoraConfig
from calotype.config.network import LevelConfig, UNetConfig
from calotype.tasks.cost import TrainingCost, peak_flops, training_cost, training_flops
from calotype.tasks.dry_run import dry_run
from calotype.training.recipes import load_recipe


def test_rates_are_the_images_times_their_cost():
    rates = TrainingCost(flops_per_image=2_000, peak_flops=1e6).rates(125.0)
    assert rates == {"flops_per_second": 250_000.0, "flops_share_of_peak": 0.25}


def test_a_convolution_costs_what_its_sizes_say(micro):
    """One level without attention: all is in convolutions, backward is twice forward."""
    config = micro()
    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    counts = []
    for side in (8, 16):
        stage = dataclasses.replace(config.stage, resolution=side, network=network)
        counts.append(training_flops(dataclasses.replace(config, stage=stage)))
    assert counts[1] / counts[0] == pytest.approx(4, rel=0.05)


def test_what_is_not_trained_costs_less(micro):
    whole = training_flops(micro())
    adapters = training_flops(micro(lora=LoraConfig(rank=1)))
    assert adapters < whole
    # A draft is frozen: its weights cost a forward pass, one multiplication and addition each.
    drafted = micro(with_draft=True)
    draft = Stage(drafted.stage).network.draft
    weights = sum(p.numel() for p in draft.parameters() if p.ndim > 1)
    folded = 6 * (3 * 8 * 8 * 8 + 12 * 4 * 4 * 8)  # the convolutions it comes in by, both ways
    assert whole < training_flops(drafted) <= whole + 2.1 * weights + folded


def test_the_dry_run_counts_the_same(monkeypatch):
    monkeypatch.setattr("calotype.tasks.dry_run.MEASURED_UP_TO", 0)
    monkeypatch.setattr("calotype.tasks.dry_run.peak_flops", lambda device, dtype: 1e9)
    recipe = load_recipe("tiny")
    counts = [row.training_flops for row in dry_run(recipe)]
    assert counts == [training_flops(config) for config in recipe.stages]


def test_the_peak_is_measured_once(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls = []
    monkeypatch.setattr(module, "_measure_peak", lambda *args: calls.append(args) or 5e9)
    assert peak_flops("cpu", torch.float32) == peak_flops("cpu", torch.float32) == 5e9
    assert len(calls) == 1
    peak_flops("cpu", torch.bfloat16)
    assert len(calls) == 2


def test_processes_together_reach_more(monkeypatch, micro):
    monkeypatch.setattr(module, "peak_flops", lambda device, dtype: 1e9)
    config = micro()
    one, two = (
        training_cost(config, "cpu", torch.float32, processes=processes) for processes in (1, 2)
    )
    assert (one.peak_flops, two.peak_flops) == (1e9, 2e9)
    assert one.flops_per_image == two.flops_per_image == training_flops(config)


def test_a_measurement_is_a_rate_of_this_machine(monkeypatch):
    monkeypatch.setattr(module, "_BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(module, "_MATRIX_SIDE", {"cpu": 128})
    assert 1e7 < module._measure_peak("cpu", torch.float32) < 1e15
