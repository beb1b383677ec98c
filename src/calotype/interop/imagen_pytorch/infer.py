"""What the arguments of a `Unet` were, read off the names and shapes of its weights.

A checkpoint of imagen-pytorch rarely says. Some arguments leave no trace in the weights
(`NOT_IN_WEIGHTS`); they are taken as that package's defaults unless given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from calotype.errors import CalotypeError, UsageError
from calotype.interop.safety import Shapes

NOT_IN_WEIGHTS = ("scale_skip_connection", "use_linear_cross_attn", "resize_mode")


def infer_unet(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a `Unet` whose weights, by the names used here, have these shapes.

    Those that are `given` come first.

    Raises:
        CalotypeError: the weights are not those of imagen-pytorch's `Unet`.
        UsageError: the weights leave open what some input channels are for.
    """
    try:
        found = _widths(shapes)
        found |= _layers(shapes, found["dim"]) | _ends(shapes)
        found |= _images(shapes, found, given)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CalotypeError(
            f"these are no weights of imagen-pytorch's Unet ({error} is missing); only its image "
            "U-Nets convert, Unet3D does not"
        ) from error
    return {**found, **given}


def _widths(shapes: Shapes) -> dict[str, Any]:
    lowres = "to_lowres_time_cond.0.weight" in shapes
    cond = shapes["norm_cond.weight"][0]
    found = {
        "dim": shapes["to_time_cond.0.weight"][0] // (8 if lowres else 4),
        "lowres_cond": lowres,
        "cond_dim": cond,
        "learned_sinu_pos_emb_dim": 2 * shapes["to_time_hiddens.0.weights"][0],
        "num_time_tokens": shapes["to_time_tokens.0.weight"][0] // cond,
        "cond_on_text": "text_to_cond.weight" in shapes,
        "text_embed_dim": shapes.get("text_to_cond.weight", (0, None))[1],
        "max_text_len": shapes["null_text_embed"][1],
        "attn_pool_text": "attn_pool.latents" in shapes,
    }
    if found["attn_pool_text"]:
        found["attn_pool_num_latents"] = shapes["attn_pool.latents"][0]
    for name, shape in shapes.items():
        # Blocks of the middle always attend, with 8 heads of 64: they say nothing.
        if name.endswith(".q_scale") and not name.startswith(("mid_block1.", "mid_block2.")):
            width = shapes[name.removesuffix("q_scale") + "to_q.weight"][0]
            return found | {"attn_dim_head": shape[0], "attn_heads": width // shape[0]}
    return found


def _layers(shapes: Shapes, dim: int) -> dict[str, Any]:
    layers = range(_count(shapes, r"down\.(\d+)\."))
    outer = [shapes[f"up.{i}.entry.block1.project.weight"][0] for i in reversed(layers)]
    attention = [f"down.{i}.attention.layers.0.attend" for i in layers]
    depths = [_count(shapes, rf"down\.{i}\.attention\.layers\.(\d+)\.") for i in layers]
    if any(width % dim for width in outer):
        raise CalotypeError(f"got widths {outer} with dim={dim}; expected multiples of it")
    crossed = tuple(f"down.{i}.entry.cross_attn.null_kv" in shapes for i in layers)
    gated = r"(down\.\d+\.blocks\.\d+|init_resnet_block)\.gca\."
    found: dict[str, Any] = {
        "dim_mults": tuple(width // dim for width in outer),
        "num_resnet_blocks": tuple(_count(shapes, rf"down\.{i}\.blocks\.(\d+)\.") for i in layers),
        "layer_attns": tuple(f"{name}.null_kv" in shapes for name in attention),
        "use_linear_attn": tuple(f"{name}.to_q.1.weight" in shapes for name in attention),
        "layer_attns_depth": tuple(max(1, depth) for depth in depths),
        "layer_cross_attns": crossed,
        "memory_efficient": "init_resnet_block.block1.project.weight" in shapes,
        "use_global_context_attn": bool(_all(shapes, gated)),
        "pixel_shuffle_upsample": not _all(shapes, r"up\.\d+\.after\.1\.weight"),
        "attend_at_middle": bool(_all(shapes, r"mid_attn\.")),
        "layer_mid_attns_depth": max(1, _count(shapes, r"mid_attn\.layers\.(\d+)\.")),
    }
    for hidden, width, *_ in _all(shapes, r"down\.\d+\.attention\.layers\.0\.feed\.1\.weight"):
        found["ff_mult"] = hidden / width
    return found


def _ends(shapes: Shapes) -> dict[str, Any]:
    convs = _all(shapes, r"init_conv\.convs\.\d+\.weight")
    kernels = sorted(shape[-1] for shape in convs)
    found: dict[str, Any] = {
        "init_dim": sum(shape[0] for shape in convs) or shapes["init_conv.weight"][0],
        "init_cross_embed": bool(kernels),
        "combine_upsample_fmaps": bool(_all(shapes, r"upsample_combiner\.")),
        "final_resnet_block": "final_res_block.block1.project.weight" in shapes,
        "final_conv_kernel_size": shapes["final_conv.weight"][-1],
    }
    if kernels:
        return found | {"init_cross_embed_kernel_sizes": tuple(kernels)}
    return found | {"init_conv_kernel_size": shapes["init_conv.weight"][-1]}


def _images(shapes: Shapes, found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Which channels enter and leave."""
    out, last = shapes["final_conv.weight"][:2]
    channels = given.get("channels", out)
    if found["final_resnet_block"]:
        last = shapes["final_res_block.block1.project.weight"][1]
    else:
        last -= channels if found["lowres_cond"] else 0
    width = found["dim"] * found["dim_mults"][0]
    width = found["init_dim"] if found["memory_efficient"] else width
    if found["combine_upsample_fmaps"]:
        width += found["dim"] * len(found["dim_mults"])
    entering = _all(shapes, r"init_conv\.(convs\.0\.)?weight")[0][1]
    extra = entering - channels * (2 if found["lowres_cond"] else 1)
    if "self_cond" in given or "cond_images_channels" in given:
        extra -= channels if given.get("self_cond", False) else 0
    elif extra >= channels:
        raise UsageError(
            f"the network takes {extra} channels more than its images: give self_cond and "
            "cond_images_channels"
        )
    return {
        "channels": channels,
        "channels_out": out,
        "init_conv_to_final_conv_residual": last > width,
        "cond_images_channels": extra,
    }


def _all(shapes: Shapes, pattern: str) -> list[tuple[int, ...]]:
    """The shapes of all weights whose names begin with the pattern."""
    return [shape for name, shape in shapes.items() if re.match(pattern, name)]


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern finds; 0 where it finds none."""
    numbers = [int(m.group(1)) for m in (re.match(pattern, name) for name in shapes) if m]
    largest = max(numbers, default=-1)
    if largest > 10_000:
        raise CalotypeError(f"got a layer number {largest}; these are no weights of a Unet")
    return largest + 1
