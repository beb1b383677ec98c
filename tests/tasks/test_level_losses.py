import json
import math

import pytest
import torch

from calotype.diffusion.noise_marks import BINS, BOUNDS
from calotype.tasks.cost import training_flops
from calotype.tasks.level_losses import loss_by_level


def test_an_image_falls_into_the_bin_of_its_level():
    ratios = (0.01, 0.1, 0.15, 0.9, 1.0, 3.0, 19.0, 20.0, 1e4)
    expected = ("<0.1", "0.1-0.2", "0.1-0.2", "0.5-1", "1-2", "2-5", "5-20", ">20", ">20")
    assert len(BINS) == len(BOUNDS) + 1 == 8
    for ratio, name in zip(ratios, expected, strict=True):
        # A hair above, for the bounds themselves: sigma/alpha comes back through a logarithm.
        logsnr = torch.tensor([-2 * math.log(ratio * (1 + 1e-12))], dtype=torch.float64)
        line = loss_by_level(torch.tensor([2.0]), logsnr)
        assert line == {"loss_by_level": {name: 2.0}, "images_by_level": {name: 1}}


def test_the_bins_sum_to_the_loss():
    generator = torch.Generator().manual_seed(0)
    losses = torch.rand(64, generator=generator, dtype=torch.float64)
    logsnr = 8 * torch.randn(64, generator=generator, dtype=torch.float64)
    line = loss_by_level(losses, logsnr)
    counts = line["images_by_level"]
    assert sum(counts.values()) == 64 and list(counts) == [n for n in BINS if n in counts]
    total = sum(line["loss_by_level"][name] * count for name, count in counts.items())
    assert total / 64 == pytest.approx(float(losses.mean()), rel=1e-6)


def test_a_loss_that_is_not_finite_stays_in_its_bin():
    line = loss_by_level(torch.tensor([float("nan"), 1.0]), torch.tensor([20.0, 0.5]))
    assert math.isnan(line["loss_by_level"]["<0.1"]) and line["loss_by_level"]["0.5-1"] == 1.0


def test_the_log_of_a_run_holds_them(train, micro_recipe, tmp_path):
    out = tmp_path / "run"
    recipe = micro_recipe(total_images=8, trackers=(), grid_images=0, validation_images=0)
    assert train(recipe, out) == 0
    assert not (out / "tensorboard").exists()
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        assert {"images", "loss", "grad_norm", "lr", "images_per_second"} <= line.keys()
        counts = line["images_by_level"]
        total = sum(line["loss_by_level"][name] * count for name, count in counts.items())
        assert sum(counts.values()) == 4
        assert total / 4 == pytest.approx(line["loss"], rel=1e-6)
        cost = training_flops(recipe.stages[0])
        assert line["flops_per_second"] == pytest.approx(cost * line["images_per_second"], rel=1e-3)
        assert 0 <= line["flops_share_of_peak"] < 1
