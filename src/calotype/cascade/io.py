"""Cascades on disk: `cascade.json`, and one folder a stage with safetensors and JSON; no pickle.

Nothing in a file is believed: the header is compared with the network the settings describe, built
without memory, and the SHA-256 with the one noted down, before a single weight is copied.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from calotype.cascade.stage import Stage
from calotype.config.stage import CascadeConfig, StageConfig
from calotype.config.typed_json import load_config, to_dict
from calotype.errors import CalotypeError, ConfigError
from calotype.storage.files import (
    check_holds_only,
    new_folder,
    write_error,
    write_file,
    write_with,
)
from calotype.storage.headers import read_header
from calotype.storage.reading import check_regular, open_regular

CASCADE_FILE, STAGE_FILE, WEIGHTS_FILE = "cascade.json", "stage.json", "weights.safetensors"
CARD_FILE = "README.md"
_NUMBER_TYPES = ["BF16", "F16", "F32"]  # lists: what a header says may have no hash
_INTEGERS = ["I8"]
_COMPILED = "_orig_mod."  # what torch.compile puts into the names of weights
T = TypeVar("T")
Module = TypeVar("Module", bound=nn.Module)
_AGAIN = "get the file again"


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """One stage in `cascade.json`: its folder's name and the SHA-256 of its weights file."""

    folder: str
    sha256: str

    def __post_init__(self) -> None:
        """Check that the folder stays inside and that the hash is one."""
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", self.folder):
            raise ConfigError(f"got folder={self.folder!r}; expected a plain name such as '64'")
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(f"got sha256={self.sha256!r:.80}; expected 64 hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class CascadeFile:
    """What `cascade.json` holds."""

    format: int
    name: str
    text_encoder: str
    stages: tuple[StageEntry, ...]
    prior: StageEntry | None = None

    def __post_init__(self) -> None:
        """Check the version of the format."""
        if self.format != 1:
            raise ConfigError(f"got format={self.format}; expected 1: get a newer calotype")
        if not self.stages:
            raise ConfigError("got no stages; expected at least one")


def save_stage(stage: Stage, folder: Path, *, dtype: torch.dtype = torch.float32) -> str:
    """Write a stage's settings and weights into `folder`, made if missing.

    Args:
        stage: what is saved.
        folder: where; each of its two files is replaced all at once.
        dtype: number type of the parameters in the file; buffers stay float32 or integers.

    Returns:
        The SHA-256 of the weights file.

    Raises:
        CalotypeError: the disk is full or the folder cannot be written to, or a weight is not
            finite in `dtype`.
    """
    return save_module(stage, stage.config, folder / STAGE_FILE, dtype=dtype)


def save_module(module: nn.Module, config: object, file: Path, *, dtype: torch.dtype) -> str:
    """Write settings into `file`, and weights beside it; as `save_stage`."""
    from safetensors.torch import save_file

    tensors = tensors_to_save(module, dtype)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(file.parent, error) from error
    weights = file.parent / WEIGHTS_FILE
    write_with(weights, lambda path: save_file(tensors, path, metadata={"format": "pt"}))
    write_file(file, json.dumps(to_dict(config), indent=1).encode())
    return file_sha256(weights)


def tensors_to_save(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """Parameters as `dtype`, buffers as float32 or, where they are integers, as they are.

    Raises:
        CalotypeError: a number is not finite.
    """
    parameters = {name for name, _ in module.named_parameters()}
    tensors = {}
    for name, tensor in module.state_dict().items():
        kind = dtype if name in parameters else torch.float32
        kind = kind if tensor.is_floating_point() else tensor.dtype
        saved = tensor.detach().to("cpu", kind, copy=True, memory_format=torch.contiguous_format)
        if not bool(saved.isfinite().all()):
            raise CalotypeError(
                f"the weight {name!r} is not finite as {kind}; save as float32, or go back to an "
                "earlier checkpoint"
            )
        tensors[name.replace(_COMPILED, "")] = saved
    return tensors


def load_stage(folder: Path, *, sha256: str | None = None) -> Stage:
    """Read a stage, in float32 on the CPU, whatever the number type of the file.

    Args:
        folder: with `stage.json` and `weights.safetensors`.
        sha256: what the weights file must have; None = not compared.

    Raises:
        CalotypeError: a file is missing, truncated or damaged, or does not fit the settings.
    """
    config = load_settings(folder / STAGE_FILE, StageConfig)
    return load_module(folder, lambda: Stage(config), sha256=sha256)


def load_module(folder: Path, build: Callable[[], Module], *, sha256: str | None) -> Module:
    """Build a module without memory and give it the weights in `folder`; as `load_stage`."""
    with torch.device("meta"):
        module = build()
    weights = folder / WEIGHTS_FILE
    expected = module.state_dict()
    check_header(weights, expected)
    if sha256 is not None and file_sha256(weights) != sha256:
        raise CalotypeError(f"{weights} has another SHA-256 than noted in its cascade; {_AGAIN}")
    module.load_state_dict(load_tensors(weights, expected), assign=True)
    return module.requires_grad_(True).eval()


def load_tensors(weights: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Tensors of a weights file, each a copy of its own; in float32, but for integers."""
    from safetensors import SafetensorError, safe_open

    try:
        check_regular(weights)
        with safe_open(weights, framework="pt") as file:
            return {name: _loaded(file.get_tensor(name)) for name in names}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CalotypeError(f"{weights} cannot be read: {error}; {_AGAIN}") from error


def _loaded(tensor: Tensor) -> Tensor:
    """A copy of its own (the file may change); convolutions are fastest in channels_last."""
    layout = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.to(kind, copy=True, memory_format=layout)


def check_header(path: Path, expected: Mapping[str, Tensor]) -> None:
    """Compare names, shapes, types and size of a weights file with what is expected."""
    read = read_header(path)
    header, data_bytes = read.tensors, read.data_bytes
    missing, unknown = sorted(set(expected) - set(header)), sorted(set(header) - set(expected))
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has the unknown {unknown[0]!r:.200}"
        count = len(missing) + len(unknown)
        raise CalotypeError(
            f"{path} {what} ({count} names differ from the settings beside it); use the weights "
            "and the stage.json of one model"
        )
    end = 0
    for name, tensor in expected.items():
        entry = header[name]
        shape = list(tensor.shape)
        if not isinstance(entry, dict) or entry.get("shape") != shape:
            got = entry.get("shape") if isinstance(entry, dict) else entry
            raise CalotypeError(
                f"{path}: got {name!r} of shape {got!r:.80}; expected {shape}; use the weights "
                "and the stage.json of one model"
            )
        kinds = _NUMBER_TYPES if tensor.is_floating_point() else _INTEGERS
        if entry.get("dtype") not in kinds:
            raise CalotypeError(
                f"{path}: got {name!r} as {entry.get('dtype')!r:.80}; expected one of {kinds}"
            )
        end = max(end, _end_offset(entry, path))
    if end != data_bytes:
        raise CalotypeError(
            f"{path} holds {data_bytes} bytes of weights; expected {end}: it is truncated or "
            f"damaged; {_AGAIN}"
        )


def _end_offset(entry: Mapping[str, Any], path: Path) -> int:
    offsets = entry.get("data_offsets")
    if isinstance(offsets, list) and len(offsets) == 2 and isinstance(offsets[1], int):
        return int(offsets[1])
    raise CalotypeError(f"{path} has a damaged header; {_AGAIN}")


def save_cascade(
    folder: Path,
    *,
    stages: Sequence[Stage],
    text_encoder: str,
    name: str,
    dtype: torch.dtype = torch.float32,
    write_prior: Callable[[Path], str] | None = None,
) -> None:
    """Write a whole cascade; an older one in `folder` is replaced all at once.

    Its README.md is carried over. `write_prior` writes the cascade's prior, if it has one, and
    returns the SHA-256 of its weights.

    Raises:
        UsageError: `folder` holds something else.
        CalotypeError: the disk is full or `folder` cannot be written to.
    """
    config = CascadeConfig(
        stages=tuple(stage.config for stage in stages), text_encoder=text_encoder, name=name
    )
    folder = folder.resolve()
    check_replaceable(folder)
    with new_folder(folder) as temporary:
        entries = []
        for stage in stages:
            place = str(stage.config.resolution)
            digest = save_stage(stage, temporary / place, dtype=dtype)
            entries.append(StageEntry(folder=place, sha256=digest))
        prior = None
        if write_prior is not None:
            prior = StageEntry(folder="prior", sha256=write_prior(temporary / "prior"))
        file = CascadeFile(
            format=1,
            name=config.name,
            text_encoder=text_encoder,
            stages=tuple(entries),
            prior=prior,
        )
        data = to_dict(file)
        if prior is None:
            del data["prior"]  # readers of before priors existed refuse the key
        write_file(temporary / CASCADE_FILE, json.dumps(data, indent=1).encode())
        if (folder / CARD_FILE).is_file():
            shutil.copy2(folder / CARD_FILE, temporary / CARD_FILE)


def check_replaceable(folder: Path) -> None:
    """Refuse a folder for a cascade unless it is new, empty, or a cascade and nothing else.

    Only files that its cascade.json names, and README.md, are a cascade's; whatever else lies there
    would be lost.

    Raises:
        UsageError: it holds anything else.
        CalotypeError: it cannot be read.
    """
    own = {CASCADE_FILE, CARD_FILE}
    if (folder / CASCADE_FILE).is_file():
        file = read_cascade_file(folder)
        for entry in (*file.stages, *(() if file.prior is None else (file.prior,))):
            names = (STAGE_FILE, "prior.json", WEIGHTS_FILE)
            own |= {entry.folder, *(f"{entry.folder}/{name}" for name in names)}
    check_holds_only(folder, own, what="cascade", marker=CASCADE_FILE)


def read_cascade_file(folder: Path) -> CascadeFile:
    """`cascade.json` of a cascade folder."""
    return load_settings(folder / CASCADE_FILE, CascadeFile)


def read_cascade_config(folder: Path, file: CascadeFile) -> CascadeConfig:
    """All settings of a cascade folder whose `cascade.json` is `file`, without its weights."""
    stages = tuple(load_settings(folder / s.folder / STAGE_FILE, StageConfig) for s in file.stages)
    try:
        return CascadeConfig(stages=stages, text_encoder=file.text_encoder, name=file.name)
    except ConfigError as error:
        raise ConfigError(f"{folder / CASCADE_FILE}: {error}") from error


def load_settings(path: Path, kind: type[T]) -> T:
    """Settings of `kind` in a JSON file.

    Raises:
        CalotypeError: the file is missing.
        ConfigError: it is damaged or holds other settings.
    """
    if not path.is_file():
        raise CalotypeError(f"{path} is missing; {_AGAIN}, or name another model")
    try:
        return load_config(path, kind)
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid JSON: nested too deeply; {_AGAIN}") from error


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}; {_AGAIN}") from error
