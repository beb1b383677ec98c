import pytest
import torch
from torch import nn

from calotype.config.optimizer import OptimizerConfig
from calotype.errors import CalotypeError
from calotype.training.optimizer import (
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
)


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


def test_state_of_another_network_is_refused():
    optimizer = build_optimizer(_model(), OptimizerConfig())
    with pytest.raises(CalotypeError, match="expected the state of the same recipe"):
        restore_optimizer(optimizer, {"99.exp_avg": torch.zeros(2)})
