"""The command line: parses, calls one function, prints.

Each command is a module; torch and everything heavy is imported inside the commands, so that help
and usage errors come at once. Exit codes: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C.
Set CALOTYPE_DEBUG=1 to see the traceback of an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from calotype import __version__
from calotype.cli.compare import compare
from calotype.cli.convert import convert, export
from calotype.cli.data import app as data_app
from calotype.cli.data.ray import RayCommand
from calotype.cli.edit import edit
from calotype.cli.ema import ema
from calotype.cli.evaluate import evaluate
from calotype.cli.info import info
from calotype.cli.options import OutCommand
from calotype.cli.rate import app as rate_app
from calotype.cli.report import report
from calotype.cli.sample import sample
from calotype.cli.score import score
from calotype.cli.serve import serve
from calotype.cli.sweep import sweep
from calotype.cli.sweep_guidance import sweep_guidance
from calotype.cli.train import assemble, train
from calotype.cli.upscale import upscale
from calotype.cli.visible import visible
from calotype.errors import CalotypeError, UsageError

__all__ = ["app", "main", "run"]


class _Group(TyperGroup):
    """Commands whose Ctrl-C is ours to tell: typer would end them without a word."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Abort() from error


app = typer.Typer(
    name="calotype",
    cls=_Group,
    help="Text to images with cascades of pixel-space diffusion models.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _RayOutCommand(RayCommand, OutCommand):
    """Both at once."""


for _command in (sample, evaluate, sweep, sweep_guidance, serve):
    app.command(cls=_RayOutCommand)(_command)
_COMMANDS: tuple[Callable[..., None], ...] = (
    edit, upscale, score, compare, train, assemble, ema, report, info, convert, export,
)  # fmt: skip
for _command in _COMMANDS:
    app.command(cls=OutCommand)(_command)
app.add_typer(data_app, name="data")
app.add_typer(rate_app, name="rate")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"calotype {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Text to images with cascades of pixel-space diffusion models."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command, None = the process's; every error is one line on stderr. The exit code."""
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # captions may hold lone surrogates
    try:
        given = None if arguments is None else list(arguments)
        result = app(given, standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody to tell
        os._exit(1)
    except Exception as error:
        if os.environ.get("CALOTYPE_DEBUG") == "1":
            raise
        return _fail(*_explain(error))


def _open_closed_streams() -> None:
    """Let streams that the process was started without be as /dev/null, for it and its own."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode)  # as long as the process lasts
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _explain(error: Exception) -> tuple[str, int]:
    """The one line of an error, and its exit code."""
    if isinstance(error, CalotypeError):
        return str(error), 2 if isinstance(error, UsageError) else 1
    format_message = getattr(error, "format_message", None)
    if format_message is not None:  # typer's own: wrong options and arguments
        code = getattr(error, "exit_code", 2)
        message = str(format_message())
        if type(error).__name__ == "NoArgsIsHelpError":
            return message, code
        words, context = ["--help"], getattr(error, "ctx", None)
        while context is not None and context.parent is not None:
            words.insert(0, str(context.info_name))
            context = context.parent
        return f"{message.rstrip('.')}; see calotype {' '.join(words)}", code
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "out of memory; sample fewer or smaller images, or use a smaller batch", 1
    loop = isinstance(error, RuntimeError) and str(error).startswith("Symlink loop")
    if isinstance(error, OSError) or loop:  # Path.resolve reports loops so, before Python 3.13
        return f"{error}; check the disk and the path", 1
    advice = "this is a defect of calotype; set CALOTYPE_DEBUG=1 for details"
    return f"{type(error).__name__}: {error}; {advice}", 1


def _fail(message: str, code: int) -> int:
    is_usage = "\nUsage" in message or message.startswith("Usage")
    line = message if is_usage else visible(" ".join(message.split()))
    print(line if line.startswith("Usage") else f"calotype: {line}", file=sys.stderr)
    return code
