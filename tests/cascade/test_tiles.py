"""Tiles: weights that sum to one, denoisers that they change in closed form, or not at all."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from calotype.cascade import Cascade, Stage, StageEdit, Tiling
from calotype.cascade.find import open_cascade
from calotype.cascade.tiles import in_bands, tiled
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.network import EfficientUNetConfig, LevelConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.diffusion import Estimate, Move, PerSampleNoise, SamplerState
from calotype.diffusion.steps import Past, ancestral_step, dpmpp_2m_sde_step, dpmpp_2m_step
from calotype.errors import UsageError

LEVEL = torch.zeros(1)
TILING = Tiling(24, 8)


class Recorder(nn.Module):
    """A network that looks at each pixel alone, and keeps the shapes of all it has seen."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.shapes = []

    def bind(self, cond):
        def predict(z, logsnr):
            self.shapes.append(tuple(z.shape))
            text = 0 if cond.text is None else cond.text.tokens.mean((1, 2))[:, None, None, None]
            return torch.sin(z) * self.weight + cond.lowres.square() / 2 + text

        return predict


def pointwise_stage(**sampling):
    levels = (LevelConfig(channels=8, blocks=1),)
    settings = SamplingConfig(steps=3, threshold_percentile=None, **sampling)
    stage = Stage(
        StageConfig(
            resolution=16,
            lowres_resolution=8,
            network=EfficientUNetConfig(levels=levels, text_dim=6, head_dim=8),
            parametrization="v",
            residual=True,
            data_std=0.2,
            sampling=settings,
        )
    )
    stage.network = Recorder()
    return stage


def enlarge(stage, size, text=None, uncond_text=None, **options):
    noise = PerSampleNoise([5])
    lowres = torch.rand(1, 3, size[0] // 2, size[1] // 2) * 2 - 1
    torch.manual_seed(1)
    cond = stage.lowres_condition(lowres, text, size=size, aug_level=0.0, noise=noise)
    uncond = None if uncond_text is None else replace(cond, text=uncond_text)
    return stage.sample(cond, uncond, noise, size=size, **options)


def caption(value):
    return TextEmbedding(torch.full((1, 2, 6), value), torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("size", [(64, 64), (26, 70), (24, 40), (100, 25)])
def test_weights_sum_to_one_and_tiles_cover_all(size):
    total = torch.zeros(1, 1, *size)
    tiles = TILING.tiles(size, 1)
    for tile in tiles:
        rows, columns = tile.slices
        assert max(rows.stop - rows.start, columns.stop - columns.start) <= 24
        tile.add(torch.ones_like(tile.of(total)), total)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-6)
    starts = sorted({tile.slices[1].start for tile in tiles})
    stops = sorted({tile.slices[1].stop for tile in tiles})
    assert all(stop - start >= 8 for start, stop in zip(starts[1:], stops, strict=False))


def test_tiles_lie_on_the_networks_grid_and_are_few():
    tiles = Tiling(1152, 128).tiles((4096, 4096), 16)
    assert len(tiles) == 16
    for tile in tiles:
        for span in tile.slices:
            assert span.start % 16 == span.stop % 16 == 0 and span.stop - span.start == 1120
    assert Tiling(1152, 128).tiles((1152, 1152), 16) == []


def test_the_mean_of_two_tiles_in_closed_form():
    """One tile says 0, the other 1: the estimate is the ramp between them."""
    tiles = Tiling(24, 8).tiles((8, 40), 1)
    assert [tile.slices[1] for tile in tiles] == [slice(0, 24), slice(16, 40)]
    says = [
        lambda z, _, v=value: Estimate(torch.full_like(z, v), z * 0 + v) for value in (0.0, 1.0)
    ]
    estimate = tiled(list(zip(tiles, says, strict=True)))(torch.zeros(1, 3, 8, 40), LEVEL)
    ramp = torch.cat((torch.zeros(16), (torch.arange(8) + 0.5) / 8, torch.ones(16)))
    torch.testing.assert_close(estimate.x_hat, ramp.expand(1, 3, 8, 40))
    torch.testing.assert_close(estimate.variance_fraction, ramp.expand(1, 3, 8, 40))


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"])
def test_what_looks_at_pixels_alone_is_the_same_in_tiles(sampler):
    """Noise is the whole image's, and conditioning is cut where the tile is."""
    stage = pointwise_stage(sampler=sampler)
    torch.manual_seed(0)
    whole = enlarge(stage, (48, 80))
    torch.manual_seed(0)
    parted = enlarge(stage.in_tiles(TILING), (48, 80))
    torch.testing.assert_close(parted, whole, rtol=0, atol=2e-6)
    assert max(shape[2:] for shape in stage.network.shapes[3:][-3:]) <= (24, 24)


@pytest.mark.parametrize("interval", [None, (0.1, 5.0)])
def test_guidance_and_thresholding_see_the_whole_image(interval):
    stage = pointwise_stage(guidance_weight=3.0, guidance_interval=interval, guidance_rescale=0.7)
    sampling = replace(stage.config.sampling, threshold_percentile=0.9)
    made = []
    for one in (stage, stage.in_tiles(TILING)):
        torch.manual_seed(0)
        texts = (caption(0.4), caption(-0.4))
        made.append(enlarge(one, (48, 80), *texts, sampling=sampling))
    torch.testing.assert_close(*made, rtol=0, atol=1e-5)


def test_known_pixels_are_cut_for_each_tile():
    stage = pointwise_stage()
    seen = []
    stage._bound = lambda cond: seen.append(cond) or (lambda z, logsnr: None)  # type: ignore[method-assign]
    cond = Conditioning(None, torch.rand(1, 3, 40, 40), LEVEL, torch.rand(1, 4, 40, 40))
    view = stage.in_tiles(TILING)
    view.denoiser(cond)
    assert len(seen) == 4
    assert torch.equal(seen[3].extra, cond.extra[..., 16:, 16:])
    assert torch.equal(seen[1].lowres, cond.lowres[..., :24, 16:])


def test_one_tile_is_the_plain_path_to_the_bit(cascade):
    lowres = torch.rand(2, 3, 16, 12) * 2 - 1
    settings = SamplingConfig(steps=3, sampler="ddpm", guidance_weight=2.0, aug_level=0.1)
    options = {"seeds": [1, 2], "sampling": {32: settings}}
    plain = cascade.upscale(lowres, ["fox", "owl"], **options)
    one = cascade.upscale(lowres, ["fox", "owl"], tiling=Tiling(32, 8), **options)
    parted = cascade.upscale(lowres, ["fox", "owl"], tiling=Tiling(24, 8), **options)
    assert torch.equal(one.images[-1], plain.images[-1])
    assert not torch.equal(parted.images[-1], plain.images[-1])
    plan = cascade.plan_upscale(lowres, ["", ""], seeds=[1, 2], tiling=Tiling(32, 8))
    assert [stage.tiling for stage in plan.stages] == [None]


def test_edits_go_with_tiles(cascade):
    seen = []

    def watch(denoise):
        return lambda z, logsnr: seen.append(z.shape[2:]) or denoise(z, logsnr)

    lowres = torch.zeros(1, 3, 16, 16)
    edits = {32: StageEdit(transform=watch)}
    cascade.upscale(lowres, [""], seeds=[1], tiling=Tiling(24, 8), edits=edits)
    assert set(seen) == {(32, 32)}


@pytest.mark.parametrize("step", [ancestral_step(0.4), dpmpp_2m_step, dpmpp_2m_sde_step])
def test_bands_change_no_bit_of_a_step(step, monkeypatch):
    monkeypatch.setattr("calotype.cascade.tiles._BAND_ROWS", 5)
    z, x_hat, variance = (torch.randn(2, 3, 17, 9) for _ in range(3))
    state = SamplerState(1, torch.tensor(0.5).double(), z, Estimate(x_hat, variance.sigmoid()))
    asked = []

    def randn():
        asked.append(1)
        return torch.randn(z.shape, generator=torch.Generator().manual_seed(3))

    def unused(z, logsnr):
        raise AssertionError("a step in bands denoises nothing")

    past = Past(torch.tensor(-0.5).double(), torch.randn_like(z))
    move = Move(state, torch.tensor(1.5).double(), randn, unused, past)
    whole = step(move)
    before = len(asked)
    assert torch.equal(in_bands(step)(move), whole)
    assert len(asked) - before <= 1


def test_the_network_never_sees_more_than_a_tile():
    """So memory beside whole images does not grow with their number."""
    stage = pointwise_stage().in_tiles(TILING)
    done = []
    stage.on_tile = lambda number, count: done.append((number, count))
    enlarge(stage, (96, 48))
    assert {shape[0] for shape in stage.network.shapes} == {1}
    assert max(max(shape[2:]) for shape in stage.network.shapes) <= 24
    assert done[:18] == [(number, 18) for number in range(1, 19)] and len(done) == 3 * 18


def test_sampler_holds_no_image_longer_than_it_needs(cascade):
    """Of the levels before, the estimate of the last alone is alive when a step is taken."""
    import gc

    size, held = (1, 3, 32, 32), []

    def watch(denoise):
        def denoise_and_count(z, logsnr):
            tensors = (x for x in gc.get_objects() if type(x) is torch.Tensor)
            large = {x.data_ptr() for x in tensors if tuple(x.shape) == size}
            held.append(len(large))
            return denoise(z, logsnr)

        return denoise_and_count

    lowres = torch.zeros(1, 3, 16, 16)
    settings = SamplingConfig(steps=5, sampler="dpmpp_2m")
    options = {"edits": {32: StageEdit(transform=watch)}, "sampling": {32: settings}}
    cascade.upscale(lowres, [""], seeds=[1], tiling=Tiling(24, 8), **options)
    assert held[0] <= 2  # the enlarged image and the noise
    assert held[1:] == [held[0] + 1] * 4  # and the last estimate


def test_the_last_stage_again_is_the_same_network(model):
    folder = open_cascade(model)
    repeated = folder.repeated(256)
    assert [stage.resolution for stage in repeated.config.stages[-3:]] == [64, 128, 256]
    assert repeated.weights[256] == folder.weights[32]
    cascade = Cascade.load(repeated, stop_at=128)
    *_, last, once, twice = cascade.stages
    assert twice.network is once.network is last.network
    image = torch.rand(1, 3, 32, 24) * 2 - 1
    made = cascade.upscale(image, [""], seeds=[3], tiling=Tiling.of_stage(last.config))
    assert [tuple(one.shape) for one in made.images] == [(1, 3, 64, 48), (1, 3, 128, 96)]
    plan = cascade.plan_upscale(image, [""], seeds=[3])
    assert [stage.index for stage in plan.stages] == [3, 4]  # noise of their own


def test_a_base_is_not_repeated(model):
    folder = open_cascade(model)
    base = replace(
        folder,
        config=replace(folder.config, stages=folder.config.stages[:1]),
        file=replace(folder.file, stages=folder.file.stages[:1]),
    )
    assert base.repeated(4096) is base


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiling(24, 13), "expected an overlap from 1 to half"),
        (lambda: Tiling(24, 0), "expected an overlap from 1 to half"),
        (lambda: Tiling(24, 8).tiles((64, 64), 16), "expected at least 32"),
    ],
)
def test_tilings_that_are_none(make, message):
    with pytest.raises(UsageError, match=message):
        make()
