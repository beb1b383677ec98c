"""Plain JSON data <-> frozen dataclasses, strictly: what is unknown, missing or wrong is refused.

Knows nothing of what the settings mean; the other files of `calotype.config` hold those.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from calotype.config.ranges import shown
from calotype.errors import CalotypeError, ConfigError
from calotype.storage.reading import AGAIN, read_regular

_MAX_BYTES = 10_000_000
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Retired:
    """A field that files of before may have; a record lists those it had in `RETIRED`.

    Args:
        name: of the field.
        inert: values that meant nothing and are passed over; () = all.
        remedy: what to do about any other value.
        now: the field's name now, if it has only been renamed.
    """

    name: str
    inert: tuple[Any, ...] = ()
    remedy: str = ""
    now: str | None = None


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON data; `from_dict` reads it back.

    Fields that a record lists in `ADDED` are left out at their defaults: they came after files were
    written, and hashes and comparisons of those stay what they were.
    """
    return typing.cast(dict[str, Any], json.loads(json.dumps(_plain(config))))


def load_config(path: Path, kind: type[T]) -> T:
    """Read a JSON file into a config.

    Raises:
        ConfigError: the file cannot be read, is no JSON, has unknown or missing keys, or values
            of the wrong kind or range.
    """
    try:
        data = json.loads(read_regular(path, most_bytes=_MAX_BYTES).decode("utf-8"))
        return from_dict(data, kind)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid JSON: nested too deeply; {AGAIN}") from error


def load_settings(path: Path, kind: type[T]) -> T:
    """Settings of `kind` in a JSON file.

    Raises:
        CalotypeError: the file is missing.
        ConfigError: it is damaged or holds other settings.
    """
    if not path.is_file():
        raise CalotypeError(f"{path} is missing; {AGAIN}, or name another model")
    return load_config(path, kind)


def from_dict(data: Any, kind: type[T]) -> T:
    """Read plain JSON data into the dataclass `kind`; the inverse of `to_dict`."""
    return typing.cast(T, _convert(data, kind, kind.__name__))


def override(config: T, assignments: typing.Sequence[str]) -> T:
    """Apply `key.sub=value` assignments (values are JSON, or else strings) to a config."""
    data = to_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise ConfigError(f"got {assignment!r}; expected key=value, e.g. batch_size=32")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        _assign(data, key.strip(), value)
    return from_dict(data, type(config))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        added = getattr(value, "ADDED", ())
        held = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {f.name: _plain(v) for f, v in held if f.name not in added or v != f.default}
    if isinstance(value, typing.Mapping):
        return {key: _plain(held) for key, held in value.items()}
    return [_plain(held) for held in value] if isinstance(value, list | tuple) else value


def _assign(data: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place: Any = data
    for name in parents:
        index: Any = int(name) if isinstance(place, list) and name.isdigit() else name
        try:
            place = place[index]
        except (KeyError, IndexError, TypeError):
            raise ConfigError(f"unknown key {name!r} in {key!r}{_hint(name, place)}") from None
    if isinstance(place, list) and last.isdigit() and int(last) < len(place):
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value  # an unknown name is refused with its record
    else:
        raise ConfigError(f"unknown key {last!r} in {key!r}{_hint(last, place)}")


def _hint(name: str, known: Any) -> str:
    if not isinstance(known, dict):
        return ""
    close = difflib.get_close_matches(name, known, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; expected one of {', '.join(known)}"


def _convert(value: Any, kind: Any, where: str) -> Any:
    origin = get_origin(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _convert_record(value, kind)
    if origin in (Union, types.UnionType):
        return _convert_union(value, get_args(kind), where)
    if origin is Literal:
        if value not in get_args(kind):
            known = list(get_args(kind))
            raise ConfigError(f"got {where}={shown(value)}; expected one of {known}")
        return value
    if origin is tuple:
        return _convert_tuple(value, get_args(kind), where)
    if origin is Mapping:
        if not isinstance(value, dict):
            raise ConfigError(f"got {where}={shown(value)}; expected an object")
        return {k: _convert(v, get_args(kind)[1], f"{where}[{k!r}]") for k, v in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if kind is Any or (isinstance(value, kind) and not (kind is int and isinstance(value, bool))):
        return value
    expected = "nothing (null)" if kind is type(None) else kind.__name__
    raise ConfigError(f"got {where}={shown(value)}; expected {expected}")


def _finite(value: float, where: str) -> float:
    """A float of a JSON number, which may be of 400 digits, NaN or Infinity."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"got {where}={shown(value)}; expected a finite number")
    return number


def _convert_record(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"got {shown(value)}; expected the fields of {kind.__name__}")
    hints = get_type_hints(kind)
    for old in getattr(kind, "RETIRED", ()):
        if old.name in value and old.now is not None:
            value = {old.now if k == old.name else k: v for k, v in value.items()}
        elif old.name in value:
            if old.inert and value[old.name] not in old.inert:
                raise ConfigError(f"got {old.name}={shown(value[old.name])}; {old.remedy}")
            value = {k: v for k, v in value.items() if k != old.name}
    for key in value:
        if key not in hints:
            raise ConfigError(f"unknown key {key!r} in {kind.__name__}{_hint(key, hints)}")
    required = {
        f.name
        for f in dataclasses.fields(kind)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - set(value))
    if missing:
        raise ConfigError(f"missing {missing} in {kind.__name__}; add them")
    return kind(**{k: _convert(v, hints[k], f"{kind.__name__}.{k}") for k, v in value.items()})


def _convert_tuple(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"got {where}={shown(value)}; expected a list")
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_convert(v, kinds[0], f"{where}[{i}]") for i, v in enumerate(value))
    if len(value) != len(kinds):
        raise ConfigError(f"got {len(value)} values for {where}; expected {len(kinds)}")
    return tuple(_convert(v, k, where) for v, k in zip(value, kinds, strict=True))


def _convert_union(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    records = {k.__dataclass_fields__["kind"].default: k for k in kinds if hasattr(k, "kind")}
    if records and isinstance(value, dict):
        assumed = (name for name, record in records.items() if getattr(record, "ASSUMED", False))
        name = value.get("kind", next(assumed, None))
        if not isinstance(name, str) or name not in records:
            raise ConfigError(f"got {where}.kind={shown(name)}; expected one of {list(records)}")
        return _convert(value, records[name], where)
    return _convert(value, kinds[0], where)
