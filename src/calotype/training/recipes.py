"""The recipes that come with the package, by name, and recipes of the user's, by path."""

from __future__ import annotations

import difflib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.errors import UsageError


def recipe_names() -> tuple[str, ...]:
    """Names that `load_recipe` knows, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.json") if _is_recipe(path)))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe: the name of one that is installed, or a JSON file.

    Raises:
        ConfigError: the file is no recipe.
        UsageError: there is no such recipe.
    """
    installed = _folder() / f"{name_or_path}.json"
    name = str(name_or_path)
    if "/" not in name and name in recipe_names():
        return load_config(installed, Recipe)
    path = Path(name_or_path)
    if path.is_file():
        return load_config(path, Recipe)
    close = difflib.get_close_matches(name, recipe_names(), 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UsageError(
        f"got recipe {name!r}; expected a JSON file or one of {', '.join(recipe_names())}{hint}"
    )


def _folder() -> Path:
    return Path(str(resources.files("calotype"))) / "configs"


def _is_recipe(path: Path) -> bool:
    data: Any = json.loads(path.read_text("utf-8"))
    return isinstance(data, dict) and "stages" in data
