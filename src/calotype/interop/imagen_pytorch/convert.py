"""Checkpoints of imagen-pytorch become folders that `load` reads.

What is read: files of `ImagenTrainer.save`, state dicts of `Imagen` and `ElucidatedImagen`, files
of `Unet.persist_to_file`, state dicts of `Unet`. The pickle itself is read by
`calotype.interop.pickles`, in a process of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.files import build, check_shapes, fill, save
from calotype.interop.imagen_pytorch.infer import NOT_IN_WEIGHTS, infer_unet
from calotype.interop.imagen_pytorch.keys import own_name, under
from calotype.interop.imagen_pytorch.unet import Unet
from calotype.interop.pickles import unpickled
from calotype.interop.safety import Shapes, read_json

# Arguments that package ignores: whatever a checkpoint says, its weights are made like this.
_AS_IGNORED = {
    "num_image_tokens": 4,
    "out_dim": None,
    "dropout": 0.0,
    "layer_attns_add_text_cond": True,
}
_OPEN = (*NOT_IN_WEIGHTS, "self_cond", "cond_images_channels")
_EXAMPLE = 'expected an object such as {"settings": {"image_sizes": [64, 256]}}'
_KINDS = {"original": "Imagen", "elucidated": "ElucidatedImagen"}


@dataclass(frozen=True)
class _Foreign:
    """A checkpoint, taken apart: where each U-Net's weights are, by the names used here, and more.

    The kind ("Imagen", "ElucidatedImagen" or "Unet") and the arguments are as far as the file says.
    """

    sources: list[dict[str, str]]
    unets: list[dict[str, Any]]
    kind: str | None
    settings: dict[str, Any]


def read_config(path: Path | None) -> dict[str, Any]:
    """The `config` of `convert` from a JSON file; None is an empty one.

    Raises:
        ConfigError: the file cannot be read, or is no JSON object.
    """
    if path is None:
        return {}
    try:
        return read_json(path)
    except CalotypeError as error:
        raise ConfigError(f"{error}; {_EXAMPLE}") from error


def convert(
    path: str | Path,
    out: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    ema: bool = True,
    text_encoder: str | None = None,
) -> Path:
    """Convert a checkpoint of imagen-pytorch 1.x or 2.x.

    Args:
        path: the file.
        out: the folder to write.
        config: what the file does not say: {"kind": "Imagen" or "ElucidatedImagen", "settings":
            {arguments of it, at least image_sizes}, "unets": [{arguments of Unet}, ...]}. Arguments
            of U-Nets are read off the weights but for `NOT_IN_WEIGHTS`.
        ema: take the averaged weights, where the file has them.
        text_encoder: spec of the encoder that captions load, e.g. "t5:FOLDER"; None = the T5 that
            the cascade names.

    Raises:
        UsageError: `text_encoder` is given for a network that reads no captions.
        CalotypeError: the file is damaged, no such checkpoint, or of a video network.
        ConfigError: an argument is missing or does not fit.
    """
    with unpickled(Path(path)) as file:
        shapes = file.weights.shapes
        foreign = _take_apart(shapes, file.plain, ema=ema)
        model = _build(foreign, shapes, {} if config is None else config)
        if text_encoder is not None:
            if not isinstance(model, CascadedUnets) or model.unconditional:
                raise UsageError("got a text encoder for a network that reads no captions")
            model.lazy_text.spec = text_encoder
        sources = {
            (name if isinstance(model, Unet) else f"unets.{i}.{name}"): source
            for i, unet in enumerate(foreign.sources)
            for name, source in unet.items()
        }
        check_shapes(model, {name: shapes[key] for name, key in sources.items()})
        read = file.weights.reader()
        fill(model, {name: read(source) for name, source in sources.items()})
    return save(model, out)


def _place(name: str) -> tuple[str, int, str] | None:
    """Where a weight belongs: which set, which U-Net, and its name there."""
    patterns = (
        ("ema", r"ema/(\d+)\.ema_model\.(.+)"),
        ("model", r"(?:model/)?unets\.(\d+)\.(.+)"),
        ("unet", r"(?:state_dict/)?()((?:downs|ups|init_conv|final_conv)\..+|norm_cond\..+)"),
    )
    for kind, pattern in patterns:
        match = re.fullmatch(pattern, name)
        if match:
            return kind, int(match[1] or 0), match[2]
    return None


def _take_apart(names: Iterable[str], plain: Mapping[str, Any], *, ema: bool) -> _Foreign:
    places = {name: _place(name) for name in names}
    kinds = {place[0] for place in places.values() if place is not None}
    if not kinds:
        raise CalotypeError("this is no checkpoint of imagen-pytorch: it has no weights of a Unet")
    if not kinds & ({"ema", "model"} if ema else {"model"}):
        weights = {own_name(name.removeprefix("state_dict/")): name for name in places}
        return _Foreign([weights], [under(plain, "config/")], "Unet", {})
    chosen = "ema" if ema and "ema" in kinds else "model"
    groups: dict[int, dict[str, str]] = {}
    for name, place in places.items():
        if place is not None and place[0] == chosen:
            groups.setdefault(place[1], {})[own_name(place[2])] = name
    sources = [groups[i] for i in sorted(groups)]
    settings = under(plain, "imagen_params/")
    described = settings.pop("unets", None)
    described = described if isinstance(described, list) else []
    unets = [unet if isinstance(unet, dict) else {} for unet in described]
    unets += [{}] * (len(sources) - len(unets))
    return _Foreign(sources, unets, _KINDS.get(str(plain.get("imagen_type"))), settings)


def _build(foreign: _Foreign, shapes: Shapes, config: Mapping[str, Any]) -> nn.Module:
    unknown = sorted(config.keys() - {"kind", "settings", "unets"})
    if unknown:
        raise ConfigError(f"got the unknown key {unknown[0]!r}; known: kind, settings, unets")
    given = config.get("unets", [{}] * len(foreign.sources))
    if not isinstance(given, list | tuple) or len(given) != len(foreign.sources):
        raise ConfigError(f"expected 'unets' with one record for each of {len(foreign.sources)}")
    unets = [
        _unet({name: shapes[key] for name, key in weights.items()}, says, dict(own))
        for weights, says, own in zip(foreign.sources, foreign.unets, given, strict=True)
    ]
    if foreign.kind == "Unet":
        return build({"kind": "Unet", "settings": unets[0]["settings"]})
    settings = {**foreign.settings, **dict(config.get("settings", {}))}
    if settings.pop("video", False):
        raise UsageError("this is a checkpoint of a video network; only those of images convert")
    if "image_sizes" not in settings:
        raise ConfigError(
            "the checkpoint does not say its image sizes; give them: "
            '{"settings": {"image_sizes": [64, 256]}}'
        )
    first: dict[str, Any] = next((unet["settings"] for unet in unets if unet["kind"] == "Unet"), {})
    settings.setdefault("condition_on_text", first.get("cond_on_text", True))
    if settings["condition_on_text"]:
        settings["text_embed_dim"] = first.get("text_embed_dim")
    settings.setdefault("channels", first.get("channels", 3))
    kind = config.get("kind", foreign.kind)
    return build({"kind": "Imagen" if kind is None else kind, "settings": settings, "unets": unets})


def _unet(shapes: Shapes, says: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The U-Net's arguments: read off its weights, then as the file says, then as the user says."""
    if set(shapes) == {"dummy_parameter"}:
        return {"kind": "NullUnet"}
    # Of the file, only what weights do not say: its other arguments are those from before the
    # cascade changed them to fit.
    given = {**{name: says[name] for name in _OPEN if name in says}, **own}
    return {"kind": "Unet", "settings": {**_AS_IGNORED, **infer_unet(shapes, given)}}
