"""Stages with the weights of diffusers' U-Nets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from calotype.cascade.prior import Prior
from calotype.cascade.stage import Stage
from calotype.config.adm import AdmConfig, UnclipText
from calotype.errors import ConfigError
from calotype.interop.safety import ForeignSettings, ForeignWeights, mismatch, open_weights
from calotype.interop.unet import Rule, read_unet_config

Model = TypeVar("Model", Stage, Prior)
_TEXT_PROJECTION = (
    "clip_embeddings_dim",
    "clip_extra_context_tokens",
    "cross_attention_dim",
    "time_embed_dim",  # checked with the shapes
)


def _gathered(
    places: Iterable[Rule], weights: ForeignWeights, expected: Mapping[str, Tensor], where: Path
) -> dict[str, Tensor]:
    """The tensors `expected` here, joined of a file's; all are compared before one is read."""
    listed = list(places)
    shapes = {
        name: part.shape
        for rule in listed
        for name, part in zip(rule.there, expected[rule.here].chunk(len(rule.there)), strict=True)
    }
    wrong = mismatch(weights.shapes, shapes)
    if wrong is not None:
        raise ConfigError(f"{where} {wrong}; use the weights and the settings of one model")
    read = weights.reader()
    return {rule.here: _joined([read(name) for name in rule.there]) for rule in listed}


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    whole = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
    layout = torch.channels_last if whole.ndim == 4 else torch.contiguous_format
    return whole.contiguous(memory_format=layout)


def loaded(build: Callable[[], Model], *sources: tuple[Path, Iterable[Rule]]) -> Model:
    """The model that `build` makes, on the meta device, with the weights of folders by rules."""
    with torch.device("meta"):
        model = build()
    expected = model.network.state_dict()
    state: dict[str, Tensor] = {}
    for folder, places in sources:
        state |= _gathered(places, open_weights(folder), expected, folder)
    model.network.load_state_dict(state, assign=True)
    return model.requires_grad_(True).eval()


def text_projection_config(folder: Path, text: UnclipText) -> tuple[int, UnclipText]:
    """Width of CLIP's embeddings, and the network's text settings, of Karlo's `text_proj`."""
    data = ForeignSettings.read(folder / "config.json")
    data.check(["UnCLIPTextProjModel"], _TEXT_PROJECTION)
    width = data.whole("cross_attention_dim")
    if width != text.width:
        raise data.wrong(f"got cross_attention_dim={width}; expected {text.width}, as the decoder")
    extra = data.whole("clip_extra_context_tokens")
    return data.whole("clip_embeddings_dim"), UnclipText(width=width, extra_tokens=extra)


def read_unet(folder: Path) -> tuple[int, AdmConfig]:
    """The side of the images a U-Net was made for, and its settings."""
    data = ForeignSettings.read(folder / "config.json")
    config = read_unet_config(data.data, data.where)
    size = data.data.get("sample_size")
    if isinstance(size, list | tuple) and len(set(size)) == 1:
        size = size[0]
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= 65536:
        raise data.wrong(f"got sample_size={size!r:.80}; expected a number of pixels")
    return size, config
