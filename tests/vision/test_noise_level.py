"""CLIP of noisy images: what it is told, that it is told, and a gradient at every level."""

import math

import pytest
import torch
from torch.nn import functional as F

from calotype.config.clip import (
    ClipConfig,
    ConvTowerConfig,
    ImageTowerConfig,
    NoiseConfig,
    TextTowerConfig,
)
from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.typed_json import from_dict, to_dict
from calotype.diffusion import GlobalNoise, add_noise
from calotype.diffusion.named import build_schedule
from calotype.errors import ConfigError, UsageError
from calotype.networks.clip import Clip
from calotype.vision.clip import ClipFile, ClipModel, load_clip, save_clip
from calotype.vision.noise_level import told_level, training_levels

TABLE = DiscreteScheduleConfig()
TOLD = {
    "clean": None,
    "logsnr": NoiseConfig(),
    "timestep": NoiseConfig(told="timestep", schedule=TABLE),
    "untold": NoiseConfig(told="untold", schedule="linear"),
}
VIT = ImageTowerConfig(resolution=16, patch=4, width=16, layers=2, heads=2)
CONV = ConvTowerConfig(resolution=16, patch=2, channels=(8, 16), blocks=1)
INF = math.inf


def model(told, image=VIT):
    torch.manual_seed(1)
    text = TextTowerConfig(states=8, context=6, width=16, layers=1, heads=2)
    config = ClipConfig(image=image, text=text, embed_dim=12, noise=TOLD[told])
    file = ClipFile(
        format=1, name="n", text_encoder="bytes:8", text_fingerprint="", sha256="", clip=config
    )
    network = Clip(config)
    for parameter in network.parameters():  # nothing is left at zero
        torch.nn.init.normal_(parameter, std=0.3)
    return ClipModel(file, network)


def test_the_level_is_told_as_log_snr_within_the_schedule():
    levels = torch.tensor([-INF, -8.4, -3.5, 0.0, 8.2, 8.4, INF])
    z, end = torch.zeros(7, 3, 16, 16), -2 * math.log(math.tan(math.pi * 0.01 / 2))  # 8.308
    told = told_level(TOLD["logsnr"], levels, z)
    assert told.tolist() == pytest.approx([-end, -end, -3.5, 0, 8.2, end, end], abs=1e-2)
    table = build_schedule(TABLE).table
    told = told_level(NoiseConfig(schedule=TABLE), levels[[0, 2, 6]], z[:3])
    ends = 0.01 * table[998] + 0.99 * table[989], 0.01 * table[9] + 0.99 * table[10]
    assert told.tolist() == pytest.approx([float(ends[0]), -3.5, float(ends[1])], abs=1e-1)
    clean = told_level(TOLD["logsnr"], None, z)
    assert clean.tolist() == pytest.approx([end] * 7, abs=1e-2)


def test_the_level_is_told_as_the_nearest_timestep():
    table, noise = build_schedule(TABLE).table, TOLD["timestep"]
    z = torch.zeros(1000, 3, 4, 4)
    assert torch.equal(told_level(noise, table.float(), z), torch.arange(1000))
    between = table[4] + 0.4 * (table[5] - table[4])
    told = told_level(noise, torch.tensor([INF, -INF, float(between)]), z[:3])
    assert told.tolist() == [0, 999, 4] and told.dtype == torch.int64
    assert told_level(TOLD["untold"], table, z) is told_level(None, table, z) is None


def test_timesteps_need_a_table():
    with pytest.raises(ConfigError, match=r"told='timestep' with schedule='cosine'.*no table"):
        NoiseConfig(told="timestep")


def test_training_levels_are_of_the_schedule_and_spread_over_a_batch():
    source = GlobalNoise(torch.Generator().manual_seed(0))
    levels = training_levels(TOLD["timestep"], 1000, source)
    assert torch.equal(levels.sort().values, build_schedule(TABLE).table.flip(0))
    times = build_schedule("linear").time(training_levels(TOLD["untold"], 8, source))
    assert times.sort().values.diff().tolist() == pytest.approx([0.125] * 7, abs=1e-6)


@pytest.mark.parametrize("told", ["logsnr", "timestep"])
def test_the_class_token_begins_with_the_level(told):
    """With layers that add nothing, the embedding is a closed form of it."""
    clip = model(told)
    tower = clip.network.image
    for layer in tower.layers:
        for linear in (layer.out, layer.narrow):
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
    levels = build_schedule(TABLE).table[[60, 700]].float()
    if told == "timestep":
        embedded = tower.level.weight[[60, 700]]
    else:
        hidden, last = tower.level.mlp[0], tower.level.mlp[2]
        angles = (levels[:, None] + 25) * 20 * torch.exp(-math.log(1e4) * torch.arange(128) / 128)
        features = torch.cat((angles.cos(), angles.sin()), 1)
        embedded = last(F.silu(hidden(features)))
    first = tower.norm(tower.norm_in(tower.class_token + tower.positions[0] + embedded))
    expected = F.normalize(first @ tower.out.weight.T, dim=1)
    found = clip.embed_image(torch.rand(2, 3, 16, 16), levels)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("image", [VIT, CONV], ids=["vit", "conv"])
def test_clean_images_are_those_of_no_noise(told, image):
    clip, x = model(told, image), torch.rand(3, 3, 16, 16) * 2 - 1
    clean = torch.full((3,), INF)
    assert torch.equal(add_noise(x, clean, torch.randn_like(x)), x)
    expected = clip.embed_images(x)
    assert torch.equal(clip.embed_image(x, clean), expected)
    noisy = clip.embed_image(x, torch.full((3,), -1.0))
    assert torch.equal(noisy, expected) == (told in ("clean", "untold"))
    torch.testing.assert_close(clip.embed_images(x, torch.full((3,), -1.0)), noisy)


@pytest.mark.parametrize("told", list(TOLD)[1:])
@pytest.mark.parametrize("image", [VIT, CONV], ids=["vit", "conv"])
def test_there_is_a_gradient_in_the_image_at_every_level(told, image):
    clip = model(told, image)
    levels = torch.cat(
        [build_schedule(TABLE).table[::37].float(), torch.tensor([-25.0, 25.0, INF])]
    )
    z = torch.randn(len(levels), 3, 16, 16, requires_grad=True)
    caption = clip.embed_image(torch.rand(1, 3, 16, 16), levels[:1]).detach()
    (gradient,) = torch.autograd.grad((clip.embed_image(z, levels) @ caption.T).sum(), z)
    assert gradient.isfinite().all() and (gradient.flatten(1).norm(dim=1) > 0).all()


@pytest.mark.parametrize("told", TOLD)
@pytest.mark.parametrize("image", [VIT, CONV], ids=["vit", "conv"])
def test_a_folder_is_read_as_it_was_written(told, image, tmp_path):
    written = model(told, image)
    save_clip(tmp_path / "clip", written)
    read, x = load_clip(tmp_path / "clip"), torch.rand(2, 3, 16, 16)
    assert read.file.clip == written.file.clip
    assert torch.equal(read.embed_images(x), written.embed_images(x))


def test_settings_of_before_stay_as_they_were():
    """What is new is not written at its defaults: fingerprints hang on it."""
    config = model("clean").file.clip
    data = to_dict(config)
    assert set(data) == {"image", "text", "embed_dim", "activation", "loss"}
    assert set(data["image"]) == {"resolution", "patch", "width", "layers", "heads"}
    assert from_dict(data, ClipConfig) == config


def test_a_network_says_what_it_wants_to_be_told():
    x = torch.rand(1, 3, 16, 16)
    with pytest.raises(ValueError, match="got no noise level; expected one"):
        model("logsnr").network.embed_image(x)
    with pytest.raises(ValueError, match="got a noise level; expected none"):
        model("untold").network.embed_image(x, torch.zeros(1))


def test_similarities_are_multiplied_as_the_loss_does():
    network = model("logsnr").network
    for log_scale, expected in ((3.0, math.exp(3)), (5.0, 100)):
        torch.nn.init.constant_(network.log_scale, log_scale)
        assert network.scale == pytest.approx(expected)


def test_noisy_images_have_the_size_of_the_network():
    with pytest.raises(UsageError, match="got images of 8x16 for a CLIP of 16x16"):
        model("logsnr").embed_image(torch.zeros(1, 3, 16, 8), torch.zeros(1))
