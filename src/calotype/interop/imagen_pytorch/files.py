"""Files of cascades and trainers: safetensors with settings as JSON, never pickle.

A file's names and shapes are checked against networks on the meta device before anything is
allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calotype.errors import CalotypeError, ConfigError
from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.imagen import ElucidatedImagen, Imagen
from calotype.interop.imagen_pytorch.presets import NullUnet
from calotype.interop.imagen_pytorch.text import as_encoder
from calotype.interop.imagen_pytorch.unet import Unet
from calotype.interop.safety import Shapes, mismatch, read_json
from calotype.storage.files import new_folder, write_file, write_with
from calotype.storage.places import check_holds_only
from calotype.storage.reading import open_regular
from calotype.text import TextEncoder

FORMAT = 1
SETTINGS_FILE = "imagen.json"
WEIGHTS_FILE = "weights.safetensors"
_CASCADES = {kind.__name__: kind for kind in (Imagen, ElucidatedImagen)}


def describe(model: nn.Module) -> dict[str, Any]:
    """All that makes a cascade or a U-Net, without its weights, as plain data."""
    if isinstance(model, CascadedUnets):
        kind = "ElucidatedImagen" if isinstance(model, ElucidatedImagen) else "Imagen"
        unets = [describe(unet) for unet in model.unets]
        data = {"kind": kind, "settings": asdict(model.settings), "unets": unets}
        return data | {"text_encoder": model.lazy_text.spec}
    if isinstance(model, Unet):
        return {"kind": "Unet", "settings": asdict(model.settings)}
    return {"kind": "NullUnet"}


def build(data: Any, *, text_encoder: TextEncoder | str | None = None) -> nn.Module:
    """The cascade or U-Net that `describe` describes; on the meta device, without weights.

    Raises:
        ConfigError: the description names unknown kinds or settings.
    """
    data = _mapping(data, "a cascade or U-Net")
    kind = data.get("kind")
    # Not on the meta device: an encoder has weights of its own.
    encoder = as_encoder(text_encoder)
    with torch.device("meta"):
        if kind == "NullUnet":
            return NullUnet()
        settings = _mapping(data.get("settings"), "settings")
        if kind == "Unet":
            return Unet(**settings)
        if kind not in _CASCADES:
            raise ConfigError(
                f"got kind {kind!r}; expected one of {[*_CASCADES, 'Unet', 'NullUnet']}"
            )
        described = data.get("unets")
        if not isinstance(described, list):
            raise ConfigError("got no list of unets; expected one record each")
        unets = [build(unet) for unet in described]
        model = _CASCADES[kind](unets, text_encoder=encoder, **settings)
    spec = data.get("text_encoder", model.lazy_text.spec) if text_encoder is None else text_encoder
    if isinstance(spec, str):
        model.lazy_text.spec = spec
    return model


def fill(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """Put weights into a model made by `build`; all names and shapes must fit."""
    check_shapes(model, _shapes(weights))
    owned = {name: value.detach().clone() for name, value in weights.items()}
    model.load_state_dict(owned, assign=True)
    return model


def check_shapes(model: nn.Module, found: Shapes) -> None:
    """Refuse a file that lacks weights of a model, or has others or of another shape."""
    wrong = mismatch(found, _shapes(model.state_dict()))
    if wrong is not None:
        raise CalotypeError(
            f"weights do not fit the settings: the file {wrong}; check the settings of the U-Nets"
        )


def _shapes(weights: Mapping[str, Tensor]) -> Shapes:
    return {name: tensor.shape for name, tensor in weights.items()}


def save(model: nn.Module, folder: str | Path) -> Path:
    """Write a cascade or a U-Net into a folder; `load` reads it back.

    Raises:
        UsageError: the folder holds anything but such a cascade, which is replaced all at once.
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    folder = Path(folder)
    own = (SETTINGS_FILE, WEIGHTS_FILE)
    check_holds_only(folder, own, what="imagen_pytorch cascade", marker=SETTINGS_FILE)
    data = {"format": FORMAT, **describe(model)}
    with new_folder(folder.resolve()) as temporary:
        write_tensors(temporary / WEIGHTS_FILE, model.state_dict(), {})
        write_file(temporary / SETTINGS_FILE, (json.dumps(data, indent=1) + "\n").encode())
    return folder


def load(folder: str | Path, *, text_encoder: TextEncoder | str | None = None) -> nn.Module:
    """Read what `save` or a conversion has written: an `Imagen`, `ElucidatedImagen` or `Unet`.

    Raises:
        CalotypeError: files are missing or damaged, or do not fit each other.
    """
    model = outline(folder, text_encoder=text_encoder)
    return fill(model, read_tensors(Path(folder) / WEIGHTS_FILE)[0])


def outline(folder: str | Path, *, text_encoder: TextEncoder | str | None = None) -> nn.Module:
    """What `load` reads, on the meta device: of the weights, names and shapes alone are read.

    Raises:
        CalotypeError: files are missing or damaged, or do not fit each other.
    """
    folder = Path(folder)
    data = read_json(folder / SETTINGS_FILE)
    if data.get("format") != FORMAT:
        raise ConfigError(f"{folder}: got format {data.get('format')!r}; expected {FORMAT}")
    model = build(data, text_encoder=text_encoder)
    with _opened(folder / WEIGHTS_FILE) as file:
        names = file.keys()
        check_shapes(model, {name: file.get_slice(name).get_shape() for name in names})
    return model


def save_unet(unet: Unet, path: Path) -> None:
    """Write one U-Net and its arguments into one file."""
    write_tensors(path, unet.state_dict(), {SETTINGS_FILE: json.dumps(describe(unet))})


def read_unet(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The arguments and the weights that `save_unet` wrote; other files are refused."""
    tensors, metadata = read_tensors(path)
    try:
        data = json.loads(metadata.get(SETTINGS_FILE, "null"))
    except ValueError as error:
        raise CalotypeError(f"{path} is no file of Unet.persist_to_file") from error
    check_shapes(build(data), _shapes(tensors))
    return _mapping(data.get("settings"), "settings"), tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, all or nothing."""
    owned = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_with(path, lambda place: save_file(owned, place, metadata=dict(metadata)))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file."""
    with _opened(path) as file:
        names = file.keys()
        return {name: file.get_tensor(name) for name in names}, dict(file.metadata() or {})


def _opened(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            start = file.read(2)
        if start[:2] == b"PK" or start[:1] == b"\x80":
            raise CalotypeError(
                f"{path} is a pickle, as imagen-pytorch writes them; expected safetensors: "
                f"calotype convert {path} -o FOLDER"
            )
        return safe_open(path, framework="pt")
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}") from error
    except SafetensorError as error:
        raise CalotypeError(f"{path} is no whole safetensors file: {error}") from error


def _mapping(data: Any, what: str) -> dict[str, Any]:
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ConfigError(f"got {type(data).__name__} as {what}; expected a JSON object")
    return data
