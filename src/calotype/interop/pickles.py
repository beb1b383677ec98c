"""Reading pickles of weights: for `convert`, and for `load` of GLIDE, which has no other files.

A process of its own reads them with `weights_only=True`, under a limit on its memory that follows
from the size of the file, and writes safetensors; this process reads those as it would any.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError
from calotype.interop.safety import ForeignWeights, read_header, read_json

_SPARE_BYTES = 256_000_000  # for the interpreter's own needs while it reads
_BYTES_PER_SECOND = 2_000_000  # slower than this, reading is given up


@dataclass(frozen=True)
class Unpickled:
    """Tensors of a pickle, and its numbers, strings and lists of such (`plain`).

    The names of nested dictionaries are joined by "/".
    """

    weights: ForeignWeights
    plain: dict[str, Any]


@contextmanager
def unpickled(path: Path) -> Iterator[Unpickled]:
    """Read a pickle of weights (`.pt`, `.bin`, `.ckpt`); the tensors live within the block.

    Raises:
        CalotypeError: no such file, not a pickle of plain weights, or too much memory for its size.
    """
    if not path.is_file():
        raise CalotypeError(f"{path} is missing; get the file again")
    with tempfile.TemporaryDirectory(prefix="calotype-") as name:
        folder = Path(name)
        _run(path, folder)
        weights = folder / "weights.safetensors"
        yield Unpickled(ForeignWeights(read_header(weights)), read_json(folder / "plain.json"))


def _run(path: Path, folder: Path) -> None:
    size = path.stat().st_size
    # The file itself, its tensors, and the bytes written: thrice, with room to spare.
    limit = 4 * size + _SPARE_BYTES
    command = [sys.executable, "-m", "calotype.interop.pickle_worker"]
    seconds = 120 + size // _BYTES_PER_SECOND
    try:
        done = subprocess.run(
            [*command, str(path.resolve()), str(folder), str(limit)],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise CalotypeError(f"{path} took over {seconds} s to read; it is no plain file") from error
    if done.returncode != 0:
        raise CalotypeError(f"{path} cannot be read as plain weights: {_reason(done.stdout)}")


def _reason(output: str) -> str:
    try:
        reason = json.loads(output.strip().splitlines()[-1])["error"]
    except (ValueError, IndexError, KeyError, TypeError):
        reason = "the reader was stopped; the file wants more memory than its size allows"
    return " ".join(str(reason).split())[:300]
