"""What a request means: a `JobRequest`, and what of it had no effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from calotype.serving.front.errors import ApiError, invalid
from calotype.serving.front.recall import (
    guidance_of_scale,
    request_of_parameters,
    steps_of_theirs,
)
from calotype.serving.job import MOST_SIDE, JobRequest
from calotype.serving.sdapi.fields import Call, ImageToImage, TextToImage
from calotype.serving.sdapi.ignored import without_effect
from calotype.serving.sdapi.prompts import plain
from calotype.serving.sdapi.samplers import sampler_of, their_name

CHECKPOINT = "sd_model_checkpoint"
_THEIR_STEPS, _THEIR_SCALE = 20, 7.0
_THEIR_SIDE = 512
_THEIR_STRENGTH = 0.75
_THEIR_BLUR = 4  # pixels
_ORIGINAL = 1  # of `inpainting_fill`: begin with what is in the hole
_SETTINGS = (CHECKPOINT,)  # of `override_settings`


@dataclass(frozen=True)
class Served:
    """What a server has to say to requests.

    Attributes:
        models: that engines told of, the default first.
        chosen: name of the client's own default; None = the server's.
        scale: how `cfg_scale` and `steps` are read: "linear" or "exact".
    """

    models: Sequence[Mapping[str, Any]]
    chosen: str | None = None
    scale: Literal["linear", "exact"] = "linear"

    def model(self, name: str | None) -> Mapping[str, Any]:
        """What is known of a model; None = the client's default.

        Raises:
            ApiError: there is none of that name.
        """
        wanted = name or self.chosen or self.models[0]["name"]
        for model in self.models:
            if model["name"] == wanted:
                return model
        names = [model["name"] for model in self.models]
        message = f"got {CHECKPOINT} {name!r:.80}; expected one of {names}"
        raise ApiError(400, message, code="model_not_found", param=CHECKPOINT)


@dataclass(frozen=True)
class Meaning:
    """A request understood.

    Attributes:
        request: what is to be made.
        model: its name.
        sampler: the base's, as they call it.
        steps: as the client counts them.
        cfg_scale: as the client counts it.
        notes: further words for `info`.
        ignored: names of the fields that had no effect.
    """

    request: JobRequest
    model: str
    sampler: str
    steps: int
    cfg_scale: float
    notes: dict[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def meaning(call: Call, served: Served, found: Mapping[str, Any]) -> Meaning:
    """What a request means.

    Args:
        call: the request.
        served: by what server.
        found: fields of the `JobRequest` that its kind brings along.

    Raises:
        ApiError: something does not fit.
    """
    overrides = call.override_settings or {}
    name = overrides.get(CHECKPOINT)
    model = served.model(str(name) if name else None)
    base = model["stages"][0]
    asked, ignored = _remembered(call, model, served), _ignored(call)
    prompt, of_prompt = plain(call.prompt if call.prompt is not None else asked.get("prompt", ""))
    negative, of_negative = plain(call.negative_prompt or asked.get("negative_prompt") or "")
    sampler, notes = _sampler(call, model, asked, ignored)
    fields = {
        "model": model["name"],
        "prompt": prompt,
        "negative_prompt": negative or None,
        "class": asked.get("class") if call.class_name is None else call.class_name,
        "n": (call.batch_size or 1) * (call.n_iter or 1),
        "seed": asked.get("seed") if call.seed is None else call.seed,
        "steps": asked.get("steps"),
        "guidance": asked.get("guidance"),
        "sampler": sampler,
        **found,
    }
    if fields["seed"] == -1:
        fields["seed"] = None
    if call.steps is not None:
        fields["steps"] = _steps(call.steps, base, served, ignored)
    if call.cfg_scale is not None:
        fields["guidance"] = _guidance(call.cfg_scale, base, served)
    return Meaning(
        _checked(fields),
        model["name"],
        their_name(sampler or base["sampler"]),
        _THEIR_STEPS if call.steps is None else call.steps,
        _THEIR_SCALE if call.cfg_scale is None else call.cfg_scale,
        notes,
        tuple(dict.fromkeys((*of_prompt, *of_negative, *ignored))),
    )


def _remembered(call: Call, model: Mapping[str, Any], served: Served) -> dict[str, Any]:
    """Fields by the text of an earlier image, where the request has one."""
    if not call.infotext:
        return {}
    base = model["stages"][0]
    own: dict[str, Any] = {"own_weight": _THEIR_SCALE}  # which means their scale itself
    if served.scale == "linear":
        own = {"own_weight": float(base["guidance_weight"]), "own_steps": int(base["steps"])}
    return request_of_parameters(call.infotext, **own).fields


def _ignored(call: Call) -> list[str]:
    is_enlarged = isinstance(call, TextToImage) and bool(call.enable_hr)
    found = without_effect(call.others, is_enlarged=is_enlarged)
    if is_enlarged and call.denoising_strength is not None:
        found.append("denoising_strength")
    overrides = call.override_settings or {}
    found += [f"override_settings.{name}" for name in overrides if name not in _SETTINGS]
    if (call.scheduler or "automatic").lower() != "automatic":
        found.append("scheduler")
    return found


def _sampler(
    call: Call, model: Mapping[str, Any], asked: Mapping[str, Any], ignored: list[str]
) -> tuple[str | None, dict[str, Any]]:
    """The sampler, None = the model's own, and what `info` says where that was not asked for."""
    name = call.sampler_name or call.sampler_index
    if name is None and "sampler" in asked:
        return asked["sampler"], {}
    sampler, is_known = sampler_of(name, model["samplers"])
    if is_known:
        return sampler, {}
    ignored.append("sampler_name" if call.sampler_name else "sampler_index")
    return None, {"Sampler asked for": name}


def _steps(asked: int, base: Mapping[str, Any], served: Served, ignored: list[str]) -> int | None:
    """Steps of the base: theirs are 20 where nobody has changed them; None = its own."""
    if base["settings"].get("timesteps") is not None:
        ignored.append("steps")
        return None
    if served.scale == "exact":
        return asked
    own = int(base["steps"])
    found = steps_of_theirs(asked, own)
    return None if found == own else found


def _guidance(asked: float, base: Mapping[str, Any], served: Served) -> float | None:
    """Weight of the base; None = its own."""
    if served.scale == "exact":
        return asked
    own = float(base["guidance_weight"])
    found = guidance_of_scale(asked, own)
    return None if found == own else min(found, 1000.0)


def _checked(fields: Mapping[str, Any]) -> JobRequest:
    try:
        return JobRequest(**{name: one for name, one in fields.items() if one is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        names = {"n": "batch_size times n_iter"}
        where = [names.get(str(one), one) for one in first["loc"]] or ["seed"]
        raise invalid(where, first["msg"]) from None


def size_of(call: TextToImage, served: Served) -> tuple[int, int]:
    """Width and height of an image of a caption, enlarged where that is asked for.

    Raises:
        ApiError: it gets too large.
    """
    largest = served.model(_checkpoint(call))["largest_side"]
    side = min(_THEIR_SIDE, largest)
    width, height = call.width or side, call.height or side
    if not call.enable_hr:
        return width, height
    to_width, to_height = call.hr_resize_x or 0, call.hr_resize_y or 0
    if to_width and to_height:
        found = to_width, to_height
    else:
        factor = max(to_width / width, to_height / height) or call.hr_scale or 2.0
        found = round(width * factor), round(height * factor)
    if max(found) > MOST_SIDE:
        got = f"got {found[0]}x{found[1]} by enable_hr; expected at most {MOST_SIDE} a side"
        raise ApiError(400, got, code="invalid_value", param="hr_scale")
    return found


def kind_of_edit(call: ImageToImage, *, padding: float | None) -> dict[str, Any]:
    """Fields of a `JobRequest` for an image made of another; `padding` with a mask alone.

    Raises:
        ApiError: nothing would change.
    """
    asked = call.denoising_strength
    strength = _THEIR_STRENGTH if asked is None else asked
    if strength == 0:
        got = "got denoising_strength 0, which changes nothing; expected above 0 and up to 1"
        raise ApiError(400, got, code="invalid_value", param="denoising_strength")
    if call.mask is None:
        return {"kind": "image_to_image", "strength": strength}
    begins_anew = call.inpainting_fill != _ORIGINAL or strength == 1
    return {
        "kind": "inpaint",
        "strength": None if begins_anew else strength,
        "mask_blur": _THEIR_BLUR if call.mask_blur is None else call.mask_blur,
        "crop": True if call.inpaint_full_res is None else call.inpaint_full_res,
        "padding": padding,
    }


def _checkpoint(call: Call) -> str | None:
    name = (call.override_settings or {}).get(CHECKPOINT)
    return str(name) if name else None
