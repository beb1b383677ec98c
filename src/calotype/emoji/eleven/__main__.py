"""`python -m calotype.emoji.eleven`: choose the prompts of emoji-11, or prove its checks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calotype.emoji.eleven.suite import write_suite
from calotype.evaluation.command import run_command, say


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, arguments)


def _run(options: argparse.Namespace) -> None:
    write_suite(options.data, options.out)
    say(f"wrote {options.out}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.eleven",
        description="Choose the prompts of emoji-11.",
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--out", type=Path, required=True, help="file for the prompts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
