"""Weights of a module on disk: safetensors that are believed in nothing.

The header is compared with the module that the settings beside it describe, built without memory,
and the SHA-256 with the one noted down, before a single number is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from calotype.errors import CalotypeError
from calotype.storage.files import make_folder, write_with
from calotype.storage.headers import read_header
from calotype.storage.reading import AGAIN, check_regular, file_sha256

_NUMBER_BYTES, _INTEGER_BYTES = {"BF16": 2, "F16": 2, "F32": 4}, {"I8": 1}
_COMPILED = "_orig_mod."  # what torch.compile puts into the names of weights
Module = TypeVar("Module", bound=nn.Module)


def save_weights(module: nn.Module, path: Path, *, dtype: torch.dtype) -> str:
    """Write a module's weights, replacing the file all at once; its SHA-256.

    Args:
        module: what is saved.
        path: of the file, whose folder is made if missing.
        dtype: number type of the parameters in the file; buffers stay float32 or integers.

    Raises:
        CalotypeError: the disk is full or the folder cannot be written to, or a weight is not
            finite in `dtype`.
    """
    from safetensors.torch import save_file

    tensors = tensors_to_save(module, dtype)
    make_folder(path.parent)
    write_with(path, lambda place: save_file(tensors, place, metadata={"format": "pt"}))
    return file_sha256(path)


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


def load_module(weights: Path, build: Callable[[], Module], *, sha256: str | None) -> Module:
    """Build a module without memory and give it weights, in float32 on the CPU.

    Args:
        weights: the file, of any number type.
        build: makes the module.
        sha256: what the file must have; None = not compared.

    Raises:
        CalotypeError: the file is missing, truncated or damaged, or does not fit the module.
    """
    with torch.device("meta"):
        module = build()
    expected = module.state_dict()
    check_header(weights, expected)
    if sha256 is not None and file_sha256(weights) != sha256:
        raise CalotypeError(f"{weights} has another SHA-256 than was noted down; {AGAIN}")
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
        raise CalotypeError(f"{weights} cannot be read: {error}; {AGAIN}") from error


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
            "and the settings of one model"
        )
    end = 0
    for name, tensor in expected.items():
        entry = header[name] if isinstance(header[name], dict) else {"shape": header[name]}
        shape = list(tensor.shape)
        if entry.get("shape") != shape:
            raise CalotypeError(
                f"{path}: got {name!r} of shape {entry.get('shape')!r:.80}; expected {shape}; use "
                "the weights and the settings of one model"
            )
        sizes = _NUMBER_BYTES if tensor.is_floating_point() else _INTEGER_BYTES
        kind = entry.get("dtype")
        if not isinstance(kind, str) or kind not in sizes:
            raise CalotypeError(f"{path}: got {name!r} as {kind!r:.80}; expected one of {[*sizes]}")
        if not isinstance(entry.get("data_offsets"), list):  # safetensors looks into it
            raise CalotypeError(f"{path} has a damaged header; {AGAIN}")
        end += tensor.numel() * sizes[kind]
    if end != data_bytes:
        raise CalotypeError(
            f"{path} holds {data_bytes} bytes of weights; expected {end}: it is truncated or "
            f"damaged; {AGAIN}"
        )
