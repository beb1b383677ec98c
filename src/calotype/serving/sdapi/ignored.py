"""Which fields of a request had no effect though somebody meant one: the x-ignored-params."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_MOST = 50
_NOTHING: tuple[Any, ...] = (None, False, 0, -1, "", "None", "Automatic", "automatic", [], {})
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "eta": (1,),
    "s_noise": (1,),
    "image_cfg_scale": (1.5,),
    "initial_noise_multiplier": (1,),
    "refiner_switch_at": (0.8,),
    "codeformer_weight": (0.5, 1),
    "upscale_first": (True,),
}
"""Values beside `_NOTHING` that clients send without having been asked."""
_NEVER = {"do_not_save_samples", "do_not_save_grid", "show_extras_results", "script_args"}
_OF_LARGER = "hr_"


def without_effect(others: Mapping[str, Any], *, is_enlarged: bool = False) -> list[str]:
    """Names of fields that we lack, whose values are not what they are by default.

    Args:
        others: the fields.
        is_enlarged: the request asks for a second pass, whose settings begin with "hr_".
    """
    found: list[str] = []
    for name, value in others.items():
        if name in _NEVER or (name.startswith(_OF_LARGER) and not is_enlarged):
            continue
        if name == "alwayson_scripts" and isinstance(value, dict):
            found += [f"{name}.{script}" for script, told in value.items() if _is_on(told)]
        elif _is_said(name, value):
            found.append(name)
    return found


def header_of(names: Iterable[str]) -> dict[str, str]:
    """The header that tells them; none where there are none."""
    told = dict.fromkeys(re.sub(r"[^\w.\- ]", "_", name[:80], flags=re.ASCII) for name in names)
    return {"x-ignored-params": ",".join(list(told)[:_MOST])} if told else {}


def _is_said(name: str, value: Any) -> bool:
    return value not in _NOTHING and value not in _DEFAULTS.get(name, ())


def _is_on(script: Any) -> bool:
    """Whether a script is to do something; their first argument often says so."""
    arguments = script.get("args") if isinstance(script, dict) else script
    return bool(arguments) and not (isinstance(arguments, list) and arguments[0] is False)
