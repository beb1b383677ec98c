"""Choose sampling settings by measurement: `python -m calotype.emoji.settings`.

Writes `settings.json` (every cell) and `settings.md` (one table an axis) into a folder; the model
card prints the tables with `--settings settings.json`. Changes no model: the chosen settings are
for the recipe, or for the cascade's own files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from calotype.emoji.sweep import SweepSize, default_axes, parse_axis, sweep
from calotype.emoji.sweep_results import sweep_tables
from calotype.evaluation.command import (
    add_machine_options,
    load_cascade,
    run_command,
    say,
    write_results,
)
from calotype.evaluation.features import load_features


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(_parser(), _run, arguments)


def _run(options: argparse.Namespace) -> None:
    axes = [parse_axis(text) for text in options.axis]
    features = load_features()
    cascade, _ = load_cascade(options)
    found = sweep(
        cascade,
        options.data,
        axes or default_axes(cascade.config.stages),
        features=features,
        size=SweepSize(captions=options.captions, reference=options.reference),
        say=say,
    )
    write_results(options.out, "settings", found, sweep_tables(found))


def _parser() -> argparse.ArgumentParser:
    defaults = SweepSize()
    parser = argparse.ArgumentParser(
        prog="python -m calotype.emoji.settings",
        description="Measure sampling settings, one axis after another, and choose the best.",
    )
    add = parser.add_argument
    add("--model", help="cascade or run folder; default: the embedded cascade")
    add("--data", type=Path, required=True, help="folder made by: calotype data emoji")
    add("--out", type=Path, required=True, help="folder for settings.json and settings.md")
    add(
        "--axis",
        action="append",
        default=[],
        metavar="RESOLUTION:SETTING=VALUE,…",
        help="e.g. 64:sigma_max=0.3,0.5; again for more, in order; default: levels, steps, "
        "guidance and aug_level of every stage",
    )
    add("--captions", type=int, default=defaults.captions, help="half of them of unseen pairs")
    add("--reference", type=int, default=defaults.reference, help="real images for KID, at least")
    add_machine_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
