"""diffusers' U-Nets of the ADM family: their settings and their tensors' names, both ways.

`UNet2DConditionModel` and `UNet2DModel` are recognised by their settings; those this library's
network has no counterpart of are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from calotype.config.adm import AdmAttention, AdmConfig, AdmLevel, StatesText, UnclipText
from calotype.errors import ConfigError
from calotype.interop.safety import ForeignSettings

# Settings with one value here; the default comes first and stands for a missing key.
_FIXED: dict[str, tuple[Any, ...]] = {
    "center_input_sample": (False,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "class_embeddings_concat": (False,),
    "dual_cross_attention": (False,),
    "attention_type": ("default",),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "addition_time_embed_dim": (None,),
    "encoder_hid_dim_type": (None, "text_proj"),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "cross_attention_norm": (None, "group_norm"),
    "class_embed_type": (None, "timestep", "identity"),
    "addition_embed_type": (None, "text"),
    "act_fn": ("silu", "swish", "gelu"),
    "time_embedding_act_fn": (None, "silu", "swish", "gelu"),
}
# Without effect on these block types.
_IDLE = (
    "downsample_padding downsample_type upsample_type upcast_attention use_linear_projection "
    "transformer_layers_per_block reverse_transformer_layers_per_block attn_norm_num_groups "
    "projection_class_embeddings_input_dim num_train_timesteps"
).split()
_READ = (
    "sample_size in_channels out_channels down_block_types mid_block_type up_block_types "
    "only_cross_attention mid_block_only_cross_attention block_out_channels layers_per_block "
    "cross_attention_dim encoder_hid_dim attention_head_dim time_embedding_dim "
    "addition_embed_type_num_heads add_attention"
).split()
SAME: dict[str, tuple[str, type]] = {
    "skip_embed_activation": ("resnet_skip_time_act", bool),
    "block_divisor": ("resnet_out_scale_factor", float),
    "middle_divisor": ("mid_block_scale_factor", float),
    "norm_groups": ("norm_num_groups", int),
    "norm_eps": ("norm_eps", float),
    "dropout": ("dropout", float),
}
"""Fields of `AdmConfig` by another name there; meanings and defaults are the same."""
PLAIN_BLOCKS = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
TEXT_BLOCKS = ("SimpleCrossAttnDownBlock2D", "SimpleCrossAttnUpBlock2D")
_CLASSES = ("UNet2DConditionModel", "UNet2DModel")


@dataclass(frozen=True)
class Rule:
    """One parameter here, and those of diffusers that it is joined of along its first axis."""

    here: str
    there: tuple[str, ...]


def read_unet_config(data: Mapping[str, Any], where: str = "unet/config.json") -> AdmConfig:
    """The settings of a diffusers U-Net, `data` of the file `where`, as this library's.

    Raises:
        ConfigError: unknown or missing keys, or values that have no counterpart here.
    """
    settings = ForeignSettings(data, where)
    kind = settings.check(
        _CLASSES, [*_IDLE, *_READ, *(there for there, _ in SAME.values())], _FIXED
    )
    try:
        return _network(data, conditional=kind == "UNet2DConditionModel")
    except ConfigError as error:
        raise settings.wrong(str(error)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise settings.wrong(f"got settings that do not fit ({error!r:.120})") from error


def _network(data: Mapping[str, Any], *, conditional: bool) -> AdmConfig:
    if data.get("resnet_time_scale_shift") != "scale_shift":
        raise ConfigError("got resnet_time_scale_shift='default'; expected 'scale_shift'")
    inputs, outputs = data.get("in_channels", 3), data.get("out_channels", 3)
    if inputs not in (3, 6) or outputs not in (3, 6):
        raise ConfigError(f"got {inputs} input and {outputs} output channels; expected 3 or 6")
    text = _text(data) if conditional else None
    unclip = isinstance(text, UnclipText)
    return AdmConfig(
        levels=_levels(data),
        # Karlo's is that of its CLIP, which stands in text_proj/config.json: set there.
        text_dim=0 if text is None else 1 if unclip else int(data["encoder_hid_dim"]),
        text=text,
        middle=_middle(data),
        lowres=inputs == 6,
        aug_level=data.get("class_embed_type") == "timestep",
        learned_variance=outputs == 6,
        head_dim=int(_one(data, "attention_head_dim", 8)),
        embed_dim=int(data.get("time_embedding_dim") or 0),
        activation="gelu" if data.get("act_fn") == "gelu" else "silu",
        embed_activation=_ACTIVATIONS[data.get("time_embedding_act_fn")],
        **{here: kind(data[there]) for here, (there, kind) in SAME.items() if there in data},
    )


_ACTIVATIONS: dict[Any, Any] = {None: "none", "silu": "silu", "swish": "silu", "gelu": "gelu"}


def _text(data: Mapping[str, Any]) -> StatesText | UnclipText:
    width = int(_one(data, "cross_attention_dim", 1280))
    if data.get("class_embed_type") == "identity":
        return UnclipText(width=width)
    if data.get("encoder_hid_dim") is None:
        raise ConfigError("got no encoder_hid_dim; expected the width of the text encoder")
    heads = int(data.get("addition_embed_type_num_heads", 64))
    return StatesText(
        width=width,
        pool_heads=heads if data.get("addition_embed_type") == "text" else 0,
        norm=data.get("cross_attention_norm") == "group_norm",
    )


def _levels(data: Mapping[str, Any]) -> tuple[AdmLevel, ...]:
    widths = list(data["block_out_channels"])
    down, up = list(data["down_block_types"]), list(data["up_block_types"])
    if not len(widths) == len(down) == len(up):
        raise ConfigError("got block lists of different lengths; expected one entry a level")
    blocks, only = (
        list(value) if isinstance(value, list | tuple) else [value] * len(widths)
        for value in (data.get("layers_per_block", 2), data.get("only_cross_attention", False))
    )
    levels = []
    for index, (kind, width) in enumerate(zip(down, widths, strict=True)):
        pair = (kind, up[len(up) - 1 - index])
        attention: AdmAttention = "none"
        if pair == TEXT_BLOCKS:
            attention = "cross" if only[index] else "joined"
        elif pair != PLAIN_BLOCKS:
            raise ConfigError(
                f"got the blocks {pair[0]!r:.60} and {pair[1]!r:.60}; known pairs: "
                f"{PLAIN_BLOCKS}, {TEXT_BLOCKS}"
            )
        levels.append(AdmLevel(channels=width, blocks=blocks[index], attention=attention))
    return tuple(levels)


def _middle(data: Mapping[str, Any]) -> AdmAttention:
    kind = data.get("mid_block_type")
    # None: UNet2DModel of before the setting existed.
    if kind in ("UNetMidBlock2D", None) and data.get("add_attention", True) is False:
        return "none"
    if kind != "UNetMidBlock2DSimpleCrossAttn":
        raise ConfigError(
            f"got the middle {kind!r:.60}; known: 'UNetMidBlock2DSimpleCrossAttn', and "
            "'UNetMidBlock2D' without attention"
        )
    only = data.get("mid_block_only_cross_attention")
    if only is None:
        everywhere = data.get("only_cross_attention", False)
        only = everywhere if isinstance(everywhere, bool) else False
    return "cross" if only else "joined"


def _one(data: Mapping[str, Any], key: str, default: int) -> Any:
    """A number that may be given once, or the same for every level."""
    value = data.get(key, default)
    if isinstance(value, list | tuple):
        if len(set(value)) != 1:
            raise ConfigError(f"got {key}={list(value)}; expected one number for all levels")
        return value[0]
    return value


def rules(config: AdmConfig) -> Iterator[Rule]:
    """Where each parameter of `AdmUNet(config)` stands in a diffusers U-Net."""
    yield from linear_rules("time.linear_1", "time_embedding.linear_1")
    yield from linear_rules("time.linear_2", "time_embedding.linear_2")
    if config.aug_level:
        yield from linear_rules("aug_level.linear_1", "class_embedding.linear_1")
        yield from linear_rules("aug_level.linear_2", "class_embedding.linear_2")
    yield from linear_rules("stem", "conv_in")
    yield from linear_rules("head.0", "conv_norm_out")
    yield from linear_rules("head.2", "conv_out")
    if isinstance(config.text, StatesText):
        yield from _states_rules(config.text)
    last = len(config.levels) - 1
    widths = [level.channels for level in config.levels]
    skips = [widths[0]]
    for index, level in enumerate(config.levels):
        here, there = f"down.{index}", f"down_blocks.{index}"
        inputs = widths[max(index - 1, 0)]
        for block in range(level.blocks):
            yield from _block(config, level, f"{here}.{block}", there, block, inputs)
            inputs = level.channels
            skips.append(inputs)
        if index < last:
            yield from _residual(f"{here}.{level.blocks}.residual", f"{there}.downsamplers.0")
            skips.append(inputs)
    yield from _residual("middle.0.residual", "mid_block.resnets.0")
    if config.middle != "none":
        yield from _attention(config, config.middle, "middle.0.attention", "mid_block.attentions.0")
    yield from _residual("middle.1.residual", "mid_block.resnets.1")
    for place in range(len(config.levels)):
        level, here, there = config.levels[last - place], f"up.{place}", f"up_blocks.{place}"
        for block in range(level.blocks + 1):
            inputs = widths[last - place] if block else widths[min(last - place + 1, last)]
            joined = inputs + skips.pop()
            yield from _block(config, level, f"{here}.{block}", there, block, joined)
        if place < last:
            yield from _residual(f"{here}.{level.blocks + 1}.residual", f"{there}.upsamplers.0")


def unclip_rules(prefix: str = "text.") -> Iterator[Rule]:
    """Where each parameter of `UnclipEncoder` stands in diffusers' `UnCLIPTextProjModel`."""
    yield Rule(f"{prefix}no_image", ("learned_classifier_free_guidance_embeddings",))
    for here, there in (
        ("text_to_embedding", "embedding_proj"),
        ("image_to_embedding", "clip_image_embeddings_project_to_time_embeddings"),
        ("image_to_states", "clip_extra_context_tokens_proj"),
        ("projection", "encoder_hidden_states_proj"),
        ("norm", "text_encoder_hidden_states_norm"),
    ):
        yield from linear_rules(prefix + here, there)


def linear_rules(here: str, *there: str) -> Iterator[Rule]:
    """Those of weight and bias of a layer, joined of several."""
    for kind in ("weight", "bias"):
        yield Rule(f"{here}.{kind}", tuple(f"{name}.{kind}" for name in there))


def _states_rules(text: StatesText) -> Iterator[Rule]:
    yield from linear_rules("text.projection", "encoder_hid_proj")
    if text.pool_heads == 0:
        return
    yield from linear_rules("text.pool.0", "add_embedding.norm1")
    yield Rule("text.pool.1.position", ("add_embedding.pool.positional_embedding",))
    for name in ("query", "key", "value"):
        yield from linear_rules(f"text.pool.1.{name}", f"add_embedding.pool.{name[0]}_proj")
    yield from linear_rules("text.pool.2", "add_embedding.proj")
    yield from linear_rules("text.pool.3", "add_embedding.norm2")


def _block(
    config: AdmConfig, level: AdmLevel, here: str, there: str, number: int, inputs: int
) -> Iterator[Rule]:
    skip = inputs != level.channels
    yield from _residual(f"{here}.residual", f"{there}.resnets.{number}", skip=skip)
    if level.attention != "none":
        attention = f"{there}.attentions.{number}"
        yield from _attention(config, level.attention, f"{here}.attention", attention)


def _residual(here: str, there: str, *, skip: bool = False) -> Iterator[Rule]:
    for name in ("norm1", "conv1", "norm2", "conv2"):
        yield from linear_rules(f"{here}.{name}", f"{there}.{name}")
    yield from linear_rules(f"{here}.embedding", f"{there}.time_emb_proj")
    if skip:
        yield from linear_rules(f"{here}.skip", f"{there}.conv_shortcut")


def _attention(config: AdmConfig, kind: AdmAttention, here: str, there: str) -> Iterator[Rule]:
    own = ("to_q", "to_k", "to_v") if kind == "joined" else ("to_q",)
    yield from linear_rules(f"{here}.norm", f"{there}.group_norm")
    yield from linear_rules(f"{here}.qkv", *(f"{there}.{name}" for name in own))
    if isinstance(config.text, StatesText) and config.text.norm:
        yield from linear_rules(f"{here}.norm_text", f"{there}.norm_cross")
    yield from linear_rules(f"{here}.text", f"{there}.add_k_proj", f"{there}.add_v_proj")
    yield from linear_rules(f"{here}.out", f"{there}.to_out.0")
