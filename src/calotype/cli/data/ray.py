"""The option `--ray [ADDRESS]`, whose address may be left out, and what stands beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option
from typer.core import TyperCommand

from calotype.errors import UsageError

if TYPE_CHECKING:
    from calotype.data.work import Work

Ray = Annotated[
    str | None,
    Option(
        help="Work on Ray (calotype[ray]): a cluster's host:port, 'local' for --processes "
        "workers here, or nothing for the Ray that runs.",
        metavar="[ADDRESS]",
    ),
]
Processes = Annotated[
    int | None, Option(help="Local processes; as many as there are cores if not given.")
]
GpusPerWorker = Annotated[
    float | None,
    Option(help="With --ray: GPUs of each worker, a fraction lets workers share one, e.g. 0.25."),
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


def work_of(processes: int, ray: str | None, on_result: Callable[[Any], None]) -> Work:
    """The work that a command asks for, which tells of data that are not used."""
    from calotype.data.account import tell_findings
    from calotype.data.work import Work

    return Work(processes=processes, ray=ray, on_open=tell_findings, on_result=on_result)


def gpus_of_worker(gpus: float | None, ray: str | None, option: str = "--gpus-per-worker") -> float:
    """GPUs of each worker; 0 = none.

    Raises:
        UsageError: no positive number, one that Ray refuses, or given without Ray.
    """
    if gpus is None:
        return 0.0
    if ray is None:
        raise UsageError(f"got {option} {gpus:g} without --ray, which shares them out")
    if not 0 < gpus <= 1024 or (gpus > 1 and gpus != int(gpus)):
        raise UsageError(f"got {option} {gpus:g}; expected 0 to 1, or a whole number")
    return gpus
