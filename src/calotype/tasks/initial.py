"""Weights to start from: `--init` takes a file, a stage's folder, a cascade or a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from calotype.cascade.find import NoCascade, find_cascade
from calotype.cascade.io import STAGE_FILE, read_cascade_file
from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig
from calotype.config.class_names import listed
from calotype.config.stage import StageConfig
from calotype.config.typed_json import load_settings
from calotype.errors import CalotypeError, UsageError
from calotype.storage.reading import check_regular

_WEIGHTS = "weights.safetensors"
_CLASSES = "network.classes.weight"
_TEXT = ".text."  # of the module that reads captions, and of its keys and values in each layer


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


def check_initial_classes(path: Path, config: StageConfig) -> None:
    """Refuse weights of a stage whose classes have other names, or another order.

    Raises:
        UsageError: they are such; where `path` is a file of weights alone, nobody knows.
    """
    settings = _weights_file(path, config.resolution).with_name(STAGE_FILE)
    if config.class_count == 0 or not settings.is_file():
        return
    names = load_settings(settings, StageConfig).classes
    if names and names != config.classes:
        raise UsageError(
            f"got --init {path} with the classes {listed(names)} for the classes "
            f"{listed(config.classes)}; expected the same, in the same order"
        )


def with_new_inputs(weights: Mapping[str, Tensor], stage: Stage) -> dict[str, Tensor]:
    """The weights, with what they lack of inputs: extra channels, a draft's spread, text, classes.

    Extra channels begin at zero. In-painting begins from plain weights so: at first the network
    answers as they do, to the bit; ADM to rounding, whose extra channels stand in the first
    convolution, behind the noisy image. A network that was told nothing can so go on with classes,
    which begin at zero, too, and ADM with text, whose modules begin at their own initial values.
    """
    own = stage.state_dict()
    # A recipe from before drafts had a spread can do without.
    filled = {k: t for k, t in weights.items() if k in own or not k.endswith("draft.spread")}
    filled |= {
        name: torch.zeros(tensor.shape)
        for name, tensor in own.items()
        if name not in weights and (".extra_in." in name or name.endswith("draft.spread"))
    }
    network = stage.config.network
    if isinstance(network, AdmConfig):
        filled |= _new_conditioning(weights, own)
    stems = [name for name in own if name.endswith("stem.weight") and name in weights]
    for name in stems if isinstance(network, AdmConfig) else ():
        given, square = weights[name], network.fold**2
        missing = square * network.extra_channels
        if own[name].shape[1] - given.shape[1] == missing:
            zeros = given.new_zeros(len(given), missing, *given.shape[2:])
            behind = 3 * square
            filled[name] = torch.cat((given[:, :behind], zeros, given[:, behind:]), dim=1)
    return filled


def _new_conditioning(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Text modules and classes of an ADM network whose weights have none of either's."""
    new = {k: torch.zeros(t.shape) for k, t in own.items() if k.endswith(_CLASSES)}
    if not any(_TEXT in name for name in weights):
        new |= {name: tensor for name, tensor in own.items() if _TEXT in name}
    return {name: tensor for name, tensor in new.items() if name not in weights}


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
