"""Settings: round trip, refusals with hints, overrides."""

from __future__ import annotations

import dataclasses
import json
from importlib.resources import files
from pathlib import Path

import pytest

from calotype.config.data import DataConfig
from calotype.config.diffusion import DiffusionTraining
from calotype.config.network import EfficientUNetConfig, LevelConfig, UNetConfig
from calotype.config.recipe import Recipe
from calotype.config.sampling import SamplingConfig
from calotype.config.schedule import NormalLogSNR
from calotype.config.stage import StageConfig
from calotype.config.typed_json import from_dict, load_config, override, to_dict
from calotype.errors import ConfigError

NETWORK = UNetConfig(levels=(LevelConfig(channels=64, blocks=1),), text_dim=0)
STAGE = StageConfig(resolution=64, network=NETWORK)
RECIPES = ["emoji-64", "emoji-256", "emoji-1024", "imagen-64", "imagen-256", "imagen-1024"]


def test_round_trip_keeps_unions_and_tuples() -> None:
    train = DiffusionTraining(
        stage=STAGE,
        levels=NormalLogSNR(mean=-0.6, std=3.4),
        grid_captions=("a fox", ""),
    )
    assert from_dict(json.loads(json.dumps(to_dict(train))), DiffusionTraining) == train


@pytest.mark.parametrize(
    ("default", "name"),
    [
        (SamplingConfig(), "static_clip"),
        (UNetConfig(levels=NETWORK.levels, text_dim=8), "text_tokens"),
        (EfficientUNetConfig(levels=NETWORK.levels, text_dim=8), "text_tokens"),
    ],
)
def test_fields_that_came_later_are_written_only_where_they_say_something(
    default: SamplingConfig | UNetConfig | EfficientUNetConfig, name: str
) -> None:
    """So that hashes of recipes and of PNG files' settings stay what they were."""
    before = {key: value for key, value in dataclasses.asdict(default).items() if key != name}
    assert to_dict(default) == json.loads(json.dumps(before))
    assert from_dict(before, type(default)) == default
    other = dataclasses.replace(default, **{name: False})
    assert to_dict(other) == {**to_dict(default), name: False}
    assert from_dict(to_dict(other), type(default)) == other
    assert override(default, [f"{name}=false"]) == other


def test_text_that_nothing_could_attend_to_is_refused() -> None:
    crossed = LevelConfig(channels=64, blocks=1, cross_attention=True)
    with pytest.raises(ConfigError, match="cross_attention with text_tokens=false"):
        UNetConfig(levels=(crossed,), text_dim=8, text_tokens=False)
    with pytest.raises(ConfigError, match="text_tokens=false with text_dim=0"):
        dataclasses.replace(NETWORK, text_tokens=False)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load(name: str) -> None:
    recipe = load_config(Path(str(files("calotype") / "configs" / f"{name}.json")), Recipe)
    assert recipe.name == name
    assert recipe.stages[0].stage.resolution == int(name.split("-")[1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"chanels": 4, "blocks": 1}, "did you mean 'channels'"),
        ({"channels": 4}, r"missing \['blocks'\]"),
        ({"channels": "4", "blocks": 1}, "expected int"),
        ({"channels": True, "blocks": 1}, "expected int"),
        ({"channels": 0, "blocks": 1}, "got channels=0"),
        ({"channels": 10**9, "blocks": 1}, "from 1 to 65536"),
        ({"channels": 4, "blocks": 10**6}, "from 1 to 128"),
        ({"qqq": 4, "blocks": 1}, "expected one of channels, blocks,"),
        ([1], "expected the fields of LevelConfig"),
    ],
)
def test_wrong_settings_are_refused(data: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(data, LevelConfig)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 5000),
        ("guidance_weight", float("nan")),
        ("threshold_percentile", 0.0),
        ("threshold_percentile", 1.5),
        ("aug_level", -0.1),
        ("sigma_min", 100.0),
        ("rho", float("inf")),
        ("guidance_interval", (5.0, 0.5)),
        ("guidance_interval", (-1.0, 0.5)),
        ("guidance_interval", (float("nan"), 0.5)),
    ],
)
def test_sampling_ranges(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(SamplingConfig(), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value"),
    [("head_dim", 0), ("embed_dim", -1)],
)
def test_network_ranges(field: str, value: int) -> None:
    with pytest.raises(ConfigError, match=field):
        dataclasses.replace(NETWORK, **{field: value})  # type: ignore[arg-type]


def test_negative_counts_do_not_mean_none() -> None:
    with pytest.raises(ConfigError, match="stem_channels"):
        EfficientUNetConfig(levels=NETWORK.levels, text_dim=0, stem_channels=-1)


def test_settings_of_a_text_canvas_are_refused_unless_they_meant_nothing() -> None:
    data = to_dict(NETWORK)
    for level in data["levels"]:
        level["canvas_channels"] = 0
    data |= {"canvas_hidden": 1024, "canvas_resolution": 64}
    assert from_dict(data, UNetConfig) == NETWORK
    data["levels"][0]["canvas_channels"] = 32
    with pytest.raises(ConfigError, match=r"canvas_channels=32; expected no text canvas.*train"):
        from_dict(data, UNetConfig)


def test_heads_must_fit_the_middle_that_attends_where_any_level_does() -> None:
    levels = (
        LevelConfig(channels=64, blocks=1, self_attention=True),
        LevelConfig(channels=32, blocks=1),
    )
    with pytest.raises(ConfigError, match="got 32 channels with attention heads of 64"):
        UNetConfig(levels=levels, text_dim=0)


def test_override_reaches_deep_and_keeps_zero_and_null() -> None:
    changed = override(
        STAGE, ["sampling.aug_level=0", "sampling.threshold_percentile=null", "network.fold=2"]
    )
    assert changed.sampling.aug_level == 0
    assert changed.sampling.threshold_percentile is None
    assert changed.network.fold == 2
    assert override(STAGE, ["network.levels.0.blocks=3"]).network.levels[0].blocks == 3


@pytest.mark.parametrize("assignment", ["fold", "network.flod=2", "network.levels.7.blocks=1"])
def test_override_refuses_unknown_places(assignment: str) -> None:
    with pytest.raises(ConfigError):
        override(STAGE, [assignment])


def test_stage_parts_must_fit() -> None:
    with pytest.raises(ConfigError, match="lowres"):
        StageConfig(resolution=64, network=NETWORK, lowres_resolution=16)
    with pytest.raises(ConfigError, match="multiple of 2"):
        StageConfig(
            resolution=33,
            lowres_resolution=11,
            network=EfficientUNetConfig(levels=NETWORK.levels, text_dim=0),
        )
    with pytest.raises(ConfigError, match="residual"):
        StageConfig(resolution=64, network=NETWORK, residual=True)


def test_file_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "stage.json"
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(path, StageConfig)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"stage\.json is not valid JSON"):
        load_config(path, StageConfig)
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match=r"stage\.json is not valid JSON: nested too deeply"):
        load_config(path, StageConfig)
    path.write_text(json.dumps({**to_dict(STAGE), "network": {"kind": ["unet"]}}))
    with pytest.raises(ConfigError, match=r"network\.kind=\['unet'\]; expected one of"):
        load_config(path, StageConfig)
    path.write_text(json.dumps({**to_dict(STAGE), "resolutoin": 1}))
    with pytest.raises(ConfigError, match="did you mean 'resolution'"):
        load_config(path, StageConfig)


def test_names_of_before_are_read() -> None:
    """Recipes of runs on disk, and settings people have in their scripts."""
    data = from_dict({"broken_share": 0.5, "crops_per_picture": 3}, DataConfig)
    assert (data.broken_fraction, data.crops_per_image) == (0.5, 3)
    assert override(data, ["broken_share=0.25"]).broken_fraction == 0.25
    with pytest.raises(ConfigError, match=r"unknown key 'broken_shar'.*did you mean"):
        override(data, ["broken_shar=0.25"])
