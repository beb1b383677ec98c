"""GLIDE's noised CLIP: its files become a CLIP's folder, which guides the base by its gradient.

`Pull(load_guide(FOLDER, tokenizer=...), 3.0)` pulls the base that samples 64 pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.config.clip import ClipConfig
from calotype.config.typed_json import from_dict
from calotype.errors import CalotypeError, ConfigError
from calotype.interop.glide.stages import check_names
from calotype.interop.safety import ForeignWeights, Shapes, read_header
from calotype.networks.clip import COLOUR_MEAN, COLOUR_STD, Clip
from calotype.storage.reading import read_object
from calotype.text.glide import NoisedClipTokens
from calotype.vision.clip import CLIP_FILE, WEIGHTS_FILE, ClipFile, ClipModel, load_clip
from calotype.vision.guides import ClipGuide

FOLDER = "noised_clip"  # in a converted cascade
CONFIG_FILE = "config.json"  # of folders that calotype wrote before this was a CLIP like others
# Red, green and blue as its images are normalised, of values 0 to 255.
_GLIDE_MEAN = (122.77, 116.75, 104.09)
_GLIDE_STD = (68.50, 66.63, 70.32)
_LOGIT_SCALE = 100.0
_KINDS = {"g": "weight", "b": "bias", "w": "weight"}
_PLACES = {
    "blocks.input.w_voc": "tokens.weight",
    "blocks.input.w_t": "timesteps.weight",
    "blocks.input.w_pos": "positions",
    "blocks.input.patch_proj": "patches.weight",
}
_LAYERS = {
    "blocks.input.ln": "norm_in",
    "blocks.output.ln": "norm",
    "blocks.output.f": "out",
    "f_attn.ln": "norm_attention",
    "f_attn.f_q": "query",
    "f_attn.f_k": "key",
    "f_attn.f_v": "value",
    "f_attn.f_c": "attention_out",
    "f_mlp.ln": "norm_hidden",
    "f_mlp.f_1": "hidden",
    "f_mlp.f_2": "hidden_out",
}
# Folders of before, and the published files under their names, keep queries, keys and values apart,
# keys without bias, and have other names for layers.
_FILE_LAYERS = {
    "norm1": ("norm_attention",),
    "qkv": ("query", "key", "value"),
    "out": ("attention_out",),
    "norm2": ("norm_hidden",),
    "widen": ("hidden",),
    "narrow": ("hidden_out",),
}
_LAYER = re.compile(r"layers\.(\d+)\.(\w+)\.(weight|bias)")
# It was trained on noise of this table.
_SCHEDULE = {"kind": "discrete", "betas": "squaredcos_cap_v2", "precision": "float64"}


def load_guide(folder: Path | str, *, tokenizer: Path | str) -> ClipGuide:
    """Read the noised CLIP of a converted GLIDE cascade; `tokenizer` has CLIP's vocabulary.

    Raises:
        CalotypeError: files are missing or damaged.
    """
    place = Path(folder) / FOLDER
    if (place / CLIP_FILE).is_file():
        return ClipGuide(clip_model(load_clip(place).network, tokenizer))
    if not (place / CONFIG_FILE).is_file():
        raise CalotypeError(
            f"{folder} has no {FOLDER}; convert a folder that has clip_text_enc.pt and "
            "clip_image_enc.pt beside GLIDE's networks"
        )
    return ClipGuide(clip_model(_of_before(place), tokenizer))


def _of_before(folder: Path) -> Clip:
    """The network of a folder that calotype wrote before this was a CLIP like others."""
    weights = ForeignWeights(read_header(folder / WEIGHTS_FILE))
    read, towers = weights.reader(), {}
    for part in ("text", "image"):
        own = {n: shape for n, shape in weights.shapes.items() if n.startswith(f"{part}.")}
        shapes = {name.removeprefix(f"{part}."): shape for name, shape in own.items()}
        towers[part] = (shapes, lambda name, part=part: read(f"{part}.{name}"))
    config = _config(read_object(folder / CONFIG_FILE))
    return noised_clip(config, towers, names=lambda shapes: {name: name for name in shapes})


def clip_model(clip: Clip, tokenizer: Path | str) -> ClipModel:
    """A CLIP that reads captions with the vocabulary in the folder `tokenizer`."""
    context = clip.config.text.context
    tokens = NoisedClipTokens(str(tokenizer), max_tokens=context)
    file = ClipFile(
        format=1,
        name="glide-noised-clip",
        text_encoder=tokens.spec,
        text_fingerprint=tokens.fingerprint,
        sha256="",
        clip=clip.config,
    )
    return ClipModel(file, clip, tokens)


def clip_config(text: Shapes, image: Shapes, *, head_dim: int = 64) -> ClipConfig:
    """The settings of a noised CLIP, from the shapes of both files' tensors."""
    try:
        patch = image["blocks.input.patch_proj"][2]
        side = math.isqrt(image["blocks.input.w_pos"][0] - 1)
        sizes = {
            "text": _tower(text, head_dim),
            "image": _tower(image, head_dim),
            "vocabulary": text["blocks.input.w_voc"][0],
            "context": text["blocks.input.w_pos"][0],
            "resolution": side * patch,
            "patch": patch,
            "timesteps": image["blocks.input.w_t"][0],
            "embed_dim": image["blocks.output.f.w"][0],
        }
    except (KeyError, IndexError) as error:
        raise ConfigError(
            f"got no tensor {error} of a noised CLIP; expected clip_text_enc.pt and "
            "clip_image_enc.pt"
        ) from error
    return _config(sizes)


def _tower(shapes: Shapes, head_dim: int) -> dict[str, int]:
    inner, width = shapes["blocks.block_0.f_attn.f_q.w"]
    layers = sum(1 for name in shapes if name.endswith(".f_attn.f_q.w"))
    return {"width": width, "layers": layers, "heads": inner // head_dim, "head_dim": head_dim}


def _config(sizes: Mapping[str, Any]) -> ClipConfig:
    """The settings of a noised CLIP, from its sizes as folders of before hold them."""
    try:
        text = {name: sizes[name] for name in ("context", "vocabulary")} | sizes["text"]
        image = {name: sizes[name] for name in ("resolution", "patch")} | sizes["image"]
        schedule = {**_SCHEDULE, "steps": sizes["timesteps"]}
        embed_dim = sizes["embed_dim"]
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"got a noised CLIP without {error}; expected what calotype wrote: convert it again"
        ) from error
    noise = {"told": "timestep", "schedule": schedule}
    towers = {"text": text, "image": image}
    return from_dict({**towers, "embed_dim": embed_dim, "noise": noise}, ClipConfig)


def clip_names(shapes: Shapes) -> dict[str, str]:
    """The name in folders of before, in its tower, of each tensor; unknown ones are left out."""
    names = {}
    for name in shapes:
        stem, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.block_(\d{1,4})\.(.+)", stem)
        layer = _LAYERS.get(stem if block is None else block[2])
        if name in _PLACES:
            names[name] = _PLACES[name]
        elif layer is not None and kind in _KINDS:
            prefix = "" if block is None else f"blocks.{block[1]}."
            names[name] = f"{prefix}{layer}.{_KINDS[kind]}"
    return names


def noised_clip(
    config: ClipConfig,
    towers: Mapping[str, tuple[Shapes, Callable[[str], Tensor]]],
    *,
    names: Callable[[Shapes], Mapping[str, str]] = clip_names,
) -> Clip:
    """A CLIP with the weights of the files of its "text" and "image" towers; all must fit."""
    with torch.device("meta"):
        clip = Clip(config)
    for part, (shapes, read) in towers.items():
        _fill(clip.get_submodule(part), names(shapes), shapes, read)
    clip.log_scale = nn.Parameter(torch.full((1,), math.log(_LOGIT_SCALE)))
    return clip.eval()


def _fill(
    tower: nn.Module, names: Mapping[str, str], shapes: Shapes, read: Callable[[str], Tensor]
) -> None:
    """Give a tower the tensors of a file, whose names in folders of before are `names`."""
    expected = tower.state_dict()
    check_names(shapes, names, file_tensors(expected))
    file = {here: read(name).to(torch.float32) for name, here in names.items()}
    state = network_tensors(file, expected)
    if "patches.weight" in state:
        _renormalise(state)
    tower.load_state_dict(state, assign=True)


def _renormalise(state: dict[str, Tensor]) -> None:
    """Make the same tokens of images as `Clip` normalises their colours.

    `(v - m) / s = (v - M) / S * S/s + (M - m)/s`: a factor of the patches' weights, and their sum.
    """
    ours, theirs = (
        (torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        for mean, std in ((COLOUR_MEAN, COLOUR_STD), (_GLIDE_MEAN, _GLIDE_STD))
    )
    weight = state["patches.weight"].double()
    offset = (255 * ours[0] - theirs[0]) / theirs[1]
    moved = (weight.sum((2, 3)) @ offset).float()
    factor = (255 * ours[1] / theirs[1])[:, None, None]
    state["patches.weight"] = (weight * factor).float()
    positions = state["positions"].clone()
    positions[1:] += moved
    state["positions"] = positions


def file_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tower's tensors as folders of before hold them."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = _file_names(name)
        found |= zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True)
    none = ("class_token", "key.bias")
    return {name: tensor for name, tensor in found.items() if not name.endswith(none)}


def network_tensors(file: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `file_tensors`, for the names of `state`; what no file has is 0."""
    found = {}
    for name, tensor in state.items():
        parts = _file_names(name)
        first = file.get(parts[0])
        if first is None:
            first = torch.zeros(tensor.shape)
        rest = [file.get(part, torch.zeros_like(first)) for part in parts[1:]]
        found[name] = torch.cat([first, *rest]) if rest else first
    return found


def _file_names(name: str) -> list[str]:
    if name == "level.weight":
        return ["timesteps.weight"]
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return [name]
    return [f"blocks.{layer[1]}.{part}.{layer[3]}" for part in _FILE_LAYERS[layer[2]]]
