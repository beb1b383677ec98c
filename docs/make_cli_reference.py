"""Write docs/cli.md: every command with its arguments and options, as --help tells them.

    python docs/make_cli_reference.py

Read from the commands' own signatures, so that the page does not change with the version of the
library that formats --help on a terminal.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typer

from calotype.cli import app

PAGE = Path(__file__).parent / "cli.md"
_KINDS = {str: "TEXT", int: "NUMBER", float: "NUMBER", Path: "PATH"}
_HEAD = """# Command line

Written by `python docs/make_cli_reference.py`; a test says when it has to be run again.

Every command takes `--help`. Errors are one line on the standard error output: what was got, what
was expected, what to do. Exit codes: 0 done, 1 a failure, 2 wrong usage, 130 Ctrl-C. With
`CALOTYPE_DEBUG=1` in the environment errors show their traceback.

`calotype --install-completion` lets the shell (bash, zsh, fish, PowerShell) complete commands and
options from the next session on; `calotype --show-completion` prints what it would install. Where a
command takes `-o` and `--out`, `--output` of earlier versions means the same. A stream that the
shell closed (`>&-`) is as `/dev/null`.
"""


def commands(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., Any]]]:
    """Names, such as "data emoji", and functions of all commands of a group."""
    for command in group.registered_commands:
        if command.callback is not None and not command.hidden:
            name = command.name or command.callback.__name__.replace("_", "-")
            yield f"{prefix}{name}", command.callback
    for part in group.registered_groups:
        if part.typer_instance is not None:
            yield from commands(part.typer_instance, f"{prefix}{part.name} ")


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for name, function in commands(app):
        parts.append(_section(name, function))
    return "\n".join(parts)


def _section(name: str, function: Callable[..., Any]) -> str:
    arguments, options, usage = [], [], f"calotype {name} [OPTIONS]"
    hints = get_type_hints(function, include_extras=True)
    for parameter in inspect.signature(function).parameters.values():
        kind, info = _declared(hints[parameter.name])
        if isinstance(info, typer.models.ArgumentInfo):
            word = info.metavar or parameter.name.upper()
            needed = parameter.default is inspect.Parameter.empty
            many = "..." if _is_list(kind) else ""
            usage += f" {word}{many}" if needed else f" [{word}]{many}"
            arguments.append((f"`{word}`", info.help or ""))
        else:
            options.append((_option(parameter, kind, info), _described(parameter, info)))
    lines = [f"## {name}", "", inspect.getdoc(function) or "", "", "```text", usage, "```"]
    for title, rows in (("argument", arguments), ("option", options)):
        if rows:
            lines += ["", f"| {title} | what it is |", "|---|---|"]
            lines += [f"| {left} | {right} |" for left, right in rows]
    return "\n".join(lines) + "\n"


def _declared(hint: Any) -> tuple[Any, Any]:
    assert get_origin(hint) is Annotated, hint
    kind, info = get_args(hint)[:2]
    return kind, info


def _option(parameter: inspect.Parameter, kind: Any, info: Any) -> str:
    # Within Annotated the first name stands where a default would.
    first = [info.default] if isinstance(info.default, str) else []
    names = [*first, *(info.param_decls or ())] or [f"--{parameter.name.replace('_', '-')}"]
    inner = _inner(kind)
    value = "" if inner is bool else f" {_value(inner)}"
    return ", ".join(f"`{name}{value}`" for name in names)


def _value(kind: Any) -> str:
    """What stands behind an option: a kind of value, or the words to choose from."""
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else _KINDS[kind]


def _described(parameter: inspect.Parameter, info: Any) -> str:
    text, default = info.help or "", parameter.default
    if default is inspect.Parameter.empty:
        return f"{text} Required."
    if default is None or isinstance(default, bool):
        return text
    return f"{text} Default: {default}."


def _is_list(kind: Any) -> bool:
    return any(get_origin(part) is list for part in (kind, *_parts(kind)))


def _inner(kind: Any) -> Any:
    kind = next((part for part in _parts(kind) if part is not type(None)), kind)
    return get_args(kind)[0] if get_origin(kind) is list else kind


def _parts(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
