"""Weights to start from: `--init` takes a file, a stage's folder, a cascade or a run."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from calotype.cascade.find import NoCascade, find_cascade
from calotype.cascade.io import STAGE_FILE, read_cascade_file
from calotype.errors import CalotypeError, UsageError
from calotype.storage.reading import check_regular

_WEIGHTS = "weights.safetensors"


def initial_weights(path: Path, *, resolution: int) -> dict[str, Tensor]:
    """Read the weights that `--init` names, for a stage of `resolution`.

    Raises:
        UsageError: there are none.
        CalotypeError: the file is damaged.
    """
    file = _weights_file(path, resolution)
    try:
        check_regular(file)
        return {name: tensor.float() for name, tensor in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise CalotypeError(f"cannot read the weights {file}: {error}; copy them again") from error


def _weights_file(path: Path, resolution: int) -> Path:
    if path.is_file():
        return path
    if (path / STAGE_FILE).is_file():
        return path / _WEIGHTS
    try:
        folder = find_cascade(path)
    except NoCascade as error:
        raise UsageError(
            f"got --init {str(path)!r:.200}; expected 'default', a file of weights "
            "(.safetensors), a stage's folder, a cascade or a run"
        ) from error
    for entry in read_cascade_file(folder).stages:
        if entry.folder == str(resolution):
            return folder / entry.folder / _WEIGHTS
    raise UsageError(
        f"got --init {path}, which has no stage of {resolution} pixels; choose another"
    )
