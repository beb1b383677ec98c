"""Sharpness in closed form; stages that must win, tie or lose against bicubic."""

import math
from itertools import pairwise

import pytest
import torch

from calotype.cascade import Cascade
from calotype.data.resize import area_resize
from calotype.errors import UsageError
from calotype.evaluation.superresolution import (
    RealImage,
    compare_with_bicubic,
    edge_contrast,
)


def test_edge_contrast_sees_blur():
    sharp = torch.full((1, 3, 32, 32), 1.0)
    sharp[..., 16:] = -1
    blurred = torch.nn.functional.avg_pool2d(sharp, 3, 1, 1, count_include_pad=False)
    assert edge_contrast(sharp) == pytest.approx(2.0)
    assert edge_contrast(blurred) == pytest.approx(2 / 3, rel=0.01)
    assert edge_contrast(torch.zeros(2, 3, 8, 8)) == 0


def images(count):
    generator = torch.Generator().manual_seed(3)
    return [
        RealImage(torch.rand((3, 16, 16), generator=generator) * 2 - 1, "a bar, noto style")
        for _ in range(count)
    ]


@pytest.fixture()
def oracle(cascade, monkeypatch):
    """The cascade, whose 16 pixel stage samples what `wanted` says of its low-resolution input."""

    def replace_stage(wanted):
        seen = []

        def sample(self, lowres, captions, *, seeds, stop_at, sampling, tiling):
            seen.append((tuple(lowres.shape), sampling[stop_at].steps, sampling[stop_at].aug_level))
            from calotype.cascade import CascadeSample

            return CascadeSample((wanted(lowres),), tuple(seeds))

        monkeypatch.setattr(Cascade, "upscale", sample)
        return seen

    return replace_stage


def test_bicubic_against_itself_ties(cascade, oracle):
    from calotype.diffusion import upsample_lowres

    seen = oracle(lambda lowres: upsample_lowres(lowres, 16))
    compared = compare_with_bicubic(cascade, 16, images(5), steps=(1, 4))
    assert [r.psnr for r in compared.results] == pytest.approx([compared.bicubic] * 2)
    assert [r.better for r in compared.results] == [0, 0]
    assert compared.images == 5
    # conditioned as clean
    assert seen == [((5, 3, 8, 8), 1, 0.0), ((5, 3, 8, 8), 4, 0.0)]


def test_a_better_stage_wins(cascade, oracle):
    real = images(3)
    known = torch.stack([item.image for item in real])
    oracle(lambda lowres: known + 0.02)
    compared = compare_with_bicubic(cascade, 16, real, steps=(2,))
    assert compared.results[0].psnr == pytest.approx(40, abs=1e-3)
    assert compared.results[0].better == 1 and compared.bicubic < 20


def test_runs_a_real_stage(cascade):
    compared = compare_with_bicubic(cascade, 32, resized(images(2), 32), steps=(1, 2))
    assert [result.steps for result in compared.results] == [1, 2]
    assert all(math.isfinite(r.psnr) and r.seconds > 0 for r in compared.results)


def resized(items, side):
    return [RealImage(area_resize(i.image[None], side)[0].clamp(-1, 1), "x") for i in items]


def test_refuses_what_cannot_be_compared(cascade):
    with pytest.raises(UsageError, match="no stage"):
        compare_with_bicubic(cascade, 8, images(1), steps=(1,))
    with pytest.raises(UsageError, match="no images"):
        compare_with_bicubic(cascade, 16, [], steps=(1,))
    assert all(a < b for a, b in pairwise(s.config.resolution for s in cascade.stages))
