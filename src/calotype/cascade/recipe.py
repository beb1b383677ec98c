"""The recipe of an image: everything needed to make it again, as plain JSON data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from calotype import __version__
from calotype.cascade.cascade import Cascade
from calotype.cascade.plan import SamplePlan
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import from_dict, to_dict
from calotype.errors import CalotypeError, UsageError
from calotype.runtime import Runtime
from calotype.text.tokenizer_folder import shown_spec

_DECIDING = (
    "kind", "caption", "negative_caption", "seed", "model", "stages", "loras", "of",
    "source_sha256",
)  # fmt: skip


def image_recipe(cascade: Cascade, plan: SamplePlan, row: int, runtime: Runtime) -> dict[str, Any]:
    """The recipe of image `row` of a plan.

    Args:
        cascade: what samples; its stages hold the number types of their network calls.
        plan: what was sampled.
        row: which image.
        runtime: how it was computed.
    """
    return {
        "format": 1,
        "version": __version__,
        "torch": torch.__version__,
        "kind": "sample",
        "caption": plan.captions[row],
        "negative_caption": None if plan.negatives is None else plan.negatives[row],
        **class_note(None if plan.classes is None else plan.classes[row]),
        "seed": plan.seeds[row],
        "model": {
            "name": cascade.name,
            "text_encoder": shown_spec(cascade.text_encoder_spec),
            "weights": weights_id(cascade, [stage.index for stage in plan.stages]),
        },
        "stages": [
            {
                "resolution": cascade.stages[stage.index].config.resolution,
                "height": stage.shown[0],
                "width": stage.shown[1],
                "dtype": str(cascade.stages[stage.index].compute_dtype).removeprefix("torch."),
                "sampling": to_dict(stage.sampling),
                **({} if stage.tiling is None else {"tiled": to_dict(stage.tiling)}),
            }
            for stage in plan.stages
        ],
        "runtime": runtime.to_dict(),
    }


def class_note(name: str | None) -> dict[str, str]:
    """What the recipe of an image says of its class; {} = nobody named any."""
    return {} if name is None else {"class": name}


def weights_id(cascade: Cascade, indices: Sequence[int]) -> str:
    """One hexadecimal name for the weights of some stages; "" if they came from no file."""
    resolutions = [cascade.stages[index].config.resolution for index in indices]
    if any(resolution not in cascade.weights for resolution in resolutions):
        return ""
    text = " ".join(cascade.weights[resolution] for resolution in resolutions)
    return hashlib.sha256(text.encode()).hexdigest()


def image_id(recipe: Mapping[str, Any]) -> str:
    """One hexadecimal name for the image a recipe makes, the same wherever that is computed.

    Equal for two images of one caption, seed, size, weights and settings; device, threads and
    number type change an image by rounding alone, and do not count.

    Args:
        recipe: of `image_recipe`, a sheet or an enlarged image; from a file it may be anything.
    """
    deciding = {key: recipe.get(key) for key in _DECIDING}
    if "edit" in recipe:  # only there: the ids of all other images stay what they were
        deciding["edit"] = recipe["edit"]
    if "class" in recipe:
        deciding["class"] = recipe["class"]
    if isinstance(guides := recipe.get("guides"), list):  # by what they are, not where
        deciding["guides"] = [_without(one, ("path", "name")) for one in guides]
    if isinstance(best := recipe.get("best_of"), Mapping):  # which candidate won says the image
        deciding["seed"] = best.get("seed")
        deciding["best_of"] = [best.get("count"), best.get("clip_sha256")]
    if isinstance(stages := deciding["stages"], list):
        deciding["stages"] = [_without(stage, ("dtype",)) for stage in stages]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def _without(part: Any, names: Sequence[str]) -> Any:
    """Part of a recipe, which may be anything, but for what does not decide its image."""
    if not isinstance(part, Mapping):
        return part
    return {key: value for key, value in part.items() if key not in names}


def check_recipe(recipe: Mapping[str, Any], *, kind: str = "sample") -> None:
    """Refuse what is not the recipe of such an image: it comes from a file, and may be anything.

    Raises:
        UsageError: the image was made in another way.
        CalotypeError: something is missing or of the wrong kind.
    """
    if recipe.get("kind") != kind:
        raise UsageError(
            f"the image is of the kind {recipe.get('kind')!r:.80}; expected one that calotype "
            f"{kind} made"
        )
    kinds: dict[str, type] = {"caption": str, "seed": int, "model": dict, "runtime": dict}
    good = all(isinstance(recipe.get(key), kind) for key, kind in kinds.items())
    stages = recipe.get("stages")
    good = good and isinstance(stages, list) and len(stages) > 0
    for stage in stages if isinstance(stages, list) else ():
        sides = ("resolution", "height", "width")
        good = good and isinstance(stage, dict)
        good = good and all(type(stage.get(side)) is int and stage[side] > 0 for side in sides)
        good = good and isinstance(stage.get("dtype"), str | None)
    negative = recipe.get("negative_caption")
    good = good and isinstance(negative, str | None) and _good_parts(recipe)
    if not good or recipe.get("format") != 1:
        raise CalotypeError("the recipe is damaged or of a newer calotype; use another image")


def _good_parts(recipe: Mapping[str, Any]) -> bool:
    runtime, loras = recipe["runtime"], recipe.get("loras", [])
    good = type(runtime.get("threads", 1)) is int and isinstance(runtime.get("dtype"), str | None)
    good = good and isinstance(recipe["model"].get("weights", ""), str)
    good = good and isinstance(recipe.get("class"), str | None)
    return good and isinstance(loras, list) and all(isinstance(lora, dict) for lora in loras)


def recipe_sampling(recipe: Mapping[str, Any]) -> dict[int, SamplingConfig]:
    """The sampling settings a recipe that passed `check_recipe` holds, by resolution.

    Raises:
        ConfigError: a setting is unknown or out of range.
    """
    stages = ((stage["resolution"], stage.get("sampling")) for stage in recipe["stages"])
    return {size: from_dict(sampling, SamplingConfig) for size, sampling in stages}
