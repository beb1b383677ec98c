"""Reading other people's files as data: nothing in them is run, followed or believed.

Settings are JSON of limited size. Weights are safetensors, whole or in shards that an index names
by plain file names; every header is checked against the size of its file before anything is
allocated. Pickles are read by `calotype.interop.pickles` alone.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.storage import headers
from calotype.storage.reading import read_regular

JSON_LIMIT = 64_000_000
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1, "I8": 1}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,200}")
_AGAIN = "get the file again"
Shapes = Mapping[str, tuple[int, ...]]
"""Of tensors, by name."""


@dataclass(frozen=True)
class ForeignTensor:
    """One entry of a safetensors header, checked, and the file it is in."""

    path: Path
    shape: tuple[int, ...]


class ForeignWeights(dict[str, ForeignTensor]):
    """Named tensors in one or several safetensors files; read one by one, when asked."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return {name: entry.shape for name, entry in self.items()}

    def reader(self) -> Callable[[str], Tensor]:
        """A function from names to tensors in float32; files stay open as long as it lives."""
        from safetensors import SafetensorError, safe_open

        files: dict[Path, Any] = {}

        def read(name: str) -> Tensor:
            path = self[name].path
            try:
                if path not in files:
                    files[path] = safe_open(path, framework="pt")
                return files[path].get_tensor(name).to(torch.float32, copy=True)  # type: ignore[no-any-return]
            except (OSError, SafetensorError, RuntimeError) as error:
                raise CalotypeError(f"{path} cannot be read: {error}; {_AGAIN}") from error

        return read


def mismatch(found: Shapes, expected: Shapes) -> str | None:
    """How a file differs from what a network needs; None if names and shapes are the same."""
    missing, unknown = sorted(expected.keys() - found), sorted(found.keys() - expected)
    if missing or unknown:
        what = f"lacks {missing[0]!r:.120}" if missing else f"has the unknown {unknown[0]!r:.120}"
        return f"{what} ({len(missing)} missing, {len(unknown)} unknown)"
    for name, shape in expected.items():
        if list(found[name]) != list(shape):
            return f"has {name!r:.120} of shape {list(found[name])}, expected {list(shape)}"
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of another program.

    Raises:
        CalotypeError: missing, too large, or no JSON object.
    """
    try:
        data = json.loads(read_regular(path, most_bytes=JSON_LIMIT))
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}; {_AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise CalotypeError(f"{path} is no valid JSON; {_AGAIN}") from error
    if not isinstance(data, dict):
        raise CalotypeError(f"{path} holds a {type(data).__name__}; expected a JSON object")
    return data


@dataclass(frozen=True)
class ForeignSettings:
    """A JSON object of another program, read strictly; a `ConfigError` says `where` it is wrong."""

    data: Mapping[str, Any]
    where: str

    @staticmethod
    def read(path: Path) -> ForeignSettings:
        """Those of a file."""
        return ForeignSettings(read_json(path), str(path))

    def check(
        self,
        classes: Sequence[str],
        known: Sequence[str],
        choices: Mapping[str, Sequence[Any]] = MappingProxyType({}),
    ) -> str:
        """Its class, one of `classes`; keys are all `known`, or begin with "_" and are notes.

        Of further known keys `choices` are the values; see `one_of`.
        """
        kind = self.data.get("_class_name")
        if kind not in classes:
            raise ConfigError(f"{self.where}: got the class {kind!r:.80}; known: {list(classes)}")
        keys = sorted([*known, *choices])
        unknown = sorted(key for key in self.data if key not in keys and not key.startswith("_"))
        if unknown:
            raise self.wrong(f"got the unknown key {unknown[0]!r:.120}; known: {keys}")
        for key, values in choices.items():
            self.one_of(key, values)
        return str(kind)

    def one_of(self, key: str, values: Sequence[Any]) -> Any:
        """A value, one of `values`; where it is missing the first."""
        value = self.data.get(key, values[0])
        if value not in values:
            raise self.wrong(f"got {key}={value!r:.80}; expected one of {list(values)}")
        return value

    def number(self, key: str, default: float) -> float:
        """A number; where it is missing the default."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(f"got {key}={value!r:.80}; expected a number")
        return float(value)

    def whole(self, key: str, default: int | None = None) -> int:
        """A whole number above 0; where it is missing the default, if there is one."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.wrong(f"got {key}={value!r:.80}; expected a whole number")
        return value

    def wrong(self, message: str) -> ConfigError:
        """An error that says where it is."""
        return ConfigError(f"{self.where}: {message}")


def open_weights(folder: Path, stem: str = "diffusion_pytorch_model") -> ForeignWeights:
    """The safetensors of a component's folder: whole or in shards, plain or a fp16 variant.

    Raises:
        CalotypeError: none there, or damaged.
        UsageError: an index names files outside its folder.
    """
    for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
        if (folder / name).is_file():
            return ForeignWeights(read_header(folder / name))
    for name in (f"{stem}.safetensors.index.json", f"{stem}.safetensors.index.fp16.json"):
        if (folder / name).is_file():
            return _open_shards(folder / name)
    pickles = sorted(folder.glob(f"{stem}*.bin"))
    if pickles:
        raise UsageError(
            f"{folder} holds pickles only ({pickles[0].name}); convert them first: calotype convert"
        )
    raise CalotypeError(f"{folder} has no {stem}.safetensors; {_AGAIN}")


def _open_shards(index: Path) -> ForeignWeights:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CalotypeError(f"{index} has no weight_map; {_AGAIN}")
    for name in weight_map.values():
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name) or ".." in name:
            raise UsageError(
                f"{index} names the file {name!r:.120}; expected a plain file name in the same "
                "folder"
            )
    found = {name: read_header(index.parent / name) for name in sorted({*weight_map.values()})}
    entries = {}
    for name, shard in weight_map.items():
        if name not in found[shard]:
            raise CalotypeError(f"{index.parent / shard} lacks {name!r:.120}; {_AGAIN}")
        entries[name] = found[shard][name]
    return ForeignWeights(entries)


def read_header(path: Path) -> dict[str, ForeignTensor]:
    """The entries of a safetensors file, checked against its size; nothing else is read.

    Raises:
        CalotypeError: missing, truncated or damaged.
    """
    header = headers.read_header(path)
    return {
        name: _entry(name, entry, path, header.data_bytes) for name, entry in header.tensors.items()
    }


def _entry(name: str, entry: Any, path: Path, size: int) -> ForeignTensor:
    """One entry, if its shape, type and place agree with each other and with the file."""
    entry = entry if isinstance(entry, dict) else {}
    kind, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(kind, str) and kind in _BYTES and _numbers(shape) and _numbers(place)):
        raise CalotypeError(f"{path} has a damaged entry {name!r:.120}; {_AGAIN}")
    claimed = math.prod(shape) * _BYTES[kind]
    if len(place) != 2 or place[1] > size or place[1] - place[0] != claimed:
        raise CalotypeError(
            f"{path}: {name!r:.120} of shape {str(shape)[:80]} claims {claimed} bytes of a file "
            f"with {size}; it is truncated or damaged: {_AGAIN}"
        )
    return ForeignTensor(path, tuple(shape))


def _numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in values
    )
