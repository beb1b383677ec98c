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
    try:
        save(_flat(tensors), storage_writer=writer, process_group=group.control)
    except CheckpointException as error:
        raise CalotypeError(
            f"cannot write {place}: {_reason(error)}; the last checkpoint is whole: mend the disk "
            "and continue with --resume"
        ) from _cause(error)


def read_shards(path: Path, state: TrainState | None = None) -> Tensors:
    """All tensors of a sharded checkpoint by file and name.

    Sharded as those of `state`, where all processes call this; whole without it.
    """
    reader: Any = HuggingFaceStorageReader(str(path / FOLDER))
    likes, parameters = dict[str, Tensor](), list[Tensor]()
    if state is not None:
        likes = _flat(state.tensors())
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
    read = {}
    for key, entry in reader.read_metadata().state_dict_metadata.items():
        file, _, name = key.partition("/")
        like, number = likes.get(key), name.partition(".")[0]
        if parameters and file == "optimizer.safetensors" and number.isdecimal():
            like = parameters[int(number)]  # no moments before the first step
        if like is None or like.shape != entry.size:
            like = torch.empty(entry.size)
        read[key] = torch.empty_like(like.detach(), dtype=entry.properties.dtype)
    control = None if state is None else state.parallel.group.control
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # says that one process reads; that is meant
        try:
            load(read, storage_reader=reader, process_group=control, no_dist=state is None)
        except CheckpointException as error:  # no Exception itself
            raise CalotypeError(f"cannot read {reader.checkpoint_id}: {_reason(error)}") from error
    tensors: Tensors = {}
    for key, tensor in read.items():
        file, _, name = key.partition("/")
        tensors.setdefault(file, {})[name] = tensor
    return tensors


def _flat(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{file}/{name}": t for file, own in tensors.items() for name, t in own.items()}


def _reason(error: BaseException) -> str:
    return " ".join(str(_cause(error)).split())


def _cause(error: BaseException) -> BaseException:
    """What the first process that failed has met: it says whether a disk is full."""
    failures = getattr(error, "failures", {})
    first = next(iter(failures.values()), None)
    return error if first is None else first[0]
