"""Reads one pickle of weights and writes safetensors; see `calotype.interop.pickles`.

Run as `python -m calotype.interop.pickle_worker FILE FOLDER BYTES`. The limit is on memory beyond
what the imports took.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

_DEEPEST = 16
_MOST_VALUES = 1_000_000
_MOST_LETTERS = 16_000_000  # what `plain.json` may hold is limited where it is read, too
_LONGEST_LIST = 10_000


def limit_memory(extra: int) -> None:
    """Let this process allocate no more than `extra` bytes from now on, where the system can."""
    try:
        import resource
    except ImportError:  # not a POSIX system: weights_only remains
        return
    status = Path("/proc/self/status")
    used = re.search(r"VmData:\s*(\d+)", status.read_text() if status.is_file() else "")
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    limit = extra + (0 if used is None else int(used[1]) * 1024)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class Budget:
    """How much may still be visited of a file.

    A pickle may name one list a thousand times, and that in another list a thousand times: few
    bytes, endless values once it is written out.
    """

    def __init__(self) -> None:
        self.values, self.letters = _MOST_VALUES, _MOST_LETTERS

    def spend(self, letters: int = 0) -> None:
        """Count a value, and the length of its text."""
        self.values -= 1
        self.letters -= letters
        if self.values < 0 or self.letters < 0:
            raise ValueError("it holds more names and values than any checkpoint")

    def key(self, key: Any) -> str:
        """A dictionary's key as text; those of checkpoints are words and numbers."""
        if not isinstance(key, bool | int | float | str):
            raise ValueError(f"a dictionary has a key of type {type(key).__name__}")
        text = str(key)
        self.spend(len(text))
        return text


def leaves(value: Any, budget: Budget, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Tensors and plain values of nested dictionaries, by names joined with "/"."""
    if depth > _DEEPEST:
        raise ValueError("dictionaries are nested too deeply")
    budget.spend(len(name))
    if isinstance(value, dict):
        for key, inner in value.items():
            word = budget.key(key)
            yield from leaves(inner, budget, f"{name}/{word}" if name else word, depth + 1)
    else:
        yield name, value


def _checked(name: str, tensor: Tensor, size: int) -> Tensor:
    """A copy of its own; a view may claim far more elements than the file has bytes."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ValueError(f"{name!r:.120} is no plain tensor")
    if tensor.numel() * tensor.element_size() > max(size, 4096):
        raise ValueError(f"{name!r:.120} claims more bytes than the file has")
    return tensor.detach().contiguous().clone()


def convert(path: Path, folder: Path) -> None:
    """Read `path`, write `weights.safetensors` and `plain.json` into `folder`."""
    size = path.stat().st_size
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    total = 0
    budget = Budget()
    for name, value in leaves(loaded, budget):
        if name in tensors or name in plain:
            raise ValueError(f"two entries are called {name!r:.120}")
        if isinstance(value, Tensor):
            tensors[name] = _checked(name, value, size)
            total += tensors[name].numel() * tensors[name].element_size()
            if total > 2 * size + 4096:
                raise ValueError("its tensors claim more bytes than the file has")
        else:
            plain[name] = _plain(value, budget)
    save_file(tensors, folder / "weights.safetensors", metadata={"format": "pt"})
    (folder / "plain.json").write_text(json.dumps(plain), "utf-8")


def _plain(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Numbers, strings, nothing, lists and records of such; of anything else, its type's name."""
    budget.spend(len(value) if isinstance(value, str) else 0)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth < _DEEPEST and isinstance(value, list | tuple) and len(value) <= _LONGEST_LIST:
        return [_plain(v, budget, depth + 1) for v in value]
    if depth < _DEEPEST and isinstance(value, dict) and len(value) <= _LONGEST_LIST:
        return {budget.key(k): _plain(v, budget, depth + 1) for k, v in value.items()}
    return f"<{type(value).__name__}>"


def _reason(error: Exception) -> str:
    """What is wrong with a file; torch's own words would advise to run what is in it."""
    text = f"{type(error).__name__}: {error}"
    if "memory" in text or isinstance(error, MemoryError):
        return "it wants more memory than its size allows"
    if "weights_only" not in text and "Weights only" not in text:
        return text
    named = re.search(r"GLOBAL ([\w.]{1,80})", text)
    if named is None:
        return "it is damaged, or no pickle of plain weights"
    return f"it holds {named[1]}, which is no tensor or plain value; nothing of it was run"


def main(arguments: list[str]) -> int:
    """Do it; an error is one JSON object on stdout and exit code 1."""
    path, folder, limit = Path(arguments[0]), Path(arguments[1]), int(arguments[2])
    torch.set_num_threads(1)
    limit_memory(limit)
    try:
        convert(path, folder)
    except Exception as error:
        print(json.dumps({"error": _reason(error)[:1000]}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
