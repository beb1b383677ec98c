"""`python -m calotype.emoji.eleven`: choose the prompts of emoji-11, or prove its checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calotype.emoji.eleven.proof import proof_table, prove
from calotype.emoji.eleven.references import References
from calotype.emoji.eleven.suite import write_suite
from calotype.errors import UsageError
from calotype.evaluation.command import run_command, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, arguments)


def _run(options: argparse.Namespace) -> None:
    if options.measure is not None:
        print(proof_table(prove(References.read(options.measure), options.rows, say)))
    elif options.data is None or options.out is None:
        raise UsageError(
            "got neither --measure DIR nor both --data DIR and --out FILE; expected one"
        )
    else:
        write_suite(options.data, options.out)
        say(f"wrote {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.eleven",
        description="Choose the prompts of emoji-11, or prove its checks on real images.",
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder made by: calotype data emoji, to choose from")
    add("--out", type=Path, help="file for the prompts")
    add("--measure", type=Path, metavar="DIR", help="the same folder, to prove the checks on")
    add("--rows", type=int, default=200, help="images that each check is tried on, at least")
    return parser


if __name__ == "__main__":
    sys.exit(main())
