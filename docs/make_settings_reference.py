"""Write docs/settings.md: every field of every record that recipes and cascades are made of.

    python docs/make_settings_reference.py

Read from the records themselves: names, types, defaults, and the lines of their docstrings.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from calotype.config.recipe import Recipe
from calotype.config.stage import CascadeConfig
from calotype.emoji.recipe import EmojiRecipe

PAGE = Path(__file__).parent / "settings.md"
_HEAD = """# Settings

Written by `python docs/make_settings_reference.py`; a test says when it has to be run again.

Recipes, cascades and the emoji recipe are JSON files that are read into the records below. Unknown
keys, missing keys and values out of range are refused by name; the type says the range, and NaN and
Infinity are in none. A field without a default has to be given. `calotype train RECIPE --set
KEY=VALUE` changes a field of a recipe: see [training](training.md). What the installed recipes
choose, and why: [recipes](recipes.md).
"""


def records(*roots: type) -> Iterator[type]:
    """The records and all that their fields hold, each once, in reading order."""
    seen: list[type] = []
    waiting = list(roots)
    while waiting:
        kind = waiting.pop(0)
        if kind in seen:
            continue
        seen.append(kind)
        yield kind
        hints = get_type_hints(kind)
        waiting[:0] = [r for f in dataclasses.fields(kind) for r in _held(hints[f.name])]


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for kind in records(Recipe, CascadeConfig, EmojiRecipe):
        parts.append(_section(kind))
    return "\n".join(parts)


def _held(hint: Any) -> list[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return [hint]
    return [record for part in get_args(hint) for record in _held(part)]


def _section(kind: type) -> str:
    intro, notes = _docstring(kind)
    for base in kind.__mro__[1:]:
        if dataclasses.is_dataclass(base):  # its fields are said there
            notes = _docstring(base)[1] | notes
    hints = get_type_hints(kind, include_extras=True)
    lines = [f"## {kind.__name__}", "", intro, "", "| field | type | default | what it is |"]
    lines.append("|---|---|---|---|")
    for field in dataclasses.fields(kind):
        name = _type_name(hints[field.name]).replace("|", "\\|")
        note = notes.get(field.name, "names the kind of record" if field.name == "kind" else "")
        lines.append(f"| `{field.name}` | {name} | {_default(field)} | {note} |")
    return "\n".join(lines) + "\n"


def _docstring(kind: type) -> tuple[str, dict[str, str]]:
    intro, _, rest = (inspect.getdoc(kind) or "").partition("\nArgs:\n")
    notes: dict[str, str] = {}
    names: list[str] = []
    for line in rest.splitlines():
        match = re.match(r" {2,4}([a-z_]+(?:, [a-z_]+)*): (.*)", line)
        if match and not line.startswith("        "):
            names = match[1].split(", ")
            for name in names:
                notes[name] = match[2]
        elif line.strip():
            for name in names:
                notes[name] += " " + line.strip()
    # The files are JSON: None is null there.
    plain = {n: re.sub(r"\bNone\b", "null", t.replace("|", "\\|")) for n, t in notes.items()}
    return " ".join(intro.split()), plain


def _type_name(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is type(None):
        return "null"
    if origin is Annotated:
        return f"{_type_name(parts[0])}, {parts[1]}"
    if origin is Literal:
        return " or ".join(f'"{part}"' for part in parts)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in parts)
    if origin is tuple:
        inner = [_type_name(part) for part in parts if part is not Ellipsis]
        return f"list of {inner[0]}" if Ellipsis in parts else f"[{', '.join(inner)}]"
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return f"[{hint.__name__}](#{hint.__name__.lower()})"
    return str(hint.__name__)


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "its defaults"
    if field.default is dataclasses.MISSING:
        return "required"
    text = {None: "null", True: "true", False: "false"}
    if field.default is None or isinstance(field.default, bool):
        return text[field.default]
    if isinstance(field.default, str):
        return f'"{field.default}"'
    if isinstance(field.default, int):
        return f"{field.default:,}"
    return "[]" if field.default == () else str(field.default)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
