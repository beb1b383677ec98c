"""`python -m calotype.serving.engine`: started by the front, with which it speaks `wire`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from calotype.errors import CalotypeError
from calotype.serving.engine.process import Engine, EngineSettings, die_first, taken_streams


def parse(arguments: Sequence[str]) -> EngineSettings:
    """Read the command line; `--settings` is what the front says, the others are for people.

    Raises:
        UsageError: something on it does not fit.
    """
    from calotype.runtime import choose_runtime
    from calotype.serving.engine.shelf import parse_entry

    parser = argparse.ArgumentParser("calotype-engine", description=__doc__)
    parser.add_argument("--settings", type=json.loads, default={}, help="all of it, as JSON")
    add = parser.add_argument
    add("--model", action="append", dest="models", metavar="NAME=FOLDER[+LORA.safetensors:WEIGHT]")
    add("--max-batch", type=int, help="images of a network call")
    add("--memory", type=int, help="bytes of all weights")
    add("--idle-unload", type=float, help="seconds")
    add("--threads", type=int)
    add("--device")
    add("--dtype")
    add("--no-metadata", action="store_false", dest="metadata")
    add("--c2pa-cert", metavar="FILE")
    add("--c2pa-key", metavar="FILE")
    given = vars(parser.parse_args(arguments))
    given |= {name: value for name, value in given.pop("settings").items() if value is not None}
    return EngineSettings(
        models=tuple(map(parse_entry, given["models"] or ("default",))),
        runtime=choose_runtime(given["device"], given["dtype"], given["threads"]),
        max_batch=given["max_batch"],
        memory=given["memory"],
        idle_unload=given["idle_unload"],
        metadata=given["metadata"],
        c2pa_cert=None if given["c2pa_cert"] is None else Path(given["c2pa_cert"]),
        c2pa_key=None if given["c2pa_key"] is None else Path(given["c2pa_key"]),
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
