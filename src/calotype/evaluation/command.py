"""What the commands of this room share: how they end, and how they load what is judged."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from calotype.cascade import Cascade
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError, UsageError
from calotype.runtime import Runtime, choose_runtime
from calotype.storage.files import write_file


def run_command(
    parser: argparse.ArgumentParser,
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None,
) -> int:
    """Parse the arguments and run; returns the exit code, having printed an error as one line."""
    options = parser.parse_args(arguments)
    try:
        run(options)
    except CalotypeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """--device, --dtype and --threads, as `calotype sample` has them."""
    add = parser.add_argument
    add("--device"), add("--dtype"), add("--threads", type=int)


def load_cascade(options: argparse.Namespace) -> tuple[Cascade, Runtime]:
    """The cascade of `--model`, arranged on the machine, and how it computes.

    Raises:
        UsageError: it has no base.
    """
    runtime = choose_runtime(options.device, options.dtype, options.threads)
    cascade = Cascade.load(options.model)
    if cascade.stages[0].config.lowres_resolution is not None:
        raise UsageError(f"{cascade.name!r} has no base; expected one that samples from captions")
    runtime.apply(cascade.stages, cascade.prior)
    return cascade, runtime


def write_results(folder: Path, name: str, found: object, tables: str) -> None:
    """Write what was found as NAME.json and, for people, as the tables NAME.md."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(to_dict(found), indent=2) + "\n"
    write_file(folder / f"{name}.json", text.encode())
    write_file(folder / f"{name}.md", tables.encode())
    say(f"wrote {folder / name}.md")


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, file=sys.stderr, flush=True)
