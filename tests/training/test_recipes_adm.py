"""Recipes of guided diffusion and GLIDE: published counts, chains that change what they must."""

import dataclasses

import pytest
import torch

from calotype.networks import build_network
from calotype.training.recipes import load_recipe, recipe_names

# In millions to the last digit that is published; of GLIDE's small networks, exactly.
COUNTS = {
    "adm-64": 295.9,
    "adm-256": 553.8,
    "adm-256-up": 311.8,
    "glide-64": 3554,
    "glide-256": 1642,
    "glide-small-64": 385.030726,
    "glide-small-256": 398.361286,
}
SMALL = [name for name in recipe_names() if name.startswith(("glide-emoji", "adm-emoji"))]


def training(name):
    return load_recipe(name).stages[0]


def millions(config):
    """Of a network's parameters, and of its text transformer's."""
    with torch.device("meta"):
        network = build_network(config)
    text = [] if network.text is None else network.text.parameters()
    return tuple(sum(p.numel() for p in it) / 1e6 for it in (network.parameters(), text))


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_the_published_ones(name):
    digits = len(f"{COUNTS[name]}".partition(".")[2])
    assert round(millions(training(name).stage.network)[0], digits) == COUNTS[name]


def test_glide_is_a_visual_part_and_a_text_transformer():
    whole, text = millions(training("glide-64").stage.network)
    assert (round(whole - text), round(text)) == (2238, 1316)


def test_adm_256_without_classes():
    network = dataclasses.replace(training("adm-256").stage.network, classes=0)
    assert round(millions(network)[0], 1) == 552.8


@pytest.mark.parametrize("name", SMALL)
def test_emoji_networks_are_small(name):
    stage = training(name).stage
    assert millions(stage.network)[0] < 20
    assert stage.network.learned_variance
    assert stage.network.fold == 4


@pytest.mark.parametrize("kind", ["glide", "glide-emoji"])
def test_a_chain_changes_what_it_must(kind):
    base, free, inpaint = (training(f"{kind}-64{part}") for part in ("", "-free", "-inpaint"))
    assert (base.text_dropout, free.text_dropout, inpaint.text_dropout) == (0.0, 0.2, 0.2)
    assert base.stage.network == free.stage.network
    assert dataclasses.replace(inpaint.stage.network, extra_channels=0) == base.stage.network
    same = ("schedule", "parametrization", "resolution", "lowres")
    for stage in (free.stage, inpaint.stage):
        assert all(getattr(stage, name) == getattr(base.stage, name) for name in same)
    assert base.stage.sampling.guidance_weight == 1.0 < free.stage.sampling.guidance_weight
    assert {it.text_encoder for it in (base, free, inpaint)} == {"glide:tokenizer"}
    assert {it.batch_size for it in (base, free, inpaint)} == {base.batch_size}
    assert inpaint.masks is not None and base.masks is None and free.masks is None


def test_the_finer_stage_learns_to_in_paint_with_the_same_network():
    """Its new channels aside: `--init` reads all of its weights."""
    finer, inpaint = (training(f"glide-256{part}") for part in ("", "-inpaint"))
    assert dataclasses.replace(inpaint.stage.network, extra_channels=0) == finer.stage.network
    for name in ("schedule", "parametrization", "resolution", "lowres_resolution", "lowres"):
        assert getattr(inpaint.stage, name) == getattr(finer.stage, name)
    assert inpaint.text_encoder == finer.text_encoder == "glide:tokenizer"
    assert inpaint.masks is not None and finer.masks is None


def test_the_papers_lengths():
    published = {
        "glide-64": (2048, 2_500_000),
        "glide-64-free": (2048, 500_000),
        "glide-64-inpaint": (2048, 500_000),
        "glide-256": (512, 1_600_000),
        "glide-256-inpaint": (512, 500_000),
        "glide-small-64": (2048, 1_600_000),
        "glide-small-256": (512, 400_000),
        "adm-64": (2048, 540_000),
        "adm-256": (256, 1_980_000),
        "adm-256-up": (256, 500_000),
    }
    for name, (batch, steps) in published.items():
        config = training(name)
        assert (config.batch_size, config.total_images) == (batch, batch * steps), name
    assert published.keys() == {
        name for name in recipe_names() if name.startswith(("glide", "adm")) and name not in SMALL
    }
