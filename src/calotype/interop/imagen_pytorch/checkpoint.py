"""The trainer's checkpoint files: reading, and making a cascade from one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from calotype.errors import CalotypeError, UsageError
from calotype.interop.imagen_pytorch import files
from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.keys import under
from calotype.training.optimizer import optimizer_tensors, restore_optimizer

if TYPE_CHECKING:
    from calotype.interop.imagen_pytorch.trainer import ImagenTrainer

KIND = "calotype imagen-pytorch trainer"


def save(trainer: ImagenTrainer, path: Path, extra: Mapping[str, Any], *, optimizers: bool) -> None:
    """Write a checkpoint; `extra` is JSON data that `load` returns."""
    tensors = {f"model.{k}": v for k, v in trainer.imagen.state_dict().items()}
    tensors |= {f"ema.{k}": v for k, v in trainer.ema_unets.state_dict().items()}
    tensors["steps"] = trainer.steps
    for i, optimizer in enumerate(trainer.optimizers if optimizers else ()):
        state = optimizer_tensors(optimizer)
        tensors |= {f"optim.{i}.{k}": v for k, v in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        texts = {"imagen": json.dumps(files.describe(trainer.imagen)), "extra": json.dumps(extra)}
    except TypeError as error:
        raise UsageError(f"got extra data that is not JSON: {error}") from error
    files.write_tensors(path, tensors, {"kind": KIND, **texts})


def load(trainer: ImagenTrainer, path: Path, *, strict: bool, only_model: bool) -> dict[str, Any]:
    """Read a checkpoint into a trainer; its extra data."""
    tensors, metadata = _read_checkpoint(path)
    try:
        trainer.imagen.load_state_dict(under(tensors, "model."), strict=strict)
        if not only_model and len(trainer.ema_unets) > 0:
            trainer.ema_unets.load_state_dict(under(tensors, "ema."), strict=strict)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise CalotypeError(f"{path} does not fit this cascade: {reason}") from error
    if not only_model:
        trainer.steps.copy_(tensors["steps"])
        for i, optimizer in enumerate(trainer.optimizers):
            restore_optimizer(optimizer, under(tensors, f"optim.{i}."))
    extra: dict[str, Any] = json.loads(metadata["extra"])
    return extra


def cascade_from(path: Path) -> CascadedUnets:
    """The cascade of a trainer's checkpoint, or of a converted folder, with its weights."""
    if path.is_dir():
        model = files.load(path)
    else:
        tensors, metadata = _read_checkpoint(path)
        model = files.fill(files.build(json.loads(metadata["imagen"])), under(tensors, "model."))
    if not isinstance(model, CascadedUnets):
        raise UsageError(f"{path} holds a single U-Net; expected a cascade")
    return model


def files_of(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    found = [f for f in folder.glob("checkpoint.*.pt") if f.name.split(".")[1].isdigit()]
    return sorted(found, key=lambda file: int(file.name.split(".")[1]))


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = files.read_tensors(path)
    if metadata.get("kind") != KIND or not {"imagen", "extra"} <= metadata.keys():
        raise CalotypeError(f"{path} is no checkpoint of ImagenTrainer; give one that it saved")
    return tensors, metadata
