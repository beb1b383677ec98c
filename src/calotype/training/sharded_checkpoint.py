"""State that is sharded over processes: written by all of them, read by any number of them.

    RUN/checkpoints/<images>/sharded/shard-00001-model-00001-of-00001.safetensors, ...

`torch.distributed.checkpoint` plans who writes and reads what. Its safetensors writer is used, not
its default one, whose index is a pickle. A tensor is called "<file>/<name>" after the file and name
that it has in the checkpoints of one process.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from calotype.errors import CalotypeError
from calotype.training.distributed import Group
from calotype.training.state import TrainState

FOLDER = "sharded"
Tensors = dict[str, dict[str, Tensor]]


def is_sharded(path: Path) -> bool:
    """Whether a checkpoint was written by several processes."""
    return (path / FOLDER).is_dir()


def write_shards(folder: Path, tensors: Mapping[str, Mapping[str, Tensor]], group: Group) -> None:
    """Write the parts of all processes into `folder`/sharded; all of them call this.

    Raises:
        CalotypeError: a process could not write.
    """
    place = folder / FOLDER
    writer = HuggingFaceStorageWriter(str(place), save_distributed=True)
    flat = {f"{file}/{name}": t for file, own in tensors.items() for name, t in own.items()}
    try:
        save(flat, storage_writer=writer, process_group=group.control)
    except CheckpointException as error:
        raise CalotypeError(
            f"cannot write {place}: {_reason(error)}; the last checkpoint is whole: mend the disk "
            "and continue with --resume"
        ) from _cause(error)


def read_whole(path: Path) -> Tensors:
    """All tensors of a sharded checkpoint, whole, by file and name."""
    reader = HuggingFaceStorageReader(str(path / FOLDER))
    flat = {
        key: torch.empty(entry.size, dtype=entry.properties.dtype)
        for key, entry in _stored(reader).items()
    }
    return _load(flat, reader, None)


def read_parts(path: Path, state: TrainState, group: Group) -> Tensors:
    """The tensors of a sharded checkpoint, sharded as those of `state`; all processes call this."""
    reader = HuggingFaceStorageReader(str(path / FOLDER))
    own = state.tensors()
    likes = {f"{file}/{name}": t for file, tensors in own.items() for name, t in tensors.items()}
    parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    flat = {}
    for key, entry in _stored(reader).items():
        file, _, name = key.partition("/")
        like = likes.get(key)
        number = name.partition(".")[0]
        if file == "optimizer.safetensors" and number.isdecimal():
            like = parameters[int(number)]  # no moments before the first step
        if like is None or like.shape != entry.size:
            like = torch.empty(entry.size)
        flat[key] = torch.empty_like(like.detach(), dtype=entry.properties.dtype)
    return _load(flat, reader, group)


def _load(flat: dict[str, Tensor], reader: Any, group: Group | None) -> Tensors:
    control = None if group is None else group.control
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that one process reads; that is meant
        try:
            load(flat, storage_reader=reader, process_group=control, no_dist=group is None)
        except CheckpointException as error:  # no Exception itself
            raise CalotypeError(f"cannot read {reader.checkpoint_id}: {_reason(error)}") from error
    tensors: Tensors = {}
    for key, tensor in flat.items():
        file, _, name = key.partition("/")
        tensors.setdefault(file, {})[name] = tensor
    return tensors


def _stored(reader: HuggingFaceStorageReader) -> dict[str, Any]:
    """Shape and type of every tensor by its name."""
    return dict(reader.read_metadata().state_dict_metadata)


def _reason(error: BaseException) -> str:
    return " ".join(str(_cause(error)).split())


def _cause(error: BaseException) -> BaseException:
    """What the first process that failed has met: it says whether a disk is full."""
    failures = getattr(error, "failures", {})
    first = next(iter(failures.values()), None)
    return error if first is None else first[0]
