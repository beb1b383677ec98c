"""Stages with the weights of diffusers' U-Nets."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig, UnclipText
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError
from calotype.interop.safety import ForeignWeights, open_weights, read_json, refuse_unknown
from calotype.interop.unet import Rule, check_names, rules, unclip_rules

State = dict[str, Tensor]
_TEXT_PROJECTION = (
    "clip_embeddings_dim",
    "clip_extra_context_tokens",
    "cross_attention_dim",
    "time_embed_dim",  # checked with the shapes
)


def gathered(
    places: Iterable[Rule], weights: ForeignWeights, expected: Mapping[str, Tensor], where: Path
) -> State:
    """The tensors `expected` here, joined of those in a file; all are compared before one is read.

    Raises:
        ConfigError: names or shapes differ from what the settings call for.
    """
    listed = list(places)
    check_names(tuple(weights), [name for rule in listed for name in rule.there], str(where))
    for rule in listed:
        shapes = [weights[name].shape for name in rule.there]
        joined = (sum(shape[0] for shape in shapes), *shapes[0][1:]) if shapes[0] else ()
        if joined != tuple(expected[rule.here].shape):
            raise ConfigError(
                f"{where}: got {rule.there[0]!r} of shape {list(shapes[0])}; expected "
                f"{list(_part(expected[rule.here], len(rule.there)))}; use the weights and the "
                "settings of one model"
            )
    read = weights.reader()
    return {rule.here: _joined([read(name) for name in rule.there]) for rule in listed}


def _part(tensor: Tensor, parts: int) -> Sequence[int]:
    return (tensor.shape[0] // parts, *tensor.shape[1:]) if tensor.ndim else ()


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    layout = torch.channels_last if whole.ndim == 4 else torch.contiguous_format
    return whole.contiguous(memory_format=layout)


def stage_of(config: StageConfig, read: Callable[[Mapping[str, Tensor]], State]) -> Stage:
    """A stage whose network gets the tensors that `read` returns for its empty parameters."""
    with torch.device("meta"):
        stage = Stage(config)
    state = read(stage.network.state_dict())
    stage.network.load_state_dict(state, assign=True)
    return stage.requires_grad_(True).eval()


def unet_state(config: AdmConfig, folder: Path, expected: Mapping[str, Tensor]) -> State:
    """The tensors of a U-Net's folder for an ADM network.

    Of a network with CLIP embeddings, all but those that read them: see `text_projection_state`.
    """
    weights = open_weights(folder)
    return gathered(rules(config), weights, expected, folder)


def text_projection_state(folder: Path, expected: Mapping[str, Tensor]) -> State:
    """The tensors of Karlo's `text_proj` folder for an ADM network."""
    return gathered(unclip_rules(), open_weights(folder), expected, folder)


def text_projection_config(folder: Path, text: UnclipText) -> tuple[int, UnclipText]:
    """Width of CLIP's embeddings, and the network's text settings, of Karlo's `text_proj`."""
    data = read_json(folder / "config.json")
    where = str(folder / "config.json")
    if data.get("_class_name") != "UnCLIPTextProjModel":
        raise ConfigError(
            f"{where}: got the class {data.get('_class_name')!r:.80}; known: "
            "['UnCLIPTextProjModel']"
        )
    refuse_unknown(data, _TEXT_PROJECTION, where)
    width = _whole(data, "cross_attention_dim", where)
    if width != text.width:
        raise ConfigError(
            f"{where}: got cross_attention_dim={width}; expected {text.width}, as in the decoder"
        )
    extra = _whole(data, "clip_extra_context_tokens", where)
    return _whole(data, "clip_embeddings_dim", where), UnclipText(width=width, extra_tokens=extra)


def side(data: Mapping[str, Any], where: str) -> int:
    """`sample_size`: the side of the images a U-Net was made for."""
    size = data.get("sample_size")
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 65536:
        raise ConfigError(f"{where}: got sample_size={size!r:.80}; expected a number of pixels")
    return size


def _whole(data: Mapping[str, Any], key: str, where: str) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < math.inf:
        raise ConfigError(f"{where}: got {key}={value!r:.80}; expected a whole number")
    return value
