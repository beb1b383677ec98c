"""Every number has a range, whoever made the record; numbers of the findings in docs/limits.md."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest

from calotype.config.adm import AdmConfig, AdmLevel, StatesText, TokensText, UnclipText
from calotype.config.diffusion import (
    DiffusionTraining,
    DraftTrainingConfig,
    LowresEstimatesConfig,
    PreservationConfig,
)
from calotype.config.lora import LoraConfig, LoraFacts
from calotype.config.network import DraftConfig, EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.prior import PriorConfig, PriorNetworkConfig
from calotype.config.ranges import Range
from calotype.config.sampling import SamplingConfig
from calotype.config.schedule import NormalLogSNR
from calotype.config.stage import StageConfig
from calotype.config.typed_json import from_dict, load_config, override, to_dict
from calotype.errors import ConfigError
from calotype.networks import build_network
from calotype.training.recipes import load_recipe, recipe_names

LONG = 10**400
EXAMPLES = (
    *(stage for name in recipe_names() for stage in load_recipe(name).stages),
    AdmConfig(levels=(AdmLevel(channels=64, blocks=1),)),
    StatesText(width=64),
    TokensText(width=64, layers=1, heads=1),
    UnclipText(width=8),
    PriorConfig(network=PriorNetworkConfig()),
    NormalLogSNR(mean=0.0, std=1.0),
    DraftConfig(),
    DraftTrainingConfig(),
    LowresEstimatesConfig(model="x"),
    LoraConfig(),
    LoraFacts(format="x", resolution=8, rank=1, alpha=1.0, base=""),
    PreservationConfig(data="x"),
)
TRAIN = load_recipe("tiny").stages[0]


def records(value: Any) -> Iterator[Any]:
    """A record and all that it holds."""
    if isinstance(value, tuple):
        for item in value:
            yield from records(item)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from records(getattr(value, field.name))


KINDS = {type(record): record for record in records(EXAMPLES)}


def numbers(hint: Any) -> Iterator[Any]:
    """What a type says of the numbers in it: their `Range`, or None."""
    if get_origin(hint) is Annotated:
        yield hint.__metadata__[0]
    elif hint in (int, float):
        yield None
    else:
        for part in get_args(hint):
            yield from numbers(part)


def numeric_fields() -> list[Any]:
    found = []
    for kind, example in KINDS.items():
        for name, hint in get_type_hints(kind, include_extras=True).items():
            if name != "RETIRED" and list(numbers(hint)):
                found.append(pytest.param(example, name, hint, id=f"{kind.__name__}.{name}"))
    return found


@pytest.mark.parametrize(("example", "name", "hint"), numeric_fields())
def test_18_29_30_every_number_has_a_range(example: Any, name: str, hint: Any) -> None:
    assert all(isinstance(mark, Range) for mark in numbers(hint)), "a number without a range"
    held = getattr(example, name)
    for wrong in (math.nan, math.inf, -math.inf, 1e300, -1e300, LONG, 10**5000, "1"):
        value = (wrong,) * max(1, len(held or ())) if "tuple" in str(hint) else wrong
        if name == "guidance_interval":
            value = (wrong, wrong)
        with pytest.raises(ConfigError, match=f"got {name}=.*expected") as caught:
            dataclasses.replace(example, **{name: value})
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", str(LONG), "1e400"])
def test_29_json_has_no_other_numbers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stage.json"
    data = json.dumps({**to_dict(TRAIN.stage), "data_std": "HERE"})
    path.write_text(data.replace('"HERE"', text))
    with pytest.raises(ConfigError, match=r"data_std=.*expected a finite number"):
        load_config(path, StageConfig)
    with pytest.raises(ConfigError, match=r"betas=.*expected a finite number"):
        override(TRAIN, [f"optimizer.betas=[0.9, {text}]"])


def test_29_an_integer_that_python_refuses_to_read_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    path.write_text('{"resolution": ' + "9" * 5000 + "}")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        load_config(path, StageConfig)


@pytest.mark.parametrize(
    "change",
    [
        {"sigma_min": 1e-300},
        {"rho": 1e-9},
        {"guidance_weight": 1e300},
        {"threshold_percentile": 0.0},
        {"steps": 4097},
    ],
)
def test_30_sampling(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"got {next(iter(change))}=.*expected a number from"):
        from_dict({**to_dict(SamplingConfig()), **change}, SamplingConfig)


@pytest.mark.parametrize(
    "change",
    [{"betas": [2, 2]}, {"eps": -1}, {"eps": 0}, {"grad_clip_norm": -1}, {"grad_clip_norm": 0}],
)
def test_18_30_optimizers(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"got {next(iter(change))}=.*expected a number from"):
        from_dict({**to_dict(OptimizerConfig()), **change}, OptimizerConfig)


def test_30_a_network_is_counted_before_memory_is_asked_for(monkeypatch) -> None:
    levels = (LevelConfig(channels=65536, blocks=2),)
    with pytest.raises(ConfigError, match=r"got a network of [0-9,]+ weights; expected at most"):
        build_network(UNetConfig(levels=levels, text_dim=65536))
    with pytest.raises(ConfigError, match="weights; expected at most"):
        build_network(EfficientUNetConfig(levels=levels, text_dim=0))
    draft = DraftConfig(width=65536, rank=4 * 1024**2, resolution=1024)
    network = UNetConfig(
        levels=(LevelConfig(channels=64, blocks=1),),
        text_dim=8,
        text_pooling="whitened_mean",
        draft=draft,
    )
    with pytest.raises(ConfigError, match="or draft"):
        build_network(network)
    with pytest.raises(ConfigError, match="the number of levels=17"):
        UNetConfig(levels=(LevelConfig(channels=64, blocks=1),) * 17, text_dim=0)


def test_30_a_batch_is_counted_before_memory_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"batch_size=1000000 of 64 pixels.*smaller batch_size"):
        dataclasses.replace(load_recipe("emoji-64").stages[0], batch_size=1_000_000)
    assert isinstance(load_recipe("imagen-1024").stages[0], DiffusionTraining)
