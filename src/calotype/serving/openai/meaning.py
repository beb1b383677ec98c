"""What a request means: a `JobRequest`, and the fields that had no effect on it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from calotype.serving.front.errors import ApiError, invalid
from calotype.serving.job import MOST_STEPS, JobRequest
from calotype.serving.openai.fields import Edit, Fields, Generation, Variation

STEPS = {"low": 0.5, "high": 2.0, "hd": 2.0, "xhigh": 3.0, "max": 4.0}
"""By quality: times the base's own steps; others mean as many."""
STRENGTHS = {"high": 0.4, "low": 0.7}
"""By `input_fidelity`: how much of a source is made anew; "low" where it is not said."""
VARY = 0.1
"""Noise on the small version of an image that is varied, where `strength` is not said."""
_OTHERS = re.compile(r"(gpt-image|chatgpt-image|dall-e)-")
_OURS = {  # names of JobRequest, and of the engine's refusals, in this API
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "format": "output_format",
    "compression": "output_compression",
    "vary": "strength",
    "source": "image",
}


@dataclass(frozen=True)
class Meaning:
    """A request understood.

    Attributes:
        request: what is to be made.
        quality: that is answered: low, medium, high, xhigh or max.
        ignored: names of the fields that had no effect.
    """

    request: JobRequest
    quality: str
    ignored: tuple[str, ...]


def is_others(model: str) -> bool:
    """Whether a name is one that clients have built in, and stands for the default model."""
    return _OTHERS.match(model) is not None


def find_model(name: str | None, models: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What is known of a model; None and the names of OpenAI's are the first.

    Raises:
        ApiError: 404.
    """
    for model in models:
        if model["name"] == name:
            return model
    if name is None or is_others(name):
        return models[0]
    names = [model["name"] for model in models]
    message = f"got model {name!r:.80}; expected one of {names}"
    raise ApiError(404, message, code="model_not_found", param="model")


def meaning(
    fields: Fields,
    models: Sequence[Mapping[str, Any]],
    *,
    masked: bool = False,
) -> Meaning:
    """What a request means.

    Args:
        fields: of the request.
        models: that are served, the default first.
        masked: a hole is to be filled, and not all to change.

    Raises:
        ApiError: something does not fit.
    """
    ignored = {name for name in fields.WITHOUT_EFFECT if _is_said(fields, name)}
    model = find_model(fields.model, models)
    found: dict[str, Any] = {
        "model": model["name"] if fields.model is not None else None,
        "prompt": getattr(fields, "prompt", ""),
        "negative_prompt": fields.negative_prompt,
        "class": fields.class_name,
        "n": fields.n,
        "seed": fields.seed,
        "size": fields.sides,
        "steps": fields.num_inference_steps,
        "guidance": fields.guidance_scale,
        "stages": fields.stages,
        "format": fields.output_format,
        "compression": fields.output_compression,
    }
    if fields.output_compression is not None and fields.output_format in (None, "png"):
        ignored.add("output_compression")
    quality = _quality(fields, model, found, ignored)
    found |= _kind(fields, ignored, masked=masked)
    if isinstance(fields, Generation):
        ignored |= _of_streams(fields)
    try:
        request = JobRequest(**{name: said for name, said in found.items() if said is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise renamed(invalid(first["loc"] or ("seed",), first["msg"])) from None
    return Meaning(request, quality, tuple(sorted(ignored)))


def renamed(error: ApiError) -> ApiError:
    """An error of others that names a field, in the names of this API."""
    error.param = _OURS.get(error.param or "", error.param)
    return error


def _is_said(fields: Fields, name: str) -> bool:
    return getattr(fields, name) is not None


def _quality(
    fields: Fields, model: Mapping[str, Any], found: dict[str, Any], ignored: set[str]
) -> str:
    """The quality that is answered; the steps that it means go to `found`."""
    said = fields.quality if isinstance(fields, Generation) else None
    if said is None or said not in STEPS:
        return "medium"
    base = model["stages"][0]
    own = (fields.stages or {}).get(str(base["resolution"]), {})
    fixed = fields.num_inference_steps is not None or "steps" in own or "timesteps" in own
    if fixed or base["settings"].get("timesteps") is not None:
        ignored.add("quality")
        return "medium"
    found["steps"] = min(max(round(base["steps"] * STEPS[said]), 1), MOST_STEPS)
    return "high" if said == "hd" else said


def _kind(fields: Fields, ignored: set[str], *, masked: bool) -> dict[str, Any]:
    """What is done, and how much of a source is made anew."""
    if isinstance(fields, Variation):
        return {"kind": "vary", "vary": VARY if fields.strength is None else fields.strength}
    if not isinstance(fields, Edit):
        if fields.strength is not None:
            ignored.add("strength")
        return {"kind": "sample"}
    if fields.input_fidelity is not None and (masked or fields.strength is not None):
        ignored.add("input_fidelity")
    if masked:
        return {"kind": "inpaint", "strength": fields.strength}
    strength = STRENGTHS[fields.input_fidelity or "low"]
    return {
        "kind": "image_to_image",
        "strength": strength if fields.strength is None else fields.strength,
    }


def _of_streams(fields: Generation) -> set[str]:
    """Fields of streams in a request without one, and the other way round."""
    if fields.stream:
        return {"response_format"} if fields.response_format == "url" else set()
    return {"partial_images"} if fields.partial_images else set()
