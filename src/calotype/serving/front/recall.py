"""How an image was made, as fields of a `JobRequest` that makes it again.

Recipes and `parameters` texts come from files of anybody: what is not what it should be is left out
and named, and nothing raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from calotype.config.sampling import Sampler
from calotype.serving.job import MOST_STEPS, JobRequest

_MOST_LINE = 20_000  # characters of the settings in a text
_MOST_IGNORED = 50
_PAIR = re.compile(r' ?([A-Za-z][\w \-/+]{0,59}): ?("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')
_NEGATIVE = "Negative prompt:"
_THEIR_SAMPLERS = {
    "ddim": "ddim",
    "ddpm": "ddpm",
    "dpm++ 2m": "dpmpp_2m",
    "dpm++ 2m sde": "dpmpp_2m_sde",
    "heun": "heun",
}
_THEIR_WEIGHT = 7.0  # what their CFG scale means a model's own guidance by
_THEIR_STEPS = 20  # what their page sends until somebody changes it
_OF_BASE = {"steps": "steps", "sampler": "sampler", "guidance_weight": "guidance"}
_OF_EDIT = {"strength": "strength", "vary": "vary", "crop": "crop", "padding": "padding"}
_NOT_ASKED: tuple[Any, ...] = (None, False, 0, [], {}, "", [255, 255, 255])
_KNOWN = {
    "format", "version", "torch", "runtime", "kind", "caption", "negative_caption", "class", "seed",
    "model", "stages", "edit", "source_sha256", "mask_sha256", "size", "batch",
}  # fmt: skip


@dataclass(frozen=True)
class Recalled:
    """What could be read.

    Attributes:
        fields: of a `JobRequest`, as JSON data; together they are valid, but for a source and a
            mask, which no image carries.
        ignored: names of what is written there and has no field, or does not fit it.
    """

    fields: dict[str, Any]
    ignored: tuple[str, ...]


def request_of_recipe(recipe: Mapping[str, Any], *, models: Collection[str] = ()) -> Recalled:
    """The request that an image's recipe answers; every setting of every stage is in it.

    Args:
        recipe: of one of our images; from a file it may be anything.
        models: names that a request may ask for; another model's is ignored.
    """
    kind = _kind(recipe)
    name = _mapping(recipe.get("model")).get("name")
    asked = {
        "prompt": recipe.get("caption"),
        "negative_prompt": recipe.get("negative_caption"),
        "class": recipe.get("class"),
        "seed": recipe.get("seed"),
        "model": name if name in _names(models) else None,
        "exact": _mapping(recipe.get("batch")).get("exact"),
        **_sampling(recipe, with_base=kind in ("sample", "image_to_image", "inpaint")),
        **_edit(recipe),
        "size": _size(recipe) if kind in ("sample", "upscale") else None,
        "kind": kind,  # last: it needs what stands above
    }
    ignored = [key for key, value in recipe.items() if key not in _KNOWN and _is_asked(value)]
    if name is not None and asked["model"] is None:
        ignored.append("model")
    edit = _mapping(recipe.get("edit"))
    passed = {*_OF_EDIT, "feather", "hole_sha256"}
    ignored += [key for key, value in edit.items() if key not in passed and _is_asked(value)]
    return _recalled(asked, ignored)


def request_of_parameters(
    text: str,
    *,
    own_weight: float | None = None,
    own_steps: int | None = None,
    models: Collection[str] = (),
) -> Recalled:
    """The request nearest to a `parameters` text, of AUTOMATIC1111's web UI or ours.

    Args:
        text: prompt, "Negative prompt: ...", and a line "Steps: 20, Sampler: ..., Seed: 1, ...".
        own_weight: guidance of the model; their CFG scale 7 means it and 1 means none, linearly.
            None = their scale is ignored; ours is the guidance itself.
        own_steps: of the model; their 20 mean so many, other numbers in proportion. None = as
            many as they say, as in ours.
        models: as of `request_of_recipe`.
    """
    prompt, negative, pairs = _parts(text)
    ours = pairs.pop("Version", "").startswith("calotype")
    pairs.pop("Model hash", None)
    scale = _number(pairs.get("CFG scale"))
    if scale is not None and not ours:
        scale = None if own_weight is None else guidance_of_scale(scale, own_weight)
    steps = _whole(pairs.get("Steps"))
    if steps is not None and own_steps is not None and not ours:
        steps = steps_of_theirs(steps, own_steps)
    asked = {
        "prompt": prompt,
        "negative_prompt": negative or None,
        "Steps": ("steps", steps),
        "Sampler": ("sampler", their_sampler(pairs.get("Sampler"))),
        "CFG scale": ("guidance", scale),
        "Seed": ("seed", _whole(pairs.get("Seed"))),
        "Size": ("size", _sides(pairs.get("Size"))),
        "Class": ("class", pairs.get("Class")),
        "Model": ("model", pairs["Model"] if pairs.get("Model") in _names(models) else None),
    }
    fields, ignored = {}, [key for key in pairs if key not in asked]
    for key, value in asked.items():
        field, found = value if isinstance(value, tuple) else (key, value)
        fields[field] = found
        if found is None and pairs.get(key, "None") not in ("None", ""):
            ignored.append(key)
    return _recalled(fields, ignored)


def parameters_of(text: str) -> dict[str, str]:
    """Prompt, negative prompt and settings of a `parameters` text, by their names in it."""
    prompt, negative, pairs = _parts(text)
    return {"Prompt": prompt, "Negative prompt": negative, **pairs} if text else {}


def guidance_of_scale(scale: float, own_weight: float) -> float:
    """What their CFG scale means for a model: 1 is none, 7 its own weight, linearly."""
    return max(0.0, 1 + (scale - 1) / (_THEIR_WEIGHT - 1) * (own_weight - 1))


def steps_of_theirs(steps: int, own: int) -> int:
    """What their number of steps means for a model: 20 is its own number, others in proportion."""
    return min(max(round(own * steps / _THEIR_STEPS), 1), MOST_STEPS)


def their_sampler(name: str | None) -> str | None:
    """The sampler that a name of theirs or ours means; None = we have none such."""
    if name in get_args(Sampler):
        return name
    return _THEIR_SAMPLERS.get((name or "").lower().removesuffix(" karras"))


def _recalled(asked: Mapping[str, Any], ignored: list[str]) -> Recalled:
    """What of it fits a request, field after field; the rest is ignored, too."""
    fields: dict[str, Any] = {}
    for name, value in asked.items():
        if value is None:
            continue
        try:
            JobRequest(**{**fields, name: value})
        except (ValueError, RecursionError):
            ignored.append(name)
        else:
            fields[name] = value
    return Recalled(fields, tuple(dict.fromkeys(str(one)[:60] for one in ignored))[:_MOST_IGNORED])


def _kind(recipe: Mapping[str, Any]) -> Any:
    kind, edit = recipe.get("kind"), _mapping(recipe.get("edit"))
    if kind != "edit":
        return kind
    if edit.get("vary") is not None:
        return "vary"
    has_hole = recipe.get("mask_sha256") or edit.get("boxes") or edit.get("extend")
    return "inpaint" if has_hole or edit.get("strength") is None else "image_to_image"


def _edit(recipe: Mapping[str, Any]) -> dict[str, Any]:
    edit = _mapping(recipe.get("edit"))
    found = {field: edit.get(name) for name, field in _OF_EDIT.items()}
    return {**found, "mask_blur": edit.get("feather")}


def _sampling(recipe: Mapping[str, Any], *, with_base: bool) -> dict[str, Any]:
    """All settings of all stages; of the base, those that have fields of their own are there."""
    found: dict[str, Any] = {}
    stages: dict[int, dict[str, Any]] = {}
    for number, stage in enumerate(_stages(recipe)):
        sampling = dict(_mapping(stage.get("sampling")))
        if number == 0 and with_base:
            found = {field: sampling.pop(name, None) for name, field in _OF_BASE.items()}
        if sampling and isinstance(stage.get("resolution"), int):
            stages[stage["resolution"]] = sampling
    return {**found, "stages": stages or None}


def _size(recipe: Mapping[str, Any]) -> Any:
    """Width and height: of the finished image, if it was resized, else of the last stage's."""
    if recipe.get("size") is not None:
        return recipe["size"]
    stages = _stages(recipe)
    sides = [stages[-1].get("width"), stages[-1].get("height")] if stages else [None]
    return None if None in sides else sides


def _stages(recipe: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    stages = recipe.get("stages")
    return [_mapping(stage) for stage in stages] if isinstance(stages, list) else []


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _names(models: Collection[str]) -> list[str]:
    return list(models)  # what is looked for may be unhashable


def _is_asked(value: Any) -> bool:
    return not any(value is one or value == one for one in _NOT_ASKED)


def _parts(text: str) -> tuple[str, str, dict[str, str]]:
    """Prompt, negative prompt and settings of a text."""
    lines = text.strip().split("\n")
    pairs = dict(_pairs(lines[-1]))
    if len(pairs) >= 3 or "Steps" in pairs:
        lines.pop()
    else:
        pairs = {}
    starts = (number for number, line in enumerate(lines) if line.strip().startswith(_NEGATIVE))
    negative = next(starts, len(lines))
    below = "\n".join(lines[negative:]).strip().removeprefix(_NEGATIVE)
    return "\n".join(lines[:negative]).strip(), below.strip(), pairs


def _pairs(line: str) -> Iterator[tuple[str, str]]:
    """The pairs "Name: value" of a line; a value with commas is quoted, as JSON."""
    line, at = line.strip()[:_MOST_LINE], 0
    while match := _PAIR.match(line, at):
        name, value = match[1].strip(), match[2].strip()
        if value.startswith('"'):
            try:
                value = str(json.loads(value))
            except ValueError:
                pass
        yield name, value
        at = match.end()
        if at == len(line):
            return


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch("[0-9]{1,19}", text) else None


def _number(text: str | None) -> float | None:
    found = text is not None and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,20})?", text)
    return float(text) if found and text is not None else None


def _sides(text: str | None) -> list[int] | None:
    match = re.fullmatch("([0-9]{1,6})x([0-9]{1,6})", text or "")
    return None if match is None else [int(match[1]), int(match[2])]
