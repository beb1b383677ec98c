import pytest
import torch
from torch import nn

from calotype.config.optimizer import OptimizerConfig
from calotype.config.typed_json import override
from calotype.errors import CalotypeError, ConfigError
from calotype.networks import build_network
from calotype.training.optimizer import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)
from calotype.training.recipes import load_recipe


def _model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3))
    return model.to(memory_format=torch.channels_last)


def _step(model, optimizer, seed):
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_a_restored_optimizer_goes_on_bit_by_bit(kind):
    config = OptimizerConfig(kind=kind, learning_rate=1e-2)
    model = _model()
    optimizer = build_optimizer(model, config)
    for seed in range(3):
        _step(model, optimizer, seed)
    weights = {name: t.clone() for name, t in model.state_dict().items()}
    # As after a way through a file: contiguous in memory.
    state = {name: t.clone().contiguous() for name, t in optimizer_tensors(optimizer).items()}
    other = _model()
    other.load_state_dict(weights)
    restored = build_optimizer(other, config)
    restore_optimizer(restored, state)
    for seed in range(3, 6):
        _step(model, optimizer, seed)
        _step(other, restored, seed)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_vectors_are_not_decayed():
    optimizer = build_optimizer(_model(), OptimizerConfig(weight_decay=0.1))
    decays = {g["weight_decay"]: {p.ndim for p in g["params"]} for g in optimizer.param_groups}
    assert decays == {0.1: {4}, 0.0: {1}}


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_text_modules_may_have_a_fraction_of_the_rate(kind):
    """AdamW's first step moves every weight by the rate, whatever the gradient is."""
    text, other = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    model = nn.ModuleDict({"network": nn.ModuleDict({"text": text, "other": other})})
    config = OptimizerConfig(kind=kind, text_rate=0.25, weight_decay=0.0)
    optimizer = build_optimizer(model, config)
    set_learning_rate(optimizer, 0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    sum((p * torch.arange(1.0, 10).view(3, 3)).sum() for p in model.parameters()).backward()
    optimizer.step()
    moved = {n: (p.detach() - before[n]).abs() for n, p in model.named_parameters()}
    if kind == "adamw":
        assert moved["network.text.weight"].allclose(torch.tensor(0.025))
        assert moved["network.other.weight"].allclose(torch.tensor(0.1))
    rates = {group["fraction"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {1.0: 0.1, 0.25: pytest.approx(0.025)}


@pytest.mark.parametrize("name", ["emoji-64", "adm-emoji-64", "clip-emoji", "classifier-emoji-64"])
def test_a_rate_of_text_modules_that_are_not_there_is_refused(name):
    """By the settings: before captions are embedded, or a run is begun."""
    config = load_recipe(name).stages[0]
    with pytest.raises(ConfigError, match=r"text_rate=0\.5 for a model without text modules"):
        override(config, ["optimizer.text_rate=0.5"])


def test_weights_of_text_modules_have_the_names_that_are_looked_for():
    """Of GLIDE's own network: all of its tower, nothing else."""
    config = load_recipe("glide-emoji-64").stages[0]
    with torch.device("meta"):
        network = build_network(config.stage.network)
        model = nn.ModuleDict({"network": network})
    optimizer = build_optimizer(model, config.optimizer)
    slower = {
        id(p) for group in optimizer.param_groups if group["fraction"] != 1 for p in group["params"]
    }
    assert slower == {id(p) for p in network.text.parameters()}


def test_state_of_another_network_is_refused():
    optimizer = build_optimizer(_model(), OptimizerConfig())
    with pytest.raises(CalotypeError, match="expected the state of the same recipe"):
        restore_optimizer(optimizer, {"99.exp_avg": torch.zeros(2)})
