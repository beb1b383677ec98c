"""The option `--ray [ADDRESS]`, whose address may be left out, and `--processes` beside it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from calotype.errors import UsageError

Ray = Annotated[
    str | None,
    typer.Option(
        help="Work on Ray (calotype[ray]): a cluster's host:port, 'local' for --processes "
        "workers here, or nothing for the Ray that runs.",
        metavar="[ADDRESS]",
        show_default=False,
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(help="Local processes; as many as there are cores if not given."),
]

_NAME = "--ray"
_AUTO = "auto"
_ADDRESS = re.compile(r"local|auto|ray://\S+|[^\s/]+:[0-9]{1,5}")


class RayCommand(TyperCommand):
    """A command whose `--ray` may stand alone."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a `--ray` that nothing like an address follows the address "auto"."""
        words: list[str] = []
        for number, word in enumerate(args):
            words.append(word)
            if word == "--":
                words += args[number + 1 :]
                break
            following = args[number + 1] if number + 1 < len(args) else ""
            if word == _NAME and not _ADDRESS.fullmatch(following):
                words.append(_AUTO)
        return super().parse_args(ctx, words)


def process_count(processes: int | None) -> int:
    """Number of processes asked for, or of usable cores.

    Raises:
        UsageError: fewer than one.
    """
    if processes is None:
        from calotype.data.work import usable_cores

        return usable_cores()
    if processes < 1:
        raise UsageError(f"got processes={processes}; expected at least 1")
    return processes
