"""A CLIP in a folder of transformers, as one of ours: the same towers under other names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.config.clip import ClipConfig, ImageTowerConfig, TextTowerConfig
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.networks.clip import Clip
from calotype.storage.reading import file_sha256, read_object
from calotype.text.clip_ids import ClipTokens
from calotype.text.encoder import digest
from calotype.text.pretrained import load_pretrained

CONFIG_FILE = "config.json"
_LAYER = re.compile(r"(text|vision)_model\.encoder\.layers\.(\d+)\.(.+)")
_OF_LAYER = {
    "self_attn.out_proj": "out",
    "layer_norm1": "norm1",
    "layer_norm2": "norm2",
    "mlp.fc1": "widen",
    "mlp.fc2": "narrow",
}
_NAMES = {
    "logit_scale": "log_scale",
    "text_projection.weight": "text.out.weight",
    "text_model.embeddings.token_embedding.weight": "text.tokens.weight",
    "text_model.embeddings.position_embedding.weight": "text.positions",
    "text_model.final_layer_norm.weight": "text.norm.weight",
    "text_model.final_layer_norm.bias": "text.norm.bias",
    "visual_projection.weight": "image.out.weight",
    "vision_model.embeddings.class_embedding": "image.class_token",
    "vision_model.embeddings.patch_embedding.weight": "image.patches.weight",
    "vision_model.embeddings.position_embedding.weight": "image.positions",
    "vision_model.pre_layrnorm.weight": "image.norm_in.weight",
    "vision_model.pre_layrnorm.bias": "image.norm_in.bias",
    "vision_model.post_layernorm.weight": "image.norm.weight",
    "vision_model.post_layernorm.bias": "image.norm.bias",
}


def is_transformers_clip(folder: Path) -> bool:
    """Whether a folder says that it holds a CLIP of transformers."""
    return read_object(folder / CONFIG_FILE).get("model_type") == "clip"


def weights_sha256(folder: Path) -> str:
    """One SHA-256 for all weights files of a folder.

    Raises:
        UsageError: there are none that are no pickles.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UsageError(f"{folder} has no weights as .safetensors; expected those, not pickles")
    return digest([file_sha256(file) for file in files])


def read_transformers_clip(folder: Path) -> tuple[Clip, ClipTokens]:
    """The towers with their weights, and the tokenizer.

    Raises:
        MissingExtra: transformers is not installed.
        ConfigError: it is another kind of model, or one with settings that ours has not.
        CalotypeError: files are missing or damaged.
    """
    kinds = {"clip": "CLIPModel"}
    loaded = load_pretrained(str(folder), kinds, dtype=torch.float32, allow_download=False)
    network = Clip(towers(loaded.model.config.to_dict()))
    network.load_state_dict(renamed(loaded.model.state_dict()))
    tokens = ClipTokens(str(folder), max_tokens=network.config.text.context)
    known, wanted = tokens.vocabulary_size, network.config.text.vocabulary or 0
    if not wanted / 2 < known <= wanted:  # transformers makes an empty one where files are missing
        raise CalotypeError(
            f"got a tokenizer of {known} tokens in {folder} for a text tower of {wanted}; "
            f"expected its own: copy tokenizer.json, or "
            "vocab.json and merges.txt, into the folder"
        )
    return network, tokens


def towers(config: Mapping[str, Any]) -> ClipConfig:
    """Our settings for those of transformers.

    Raises:
        ConfigError: a setting has a value that our towers do not have.
    """
    try:
        return _towers(config["text_config"], config["vision_config"], config["projection_dim"])
    except (KeyError, TypeError) as error:
        raise ConfigError(
            f"got a config.json of a CLIP without {error}; expected one that transformers wrote: "
            "get the file again"
        ) from error


def _towers(text: Mapping[str, Any], image: Mapping[str, Any], embed_dim: int) -> ClipConfig:
    for tower in (text, image):
        wide = tower["intermediate_size"] == 4 * tower["hidden_size"]
        activation = tower["hidden_act"]
        if not wide or activation not in ("gelu", "quick_gelu"):
            raise ConfigError(
                f"got a CLIP with hidden_act={activation!r} and MLPs of "
                f"{tower['intermediate_size']}; expected gelu or quick_gelu, and 4 times the width"
            )
    others = {
        "hidden_act of both towers": (text["hidden_act"], image["hidden_act"]),
        "layer_norm_eps": (tower.get("layer_norm_eps", 1e-5) for tower in (text, image)),
        "num_channels": (image.get("num_channels", 3),),
    }
    for name, values in others.items():
        found, only = list(values), {"layer_norm_eps": 1e-5, "num_channels": 3}.get(name)
        if any(value != (found[0] if only is None else only) for value in found):
            raise ConfigError(
                f"got a CLIP with {name} = {found}; expected "
                f"{'the same' if only is None else f'{only:g}'}: use another model"
            )
    return ClipConfig(
        image=ImageTowerConfig(
            resolution=image["image_size"],
            patch=image["patch_size"],
            width=image["hidden_size"],
            layers=image["num_hidden_layers"],
            heads=image["num_attention_heads"],
        ),
        text=TextTowerConfig(
            width=text["hidden_size"],
            layers=text["num_hidden_layers"],
            heads=text["num_attention_heads"],
            context=text["max_position_embeddings"],
            vocabulary=text["vocab_size"],
        ),
        embed_dim=embed_dim,
        activation=image["hidden_act"],
    )


def renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of `CLIPModel` under the names of `Clip`."""
    found = dict[str, Tensor]()
    for name, tensor in weights.items():
        layer = _LAYER.fullmatch(name)
        if layer is None:
            if name in _NAMES:
                found[_NAMES[name]] = tensor.reshape(1) if name == "logit_scale" else tensor
            continue  # numbers of positions, in older files
        tower = "text" if layer[1] == "text" else "image"
        part, _, kind = layer[3].rpartition(".")
        own = f"{tower}.layers.{layer[2]}"
        if part == "self_attn.q_proj":
            parts = [weights[name.replace("q_proj", f"{p}_proj")] for p in "qkv"]
            found[f"{own}.qkv.{kind}"] = torch.cat(parts)
        elif part in _OF_LAYER:
            found[f"{own}.{_OF_LAYER[part]}.{kind}"] = tensor
    return found
