"""The prompts of a sample set, in a file beside its shards: what every process reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from calotype.errors import UsageError
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.storage.files import make_folder, write_file
from calotype.storage.json_lines import read_lines

PROMPTS_FILE = "prompts.jsonl"


def write_prompts(folder: Path, suite: Suite) -> Path:
    """Write a suite's prompts where all processes read them; the file.

    Raises:
        UsageError: the folder holds samples of other prompts.
    """
    lines = [json.dumps(asdict(prompt)) for prompt in suite.prompts]
    data = "".join(line + "\n" for line in lines).encode()
    path = folder / PROMPTS_FILE
    there = path.is_file() and path.read_bytes() != data
    if there and any(other.name != PROMPTS_FILE for other in folder.iterdir()):
        raise UsageError(f"{folder} holds samples of other prompts; choose another folder with -o")
    make_folder(folder)
    write_file(path, data)
    return path


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts that `write_prompts` wrote.

    Raises:
        UsageError: they are gone or damaged.
    """
    try:
        return [Prompt(**line) for line in read_lines(path)]
    except (OSError, TypeError) as error:
        raise UsageError(f"cannot read the prompts {path}; sample the set again") from error
