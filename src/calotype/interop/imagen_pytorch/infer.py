"""What the arguments of a `Unet` were, read off the names and shapes of its weights.

A checkpoint of imagen-pytorch rarely says. Some arguments leave no trace in the weights
(`NOT_IN_WEIGHTS`); they are taken as that package's defaults unless given.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from calotype.errors import CalotypeError, UsageError

NOT_IN_WEIGHTS = ("scale_skip_connection", "use_linear_cross_attn", "resize_mode")

Shapes = Mapping[str, tuple[int, ...]]


def infer_unet(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that make a `Unet` with weights of these shapes.

    Args:
        shapes: by the names used here (`own_name`).
        given: arguments that are known; they come first.

    Raises:
        CalotypeError: the weights are not those of imagen-pytorch's `Unet`.
        UsageError: the weights leave open what some input channels are for.
    """
    try:
        found = {**_widths(shapes), **_layers(shapes), **_ends(shapes)}
        found |= _images(shapes, found, given)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CalotypeError(
            f"these are no weights of imagen-pytorch's Unet ({error} is missing); only its image "
            "U-Nets convert, Unet3D does not"
        ) from error
    return {**found, **given}


def _widths(shapes: Shapes) -> dict[str, Any]:
    time = shapes["to_time_cond.0.weight"][0]
    lowres = "to_lowres_time_cond.0.weight" in shapes
    dim = time // (8 if lowres else 4)
    cond = shapes["norm_cond.weight"][0]
    on_text = "text_to_cond.weight" in shapes
    pooled = "attn_pool.latents" in shapes
    found = {
        "dim": dim,
        "lowres_cond": lowres,
        "cond_dim": cond,
        "learned_sinu_pos_emb_dim": 2 * shapes["to_time_hiddens.0.weights"][0],
        "num_time_tokens": shapes["to_time_tokens.0.weight"][0] // cond,
        "cond_on_text": on_text,
        "text_embed_dim": shapes["text_to_cond.weight"][1] if on_text else None,
        "max_text_len": shapes["null_text_embed"][1],
        "attn_pool_text": pooled,
    }
    if pooled:
        found["attn_pool_num_latents"] = shapes["attn_pool.latents"][0]
    return {**found, **_heads(shapes)}


def _heads(shapes: Shapes) -> dict[str, Any]:
    # The middle always attends, with 8 heads of 64: it says nothing.
    for name, shape in shapes.items():
        scale = name.endswith(".q_scale") and not name.startswith(("mid_block1.", "mid_block2."))
        if scale:
            width = shapes[name.removesuffix("q_scale") + "to_q.weight"][0]
            return {"attn_dim_head": shape[0], "attn_heads": width // shape[0]}
    return {}


def _layers(shapes: Shapes) -> dict[str, Any]:
    count = _count(shapes, r"down\.(\d+)\.")
    dim = _widths(shapes)["dim"]
    outer = [shapes[f"up.{count - 1 - i}.entry.block1.project.weight"][0] for i in range(count)]
    full = [f"down.{i}.attention.layers.0.attend.null_kv" in shapes for i in range(count)]
    linear = [f"down.{i}.attention.layers.0.attend.to_q.1.weight" in shapes for i in range(count)]
    depths = [_count(shapes, rf"down\.{i}\.attention\.layers\.(\d+)\.") for i in range(count)]
    blocks = [_count(shapes, rf"down\.{i}\.blocks\.(\d+)\.") for i in range(count)]
    if any(width % dim for width in outer):
        raise CalotypeError(f"got widths {outer} with dim={dim}; expected multiples of it")
    found: dict[str, Any] = {
        "dim_mults": tuple(width // dim for width in outer),
        "num_resnet_blocks": tuple(blocks),
        "layer_attns": tuple(full),
        "use_linear_attn": tuple(linear),
        "layer_attns_depth": tuple(max(1, depth) for depth in depths),
        "layer_cross_attns": tuple(
            f"down.{i}.entry.cross_attn.null_kv" in shapes for i in range(count)
        ),
        "memory_efficient": "init_resnet_block.block1.project.weight" in shapes,
        "use_global_context_attn": any(
            re.match(r"(down\.\d+\.blocks\.\d+|init_resnet_block)\.gca\.", name) for name in shapes
        ),
        "pixel_shuffle_upsample": not any(
            re.match(r"up\.\d+\.after\.1\.weight", name) for name in shapes
        ),
        "attend_at_middle": any(name.startswith("mid_attn.") for name in shapes),
        "layer_mid_attns_depth": max(1, _count(shapes, r"mid_attn\.layers\.(\d+)\.")),
    }
    return found | _ff_mult(shapes)


def _ff_mult(shapes: Shapes) -> dict[str, Any]:
    for name, shape in shapes.items():
        if re.match(r"down\.\d+\.attention\.layers\.0\.feed\.1\.weight", name):
            return {"ff_mult": shape[0] / shape[1]}
    return {}


def _ends(shapes: Shapes) -> dict[str, Any]:
    kernels = sorted(
        (shape[-1], shape[0])
        for name, shape in shapes.items()
        if re.fullmatch(r"init_conv\.convs\.\d+\.weight", name)
    )
    stem = sum(width for _, width in kernels) or shapes["init_conv.weight"][0]
    found: dict[str, Any] = {
        "init_dim": stem,
        "init_cross_embed": bool(kernels),
        "combine_upsample_fmaps": any(name.startswith("upsample_combiner.") for name in shapes),
        "final_resnet_block": "final_res_block.block1.project.weight" in shapes,
        "final_conv_kernel_size": shapes["final_conv.weight"][-1],
    }
    if kernels:
        found["init_cross_embed_kernel_sizes"] = tuple(size for size, _ in kernels)
    else:
        found["init_conv_kernel_size"] = shapes["init_conv.weight"][-1]
    return found


def _images(shapes: Shapes, found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Which channels enter and leave."""
    out, last = shapes["final_conv.weight"][:2]
    channels = given.get("channels", out)
    if found["final_resnet_block"]:
        last = shapes["final_res_block.block1.project.weight"][1]
    else:
        last -= channels if found["lowres_cond"] else 0
    width = found["dim"] * (found["dim_mults"][0] if not found["memory_efficient"] else 1)
    width = found["init_dim"] if found["memory_efficient"] else width
    if found["combine_upsample_fmaps"]:
        width += found["dim"] * len(found["dim_mults"])
    entering = sum(
        shape[1]
        for name, shape in shapes.items()
        if name in ("init_conv.weight", "init_conv.convs.0.weight")
    )
    extra = entering - channels * (2 if found["lowres_cond"] else 1)
    result = {
        "channels": channels,
        "channels_out": out,
        "init_conv_to_final_conv_residual": last > width,
    }
    if "self_cond" in given or "cond_images_channels" in given:
        told = channels if given.get("self_cond", False) else 0
        return {**result, "cond_images_channels": extra - told}
    if extra >= channels:
        raise UsageError(
            f"the network takes {extra} channels more than its images: give self_cond and "
            "cond_images_channels"
        )
    return {**result, "cond_images_channels": extra}


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that the pattern finds; 0 where it finds none."""
    numbers = [int(m.group(1)) for m in (re.match(pattern, name) for name in shapes) if m]
    largest = max(numbers, default=-1)
    if largest > 10_000:
        raise CalotypeError(f"got a layer number {largest}; these are no weights of a Unet")
    return math.trunc(largest + 1)
