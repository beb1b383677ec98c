"""Holes of training are as large, as frequent and of the shape that was asked for."""

import dataclasses

import pytest
import torch

from calotype.config.masks import HolesConfig, MasksConfig
from calotype.config.network import UNetConfig
from calotype.diffusion import CosineSchedule
from calotype.errors import ConfigError
from calotype.tasks.masks import NUMBERS, known_masks, some_holes
from calotype.tasks.random_numbers import step_numbers

NONE = {kind: HolesConfig(fraction=0.0) for kind in ("boxes", "strokes", "borders", "silhouettes")}
KINDS = sorted(NONE)


def only(kind, **area):
    return MasksConfig(**{**NONE, "whole": 0.0, kind: HolesConfig(fraction=1.0, **area)})


def uniform(count, seed=0):
    return torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(seed))


def disc(count, height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    inside = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < (height / 6) ** 2
    return inside.float().expand(count, 1, height, width)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(16, 16), (64, 64), (48, 96)])
def test_holes_have_the_area_that_was_asked_for(kind, size):
    config = only(kind, smallest=0.2, largest=0.5)
    numbers = uniform(200)
    mask = known_masks(config, numbers, disc(200, *size))
    hidden = 1 - mask.float().mean((1, 2, 3))
    wanted = 0.2 + 0.3 * numbers[:, 1]
    line = 4 / min(size)  # equal scores go together: at most a line on each of four sides
    assert float((hidden - wanted).min()) >= -0.5 / (size[0] * size[1])
    assert float((hidden - wanted).max()) <= line
    assert float((hidden - wanted).mean()) <= line / 3


def test_kinds_come_as_often_as_the_fractions_say():
    config = MasksConfig(
        whole=0.4,
        boxes=HolesConfig(fraction=0.3, smallest=0.1, largest=0.1),
        strokes=HolesConfig(fraction=0.0),
        borders=HolesConfig(fraction=0.2, smallest=0.5, largest=0.5),
        silhouettes=HolesConfig(fraction=0.1, smallest=0.2, largest=0.2),
    )
    hidden = 1 - known_masks(config, uniform(4000), disc(4000, 16, 16)).float().mean((1, 2, 3))
    for fraction, low, high in (
        (0.4, 0.99, 1),
        (0.3, 0.09, 0.14),
        (0.2, 0.45, 0.8),
        (0.1, 0.18, 0.3),
    ):
        found = float(((hidden >= low) & (hidden <= high)).float().mean())
        assert found == pytest.approx(fraction, abs=0.03)
    assert bool((some_holes(config, disc(400, 16, 16), seed=1).flatten(1).any(1)).all())


def test_a_box_is_a_rectangle_and_a_border_touches_the_edge():
    boxes = ~known_masks(only("boxes"), uniform(100), disc(100, 32, 32))[:, 0]
    for box in boxes:
        assert bool(box[box.any(1)][:, box.any(0)].all())
    known = known_masks(only("borders"), uniform(100), disc(100, 32, 32))[:, 0]
    sides = torch.stack((known[:, 0], known[:, -1], known[:, :, 0], known[:, :, -1]), 1)
    touched = (~sides.any(2)).sum(1)
    assert set(touched.tolist()) == {1, 2, 4}
    for part in known:  # what is left is a rectangle
        assert bool(part[part.any(1)][:, part.any(0)].all())


def test_a_silhouette_hides_what_the_image_shows_and_grows_round_it():
    alpha = disc(50, 32, 32)
    mask = known_masks(only("silhouettes", smallest=0.01, largest=0.3), uniform(50), alpha)
    assert not bool((mask & (alpha > 0)).any())
    far = torch.zeros(50, 1, 64, 64)
    far[:, :, 30:34, 30:34] = 1
    grown = ~known_masks(only("silhouettes", smallest=0.2, largest=0.2), uniform(50), far)
    rows = grown[0, 0].any(1).nonzero()
    assert 63 / 2 - 1 <= float(rows.float().mean()) <= 63 / 2 + 1  # evenly to all sides
    assert not bool(known_masks(only("silhouettes"), uniform(9), torch.ones(9, 1, 8, 8)).any())
    nothing = known_masks(only("silhouettes"), uniform(9), torch.zeros(9, 1, 8, 8))
    assert bool(nothing.all())  # an image of nothing has nothing to hide


def test_a_row_is_masked_the_same_in_any_batch():
    numbers, alpha = uniform(64), disc(64, 16, 24)
    whole = known_masks(MasksConfig(), numbers, alpha)
    for rows in (slice(0, 1), slice(7, 40), slice(1, 64, 2)):
        assert torch.equal(known_masks(MasksConfig(), numbers[rows], alpha[rows]), whole[rows])


def test_masks_change_no_other_number_of_a_step(micro):
    plain = micro()
    network = dataclasses.replace(plain.stage.network, extra_channels=4)
    stage = dataclasses.replace(plain.stage, network=network)
    masked = dataclasses.replace(plain, stage=stage, masks=MasksConfig())
    shape = torch.Size((8, 3, 4, 4))
    a, b = (step_numbers(c, CosineSchedule(), 40, shape=shape) for c in (plain, masked))
    assert a.masks is None and b.masks.shape == (8, NUMBERS)
    for name in ("eps", "logsnr", "keep"):
        assert torch.equal(getattr(a, name), getattr(b, name))


def test_bad_settings_are_refused(micro):
    with pytest.raises(ConfigError, match=r"add up to 1\.2"):
        MasksConfig(whole=0.5)
    with pytest.raises(ConfigError, match="largest"):
        HolesConfig(fraction=0.1, smallest=0.5, largest=0.4)
    with pytest.raises(ConfigError, match="extra_channels=0"):
        micro(masks=MasksConfig())
    assert isinstance(micro().stage.network, UNetConfig)
