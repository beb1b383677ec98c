"""ADM networks told of classes."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from calotype.conditioning import Conditioning
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.errors import ConfigError
from calotype.networks import AdmPair, AdmUNet, build_network


def network(**changes: Any) -> nn.Module:
    """A small one whose layers that start at zero are not zero."""
    torch.manual_seed(0)
    levels = (AdmLevel(channels=8, blocks=1),)
    changes = {"norm_groups": 4, "middle": "none", "classes": 3, **changes}
    made = build_network(AdmConfig(levels=levels, **changes)).double()
    with torch.no_grad():
        for parameter in made.parameters():
            if not parameter.any():
                parameter.normal_(std=0.3)
    return cast(nn.Module, made)


def answer(made: nn.Module, classes: torch.Tensor | None, timestep: float = 5.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(4, 3, 8, 8, generator=generator, dtype=torch.float64)
    times = torch.full((4,), timestep, dtype=torch.float64)
    return cast(torch.Tensor, made(z, times, Conditioning(classes=classes)))


def test_a_class_adds_its_embedding_to_that_of_the_time() -> None:
    made = network()
    assert isinstance(made, AdmUNet) and made.classes is not None
    assert made.classes.num_embeddings == 4
    told = answer(made, torch.tensor([0, 1, 2, 1]))
    plain = network(classes=0)
    assert isinstance(plain, AdmUNet)
    plain.load_state_dict(made.state_dict(), strict=False)
    last = cast(nn.Linear, list(plain.time.modules())[-1])
    for row, number in enumerate((0, 1, 2, 1)):
        bias = last.bias.data.clone()
        last.bias.data += made.classes.weight.data[number]  # the sum, made in another place
        torch.testing.assert_close(told[row], answer(plain, None)[row])
        last.bias.data = bias


@pytest.mark.parametrize("timestep", [5.0, 0.0])
def test_not_told_is_the_null_class_also_in_pairs(timestep: float) -> None:
    for made in (network(), network(last_step=True)):
        assert isinstance(made, (AdmUNet, AdmPair))
        null = answer(made, torch.full((4,), -1), timestep)
        torch.testing.assert_close(null, answer(made, None, timestep))
        mixed = answer(made, torch.tensor([-1, 2, -1, 0]), timestep)
        torch.testing.assert_close(mixed[[0, 2]], null[[0, 2]])
        assert (mixed[[1, 3]] - null[[1, 3]]).flatten(1).abs().amax(1).min() > 1e-3


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="got classes=1; expected 0"):
        network(classes=1)
