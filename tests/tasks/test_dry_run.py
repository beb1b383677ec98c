import dataclasses

import pytest

import calotype.tasks.dry_run as module
from calotype.config.diffusion import DraftTrainingConfig
from calotype.config.network import LevelConfig, UNetConfig
from calotype.config.recipe import Recipe
from calotype.networks import build_network
from calotype.tasks.dry_run import dry_run
from calotype.training.recipes import load_recipe


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.01)


def test_counts_of_tiny():
    recipe = load_recipe("tiny")
    rows = dry_run(recipe)
    assert [row.resolution for row in rows] == [8, 16, 32]
    for row, config in zip(rows, recipe.stages, strict=True):
        network = build_network(config.stage.network)
        assert row.parameters == sum(p.numel() for p in network.parameters())
        assert row.state_bytes == 20 * row.parameters
        assert row.measured and row.images_per_second > 0
        # A backward pass costs twice a forward pass, less what no gradient is needed for.
        assert 2.5 < row.training_flops / row.forward_flops <= 3.0


def test_flops_and_memory_grow_with_the_image(micro):
    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    rows = []
    for side in (8, 16):
        config = micro()
        stage = dataclasses.replace(config.stage, resolution=side, network=network)
        config = dataclasses.replace(config, stage=stage, text_encoder="none")
        rows += dry_run(Recipe(name="x", stages=(config,)))
    assert rows[1].forward_flops / rows[0].forward_flops == pytest.approx(4, rel=0.05)
    assert 3 < rows[1].activation_bytes_per_image / rows[0].activation_bytes_per_image <= 4


def test_networks_too_large_to_run_are_estimated(monkeypatch):
    monkeypatch.setattr(module, "MEASURED_UP_TO", 1000)
    row = dry_run(load_recipe("tiny"))[0]
    assert not row.measured and row.hours > 0


def test_crops_are_what_counts():
    row = dry_run(load_recipe("emoji-256"))[0]
    assert (row.resolution, row.trained_size) == (256, 128)


def test_the_draft_is_counted_apart(micro):
    training = DraftTrainingConfig(images=1000, folds=3, fold_images=200, batch_size=8)
    config = micro(with_draft=True, draft=training)
    (row,) = dry_run(Recipe(name="x", stages=(config,)))
    assert row.draft_images == 1600 and row.draft_hours > 0
    network = build_network(config.stage.network)
    frozen = sum(p.numel() for p in network.draft.parameters())
    buffers = sum(b.nbytes for b in network.buffers())
    assert buffers > network.draft.basis.numel()  # 8 bits a number
    assert row.state_bytes == 20 * (row.parameters - frozen) + 8 * frozen + 2 * buffers
    wide = dataclasses.replace(config.stage.network.draft, rank=50)
    network = dataclasses.replace(config.stage.network, draft=wide)
    stage = dataclasses.replace(config.stage, network=network)
    (ranked,) = dry_run(Recipe(name="x", stages=(dataclasses.replace(config, stage=stage),)))
    assert ranked.activation_bytes_per_image == row.activation_bytes_per_image
    (plain,) = dry_run(Recipe(name="x", stages=(micro(),)))
    assert (plain.draft_images, plain.draft_hours) == (0, 0.0)
