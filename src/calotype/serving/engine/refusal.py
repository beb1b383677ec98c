"""Errors of the command line's library in the words of requests: which field, and what is wrong."""

from __future__ import annotations

import re

_OPTION = re.compile(r"--([a-z][a-z-]*)")
_FIELDS = {
    "size": "size",
    "sampler": "sampler",
    "steps": "steps",
    "guidance": "guidance",
    "guidance_weight": "guidance",
    "variety": "variety",
    "strength": "strength",
    "vary": "vary",
    "padding": "padding",
    "feather": "mask_blur",
    "model": "model",
    "seed": "seed",
    "mask": "mask",
    "stage option": "stages",
    "aug_level": "stages",
    "unconditional": "prompt",
    "source": "source",
    "start": "stages",
    "timesteps": "stages",
    "inpaint": "mask",
}
_WORD = re.compile("|".join(rf"\b{re.escape(name)}\b" for name in sorted(_FIELDS, key=len)[::-1]))


def refusal(message: str) -> dict[str, str | None]:
    """What is wrong, and the field of the request that it is first said of, if any."""
    said = _OPTION.sub(lambda found: found[1].replace("-", "_"), message)
    if "stage option" in said:
        return {"message": said, "param": "stages"}
    found = _WORD.search(said)
    return {"message": said, "param": None if found is None else _FIELDS[found[0]]}
