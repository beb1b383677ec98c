"""`python -m calotype.serving.engine`: started by the front, with which it speaks `wire`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from calotype.errors import CalotypeError
from calotype.serving.engine.process import Engine, EngineSettings, die_first, taken_streams


def parse(arguments: Sequence[str]) -> EngineSettings:
    """Read the command line.

    Raises:
        UsageError: something on it does not fit.
    """
    from calotype.runtime import choose_runtime
    from calotype.serving.engine.shelf import parse_entry

    parser = argparse.ArgumentParser("calotype-engine", description=__doc__)
    parser.add_argument("--model", action="append", metavar="NAME=FOLDER[+LORA:WEIGHT]")
    parser.add_argument("--max-batch", type=int, help="images of a network call")
    parser.add_argument("--memory", type=int, help="bytes of all weights")
    parser.add_argument("--idle-unload", type=float, help="seconds")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--no-metadata", action="store_true")
    given = parser.parse_args(arguments)
    return EngineSettings(
        models=tuple(map(parse_entry, given.model or ("default",))),
        runtime=choose_runtime(given.device, given.dtype, given.threads),
        max_batch=given.max_batch,
        memory=given.memory,
        idle_unload=given.idle_unload,
        metadata=not given.no_metadata,
    )


def main() -> int:
    """Run an engine until it is stopped; the exit code."""
    incoming, outgoing = taken_streams()
    die_first()
    try:
        engine = Engine(parse(sys.argv[1:]), incoming, outgoing)
    except CalotypeError as error:
        print(f"calotype: {error}", file=sys.stderr)
        return 2
    engine.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
