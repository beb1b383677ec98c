"""ADM networks: folded pixels, what they begin with, in-painting from plain weights."""

import dataclasses

import pytest
import torch

from calotype.cascade.stage import Stage
from calotype.conditioning import NULL_CLASS, Conditioning
from calotype.config.adm import AdmConfig, AdmLevel, TokensText
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError
from calotype.networks import AdmUNet
from calotype.tasks.initial import with_new_inputs

LEVELS = (AdmLevel(channels=8, blocks=1), AdmLevel(channels=16, blocks=1, attention="joined"))


def small(**changes):
    settings = {"levels": LEVELS, "head_dim": 8, "norm_groups": 4, "learned_variance": True}
    return AdmConfig(**{**settings, **changes})


def shaken(module):
    """All weights moved, as what begins at zero hides what is wrong."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_prediction_and_variance_are_images_of_their_own(fold):
    network = shaken(AdmUNet(small(fold=fold)))
    assert network.config.divisor == 2 * fold
    z, level, cond = torch.randn(2, 3, 16, 24), torch.tensor([3.0, 700.0]), Conditioning(None)
    whole = network(z, level, cond)
    assert whole.shape == (2, 6, 16, 24)
    with torch.no_grad():
        network.head[2].weight[3 * fold**2 :] = 0
        network.head[2].bias[3 * fold**2 :] = 0.5
    changed = network(z, level, cond)
    assert torch.equal(changed[:, :3], whole[:, :3])
    assert bool((changed[:, 3:] == 0.5).all())


def test_the_scale_is_of_the_prediction_alone():
    plain, scaled = AdmUNet(small(fold=2)), AdmUNet(small(fold=2, output_scale=5.0))
    scaled.load_state_dict(shaken(plain).state_dict())
    inputs = torch.randn(2, 3, 16, 16), torch.tensor([3.0, 700.0]), Conditioning(None)
    found, expected = scaled(*inputs), plain(*inputs)
    assert torch.equal(found[:, :3], 5 * expected[:, :3])
    assert torch.equal(found[:, 3:], expected[:, 3:])


def test_a_folded_pixel_stands_where_it_stood():
    """A copy of one pixel's channels from stem to head puts that pixel back in its place."""
    network = AdmUNet(small(levels=(AdmLevel(channels=12, blocks=1),), fold=2, middle="none"))
    network.through = lambda x, run: x
    network.head = torch.nn.Identity()
    with torch.no_grad():
        network.stem.weight.zero_()
        network.stem.bias.zero_()
        network.stem.weight[:, :, 1, 1] = torch.eye(12)
    z = torch.randn(1, 3, 8, 8)
    assert torch.equal(network(z, torch.zeros(1), Conditioning(None)), z)


def test_branches_begin_at_zero():
    """Guided diffusion begins with blocks that change nothing."""
    block = AdmUNet(small()).down[1][0]
    torch.manual_seed(0)
    x, embedding = torch.randn(1, 8, 4, 4), torch.randn(1, 32)
    assert torch.equal(block(x, embedding, ()), block.residual.skip(x))


@pytest.mark.parametrize(("fold", "lowres"), [(1, False), (2, False), (2, True)])
def test_in_painting_begins_as_the_plain_network(fold, lowres):
    def stage(extra):
        network = small(fold=fold, extra_channels=extra, lowres=lowres)
        smaller = 8 if lowres else None
        return shaken(Stage(StageConfig(resolution=16, network=network, lowres_resolution=smaller)))

    plain, masked = stage(0), stage(4)
    masked.load_state_dict(with_new_inputs(plain.state_dict(), masked))
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.0, 2.0])
    cond = Conditioning(None, torch.rand(2, 3, 16, 16) if lowres else None)
    known = dataclasses.replace(cond, extra=torch.rand(2, 4, 16, 16))
    expected = plain.denoiser(cond)(x, level)
    for given in (cond, known):
        found = masked.denoiser(given)(x, level)
        for part in ("x_hat", "variance_fraction"):
            ours, theirs = getattr(found, part), getattr(expected, part)
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    shaken(masked.network.stem)
    assert not torch.allclose(masked.denoiser(known)(x, level).x_hat, expected.x_hat)


def test_classes_begin_as_the_network_that_was_told_none():
    plain, told = (
        shaken(Stage(StageConfig(resolution=16, network=small(classes=n)))) for n in (0, 3)
    )
    told.load_state_dict(with_new_inputs(plain.state_dict(), told))
    x, level = torch.randn(2, 3, 16, 16), torch.tensor([0.0, 2.0])
    expected = plain.denoiser(Conditioning(None))(x, level).x_hat
    found = told.denoiser(Conditioning(None, classes=torch.tensor([2, NULL_CLASS])))(x, level).x_hat
    assert torch.equal(found, expected)


def test_text_goes_on_from_a_network_without_it():
    """What it had is copied; text modules keep their own initial values, and never by halves."""
    text = TokensText(width=8, layers=1, heads=2, context=4, vocabulary=9)
    plain = shaken(Stage(StageConfig(resolution=16, network=small())))
    reading = shaken(Stage(StageConfig(resolution=16, network=small(text_dim=1, text=text))))
    given, own = plain.state_dict(), reading.state_dict()
    filled = with_new_inputs(given, reading)
    assert filled.keys() == own.keys()
    new = filled.keys() - given.keys()
    assert any("attention.text." in name for name in new)
    for name, tensor in filled.items():
        assert torch.equal(tensor, (own if name in new else given)[name])
    some = {"network.text.norm.bias": own["network.text.norm.bias"], **given}
    assert with_new_inputs(some, reading).keys() == some.keys()


def test_a_stage_that_cannot_be_folded_is_refused():
    with pytest.raises(ConfigError, match="expected a multiple of 8"):
        StageConfig(resolution=12, network=small(fold=4))
