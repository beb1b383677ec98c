import json

import pytest

from calotype.config.typed_json import override, to_dict
from calotype.errors import ConfigError, UsageError
from calotype.training.recipes import load_recipe, recipe_names
from calotype.training.resume import with_options
from calotype.training.run_folder import difference

NAMES = {"tiny", "emoji-64", "emoji-256", "emoji-1024", "imagen-64", "imagen-256", "imagen-1024"}


def test_every_installed_recipe_can_be_read():
    assert set(recipe_names()) >= NAMES
    for name in recipe_names():
        recipe = load_recipe(name)
        assert recipe.name == name
        assert len(recipe.stages) == (3 if name == "tiny" else 1)


def test_tiny_is_a_cascade_with_a_checkpoint_every_200_images():
    stages = load_recipe("tiny").stages
    assert [s.stage.resolution for s in stages] == [8, 16, 32]
    assert [s.stage.lowres_resolution for s in stages] == [None, 8, 16]
    assert {s.checkpoint_images for s in stages} == {200}
    assert {s.text_encoder for s in stages} == {"bytes:16"}


def test_a_recipe_of_the_users_own(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(to_dict(load_recipe("tiny"))))
    assert load_recipe(path) == load_recipe("tiny")
    path.write_text('{"name": "x", "stages": [{"stag": 1}]}')
    with pytest.raises(ConfigError, match="did you mean 'stage'"):
        load_recipe(path)


@pytest.mark.parametrize("name", recipe_names())
def test_a_run_of_any_recipe_can_be_resumed_with_it(name):
    recipe = load_recipe(name)
    longer = with_options(recipe, images=2 * recipe.stages[0].total_images, seed=None)
    assert difference(recipe, recipe) is None and difference(recipe, longer) is None
    assert "seed" in difference(recipe, with_options(recipe, images=None, seed=77))


def test_what_differs_is_named_though_files_leave_it_out():
    recipe = load_recipe("tiny")
    other = override(recipe, ["stages.0.stage.network.text_tokens=false"])
    assert difference(recipe, other) == ("stages.0.stage.network.text_tokens: was True, got False")


def test_an_unknown_name_gets_a_hint():
    with pytest.raises(UsageError, match="did you mean 'emoji-64'"):
        load_recipe("emoji64")
