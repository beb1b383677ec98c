"""Networks: shapes, zero start, gradients everywhere, padding, null captions, paper sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.network import DraftConfig, EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.networks import UNet, build_network
from calotype.networks.blocks import Attention
from calotype.networks.text import WhitenedMeanPooling

TEXT_DIM = 12


def small_unet(**changes: object) -> UNetConfig:
    settings: dict[str, object] = dict(
        levels=(
            LevelConfig(channels=16, blocks=1),
            LevelConfig(channels=32, blocks=2, self_attention=True),
        ),
        text_dim=TEXT_DIM,
        fold=2,
        head_dim=8,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=16, rank=12, resolution=16),
    )
    return UNetConfig(**{**settings, **changes})  # type: ignore[arg-type]


def small_efficient(**changes: object) -> EfficientUNetConfig:
    settings: dict[str, object] = dict(
        levels=(
            LevelConfig(channels=16, blocks=1),
            LevelConfig(channels=16, blocks=2, self_attention=True),
        ),
        text_dim=TEXT_DIM,
        head_dim=8,
    )
    return EfficientUNetConfig(**{**settings, **changes})  # type: ignore[arg-type]


CASES = {
    "unet": small_unet(),
    "unet_attention_pooling": small_unet(text_pooling="attention", fold=1, draft=None),
    "unet_cross": small_unet(
        levels=(
            LevelConfig(channels=16, blocks=1),
            LevelConfig(channels=32, blocks=1, cross_attention=True),
        )
    ),
    "efficient": small_efficient(),
    "efficient_cross": small_efficient(
        levels=(
            LevelConfig(channels=16, blocks=1),
            LevelConfig(channels=16, blocks=1, cross_attention=True),
        ),
        fold=2,
        stem_channels=8,
    ),
    "unet_pooled_text": small_unet(text_tokens=False),
    "efficient_pooled_text": small_efficient(text_tokens=False),
    "efficient_recomputed": small_efficient(
        levels=(
            LevelConfig(channels=16, blocks=1, checkpoint=True),
            LevelConfig(channels=16, blocks=2, self_attention=True, checkpoint=True),
        )
    ),
}


def text(batch: int = 2, length: int = 5) -> TextEmbedding:
    tokens = torch.randn(batch, length, TEXT_DIM, dtype=torch.float64)
    return TextEmbedding(tokens, torch.ones(batch, length, dtype=torch.bool))


def inputs(config: UNetConfig | EfficientUNetConfig) -> tuple[Tensor, Tensor, Conditioning]:
    torch.manual_seed(0)
    z = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    lowres = torch.randn_like(z) if config.lowres else None
    aug_level = torch.tensor([0.1, 0.7], dtype=torch.float64) if config.lowres else None
    logsnr = torch.tensor([-3.0, 5.0], dtype=torch.float64)
    return z, logsnr, Conditioning(text(), lowres, aug_level)


def awake(config: UNetConfig | EfficientUNetConfig) -> nn.Module:
    """A network whose zero-initialised layers are not zero, as after training."""
    torch.manual_seed(1)
    network = build_network(config).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    if isinstance(network, UNet) and network.draft is not None:
        numbers = network.draft.basis.shape
        network.draft.set_basis(0.1 * torch.randn(numbers), torch.rand(numbers[1]))
    return network


@pytest.mark.parametrize("name", CASES)
def test_starts_at_zero_with_the_shape_of_its_input(name: str) -> None:
    z, logsnr, cond = inputs(CASES[name])
    output = build_network(CASES[name]).double()(z, logsnr, cond)
    assert output.shape == z.shape
    assert not output.any()


@pytest.mark.parametrize("name", CASES)
def test_gradients_reach_every_parameter(name: str) -> None:
    network = awake(CASES[name])
    z, logsnr, cond = inputs(CASES[name])
    network(z, logsnr, cond).square().sum().backward()
    learned = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    silent = [n for n, p in learned if p.grad is None or not p.grad.any()]
    assert silent == []
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("name", CASES)
def test_everything_it_is_told_matters(name: str) -> None:
    network, (z, logsnr, cond) = awake(CASES[name]), inputs(CASES[name])
    first = network(z, logsnr, cond)
    assert cond.text is not None
    other = TextEmbedding(cond.text.tokens.flip(0), cond.text.mask)
    changed = [Conditioning(other, cond.lowres, cond.aug_level)]
    if cond.lowres is not None and cond.aug_level is not None:
        changed.append(Conditioning(cond.text, cond.lowres + 0.1, cond.aug_level))
        changed.append(Conditioning(cond.text, cond.lowres, cond.aug_level + 0.1))
    for condition in changed:
        assert (network(z, logsnr, condition) - first).abs().amax() > 1e-6
    assert (network(z, logsnr + 1, cond) - first).abs().amax() > 1e-6


@pytest.mark.parametrize("name", CASES)
def test_padding_cannot_change_the_output(name: str) -> None:
    network, (z, logsnr, cond) = awake(CASES[name]), inputs(CASES[name])
    assert cond.text is not None
    padded = cond.text.padded(9)
    padded.tokens[:, 5:] = 1e3  # whatever padding holds
    again = network(z, logsnr, Conditioning(padded, cond.lowres, cond.aug_level))
    torch.testing.assert_close(again, network(z, logsnr, cond), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_dropping_text_is_the_null_caption(name: str) -> None:
    network, (z, logsnr, cond) = awake(CASES[name]), inputs(CASES[name])
    null = TextEmbedding.null(2, TEXT_DIM)
    null = TextEmbedding(null.tokens.double(), null.mask)
    expected = network(z, logsnr, Conditioning(null, cond.lowres, cond.aug_level))
    torch.testing.assert_close(network(z, logsnr, cond.null()), expected)
    kept = network(z, logsnr, cond.drop_text(torch.tensor([True, False])))
    torch.testing.assert_close(kept[0], network(z, logsnr, cond)[0])
    torch.testing.assert_close(kept[1], expected[1])


@pytest.mark.parametrize("name", CASES)
def test_bound_text_is_encoded_once(name: str) -> None:
    network, (z, logsnr, cond) = awake(CASES[name]), inputs(CASES[name])
    calls = []
    network.condition.text.register_forward_hook(lambda *_: calls.append(1))
    predict = network.bind(cond)
    first, second = predict(z, logsnr), predict(z, logsnr)
    assert len(calls) == 1
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, network(z, logsnr, cond), rtol=0, atol=0)


@pytest.mark.parametrize("make", [small_unet, small_efficient])
def test_without_text_tokens_the_pooled_text_alone_decides(
    make: Callable[..., UNetConfig | EfficientUNetConfig],
) -> None:
    """Two captions of other tokens and the same mean: one caption to a network without tokens."""
    results = {}
    for tokens in (True, False):
        config = make(text_tokens=tokens, text_pooling="whitened_mean")
        network, (z, logsnr, cond) = awake(config), inputs(config)
        assert cond.text is not None
        away = torch.randn(2, 1, TEXT_DIM, dtype=torch.float64)
        moved = torch.cat((away, -away, torch.zeros(2, 3, TEXT_DIM)), dim=1)
        other = TextEmbedding(cond.text.tokens + moved, cond.text.mask)
        first, second = network(z, logsnr, cond), network(z, logsnr, replace(cond, text=other))
        results[tokens] = (first - second).abs().amax().item()
    assert results[True] > 1e-4
    assert results[False] < 1e-12


@pytest.mark.parametrize("make", [small_unet, small_efficient])
def test_without_text_tokens_there_are_no_parameters_for_them(
    make: Callable[..., UNetConfig | EfficientUNetConfig],
) -> None:
    whole, pooled = (build_network(make(text_tokens=tokens)) for tokens in (True, False))
    widths = [m.out.out_features for m in whole.modules() if isinstance(m, Attention)]
    # A norm, a null token, and keys and values of each attending layer.
    expected = 2 * TEXT_DIM + TEXT_DIM + sum(2 * width * (TEXT_DIM + 1) for width in widths)
    numbers = [sum(p.numel() for p in network.parameters()) for network in (whole, pooled)]
    assert widths and numbers[0] - numbers[1] == expected
    own = pooled.state_dict()
    assert {name for name in whole.state_dict() if name not in own} == {
        name
        for name in whole.state_dict()
        if name.startswith(
            ("condition.text.projections", "condition.text.norm", "condition.text.null")
        )
    }


def test_images_that_lack_or_are_too_many_are_named() -> None:
    z, logsnr, cond = inputs(CASES["efficient"])
    with pytest.raises(ValueError, match="no low-resolution image; expected one"):
        awake(CASES["efficient"])(z, logsnr, Conditioning(cond.text))
    with pytest.raises(ValueError, match="a low-resolution image; expected none"):
        awake(CASES["unet"])(z, logsnr, cond)


def test_recomputing_changes_no_gradient() -> None:
    gradients = []
    for name in ("efficient", "efficient_recomputed"):
        network, (z, logsnr, cond) = awake(CASES[name]), inputs(CASES[name])
        network(z, logsnr, cond).square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, recomputed)


def test_the_draft_follows_other_image_sizes() -> None:
    config = CASES["unet"]
    network = awake(config)
    wide = torch.randn(2, 3, 24, 32, dtype=torch.float64)
    output = network(wide, torch.zeros(2, dtype=torch.float64), Conditioning(text()))
    assert output.shape == wide.shape


def test_the_draft_makes_text_decide_by_place() -> None:
    """With noise that says nothing, only the draft can vary over places."""
    network = awake(CASES["unet"])
    blank = torch.zeros(1, 3, 16, 16, dtype=torch.float64)
    logsnr = torch.zeros(1, dtype=torch.float64)
    sampled = network(blank, logsnr, Conditioning(text(1)))
    middle = sampled[0, :, 6:10, 6:10]  # away from the padding of convolutions
    assert middle.std() > 1e-3


def test_folding_the_draft_equals_a_convolution_of_the_whole_image() -> None:
    """A 1x1 convolution of folded pixels is a convolution with strides as long as its kernel."""
    network = awake(CASES["unet"])
    cond = Conditioning(text())
    draft = network.make_draft(cond.text)
    folded = network._folded(cond)
    for level, side in enumerate((2, 4)):
        layer = network.draft_in[level]
        kernel = layer.weight.unflatten(1, (3, side, side))[..., 0, 0]
        expected = F.conv2d(draft, kernel, layer.bias, stride=side)
        maps = torch.zeros(2, 1, 16 // side, 16 // side)
        torch.testing.assert_close(folded(maps, level), expected)


def test_a_draft_that_is_given_takes_the_place_of_the_networks_own() -> None:
    network, (z, logsnr, cond) = awake(CASES["unet"]), inputs(CASES["unet"])
    own = network.make_draft(cond.text)
    expected = network(z, logsnr, cond)
    torch.testing.assert_close(network(z, logsnr, replace(cond, draft=own)), expected)
    other = network(z, logsnr, replace(cond, draft=own.flip(3)))
    assert (other - expected).abs().amax() > 1e-6


def test_whitening_gives_unit_covariance() -> None:
    torch.manual_seed(0)
    mixing = torch.randn(TEXT_DIM, TEXT_DIM, dtype=torch.float64)
    tokens = torch.randn(4000, 1, TEXT_DIM, dtype=torch.float64) @ mixing + 3.0
    flat = tokens[:, 0]
    pooling = WhitenedMeanPooling(TEXT_DIM).double()
    pooling.set_statistics(flat.mean(0), flat.T.cov(), ridge=0.0)
    pooled = pooling(TextEmbedding(tokens, torch.ones(4000, 1, dtype=torch.bool)))
    torch.testing.assert_close(
        pooled.T.cov(), torch.eye(TEXT_DIM, dtype=torch.float64), atol=1e-3, rtol=0
    )
    assert pooled.mean(0).abs().amax() < 1e-6


def test_whitening_of_captions_that_are_all_alike_is_finite() -> None:
    pooling = WhitenedMeanPooling(TEXT_DIM)
    pooling.set_statistics(torch.ones(TEXT_DIM), torch.zeros(TEXT_DIM, TEXT_DIM))
    alike = TextEmbedding(torch.ones(1, 2, TEXT_DIM), torch.ones(1, 2, dtype=torch.bool))
    assert not pooling(alike).any()  # nan before: it spread to every weight in one step


@pytest.mark.parametrize(
    ("recipe", "millions", "paper"),
    # What the printed lists count here, and what the paper calls the models. The lists leave
    # open how wide the embedding is and how text is projected.
    [("imagen-64", 2441, 2000), ("imagen-256", 626, 600), ("imagen-1024", 622, 400)],
)
def test_paper_presets_count_as_printed(recipe: str, millions: int, paper: int) -> None:
    from importlib.resources import files

    path = files("calotype") / "configs" / f"{recipe}.json"
    config = load_config(path, Recipe).stages[0].stage  # type: ignore[arg-type]
    with torch.device("meta"):
        network = build_network(config.network)
    counted = sum(p.numel() for p in network.parameters()) / 1e6
    assert counted == pytest.approx(millions, abs=1)
    assert paper <= counted <= paper * 1.6
