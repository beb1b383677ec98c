"""GLIDE's tensors, by name and shape, and where the same weights are here.

The published files hold nothing but tensors: what a network looks like is read off their names
and shapes, and the result is checked against every one of them before weights are copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from calotype.config.adm import AdmConfig, AdmLevel, TokensText
from calotype.errors import ConfigError
from calotype.interop.safety import Shapes

_LAYERS = {
    "in_layers.0": "residual.norm1",
    "in_layers.2": "residual.conv1",
    "emb_layers.1": "residual.embedding",
    "out_layers.0": "residual.norm2",
    "out_layers.3": "residual.conv2",
    "skip_connection": "residual.skip",
    "norm": "attention.norm",
    "qkv": "attention.qkv",
    "encoder_kv": "attention.text",
    "proj_out": "attention.out",
}
_TRANSFORMER = {
    "attn.c_qkv": "qkv",
    "attn.c_proj": "out",
    "ln_1": "norm1",
    "ln_2": "norm2",
    "mlp.c_fc": "widen",
    "mlp.c_proj": "narrow",
}
_SINGLE = {
    "time_embed.0": "time.linear_1",
    "time_embed.2": "time.linear_2",
    "token_embedding": "text.tokens",
    "positional_embedding": "text.positions",
    "padding_embedding": "text.padding",
    "final_ln": "text.norm",
    "transformer_proj": "text.to_embedding",
    "input_blocks.0.0": "stem",
    "out.0": "head.0",
    "out.2": "head.2",
}
_MIDDLE = {"middle_block.0": "middle.0", "middle_block.1": "middle.0", "middle_block.2": "middle.1"}
_BLOCK = re.compile(r"((?:input_blocks\.\d+|output_blocks\.\d+|middle_block)\.\d+)\.(.+)")
_INPUTS = {3: (False, 0), 6: (True, 0), 7: (False, 4), 10: (True, 4)}


@dataclass(frozen=True)
class _Level:
    """What the way up shows of one resolution, with the numbers of its output blocks."""

    channels: int
    attends: bool
    outputs: tuple[int, ...]


def network_config(shapes: Shapes, *, head_dim: int = 64) -> AdmConfig:
    """The settings of a GLIDE network, from the shapes of its tensors.

    Args:
        shapes: of every tensor in the file, by name.
        head_dim: channels of one attention head, in the U-Net and in the text transformer; the
            one number that shapes do not show. 64 in all published files.

    Raises:
        ConfigError: the tensors are not those of a GLIDE network.
    """
    inputs = _shape(shapes, "input_blocks.0.0.weight", 4)[1]
    if inputs not in _INPUTS:
        raise ConfigError(
            f"got a network of {inputs} input channels; expected one of {sorted(_INPUTS)}"
        )
    lowres, extra = _INPUTS[inputs]
    vocabulary, width = _shape(shapes, "token_embedding.weight", 2)
    return AdmConfig(
        levels=tuple(
            AdmLevel(
                channels=level.channels,
                blocks=len(level.outputs) - 1,
                attention="joined" if level.attends else "none",
            )
            for level in _levels(shapes)
        ),
        text_dim=1,
        text=TokensText(
            width=width,
            layers=_count(shapes, "transformer.resblocks"),
            heads=max(1, width // head_dim),
            context=_shape(shapes, "positional_embedding", 2)[0],
            vocabulary=vocabulary,
        ),
        lowres=lowres,
        extra_channels=extra,
        learned_variance=_shape(shapes, "out.2.weight", 4)[0] == 6,
        head_dim=head_dim,
    )


def network_names(shapes: Shapes) -> dict[str, str]:
    """The name here of each of GLIDE's tensors; those that are unknown are left out."""
    levels = _levels(shapes)
    blocks = dict(_MIDDLE)
    number = 1
    for index, level in enumerate(levels):
        down = len(level.outputs) - 1 + (index + 1 < len(levels))  # the last one halves
        for place in range(down):
            for half in ("0", "1"):
                blocks[f"input_blocks.{number}.{half}"] = f"down.{index}.{place}"
            number += 1
    for index, level in enumerate(levels):
        up = len(levels) - 1 - index
        for place, output in enumerate(level.outputs):
            attention = f"output_blocks.{output}.1.qkv.weight" in shapes
            for part in range(3):
                doubles = part == (2 if attention else 1)
                here = place + 1 if doubles else place
                blocks[f"output_blocks.{output}.{part}"] = f"up.{up}.{here}"
    names = {name: _name(name, blocks) for name in shapes}
    return {name: here for name, here in names.items() if here is not None}


def converted(name: str, tensor: Tensor, head_dim: int) -> Tensor:
    """A tensor of GLIDE as it is laid out here.

    Its 1x1 convolutions over tokens are linear layers here, and its heads each have queries, keys
    and values next to each other: here come all queries, then all keys, then all values.
    """
    part = name.rpartition(".")[0].rpartition(".")[2]
    if part in ("qkv", "encoder_kv", "proj_out") and tensor.ndim == 3:
        tensor = tensor.squeeze(2)
    kinds = {"qkv": 3, "c_qkv": 3, "encoder_kv": 2}.get(part)
    if kinds is None:
        return tensor
    heads = tensor.shape[0] // (kinds * head_dim)
    split = tensor.reshape(heads, kinds, head_dim, *tensor.shape[1:])
    return split.transpose(0, 1).reshape(tensor.shape)


def _name(name: str, blocks: Mapping[str, str]) -> str | None:
    stem, _, kind = name.rpartition(".")
    if name in _SINGLE:
        return _SINGLE[name]
    if stem in _SINGLE:
        return f"{_SINGLE[stem]}.{kind}"
    layer = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", stem)
    if layer is not None and layer[2] in _TRANSFORMER:
        return f"text.layers.{layer[1]}.{_TRANSFORMER[layer[2]]}.{kind}"
    block = _BLOCK.fullmatch(stem)
    if block is not None and block[1] in blocks and block[2] in _LAYERS:
        return f"{blocks[block[1]]}.{_LAYERS[block[2]]}.{kind}"
    return None


def _levels(shapes: Shapes) -> list[_Level]:
    """The resolutions, finest first: on the way up each but the finest ends by doubling."""
    found: list[_Level] = []
    outputs: list[int] = []
    count = _count(shapes, "output_blocks")
    for number in range(count):
        outputs.append(number)
        block = f"output_blocks.{number}"
        attends = f"{block}.1.qkv.weight" in shapes
        doubles = f"{block}.{2 if attends else 1}.in_layers.0.weight" in shapes
        if doubles or number == count - 1:
            channels = _shape(shapes, f"{block}.0.out_layers.3.weight", 4)[0]
            found.append(_Level(channels, attends, tuple(outputs)))
            outputs = []
    return found[::-1]


def _count(shapes: Iterable[str], prefix: str) -> int:
    """How many numbered modules there are below `prefix`."""
    matches = (re.match(re.escape(prefix) + r"\.(\d{1,4})\.", name) for name in shapes)
    return 1 + max((int(match[1]) for match in matches if match is not None), default=-1)


def _shape(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(shapes.get(name, ()))
    if len(shape) != dimensions:
        what = f"{name!r} of shape {list(shape)}" if shape else f"no tensor {name!r}"
        raise ConfigError(f"got {what}; expected the weights of a GLIDE network")
    return shape
