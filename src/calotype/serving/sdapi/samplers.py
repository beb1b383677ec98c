"""Names of samplers and schedulers: theirs, those of ours that they have, and what they mean."""

from __future__ import annotations

from typing import Any

from calotype.serving.front.recall import their_sampler

AUTOMATIC = "Automatic"
"""The name of the model's own, here as there."""
THEIR_NAMES = {
    "ddim": "DDIM",
    "ddpm": "DDPM",
    "dpmpp_2m": "DPM++ 2M",
    "dpmpp_2m_sde": "DPM++ 2M SDE",
    "heun": "Heun",
}


def their_name(sampler: str) -> str:
    """What they call a sampler of ours."""
    return THEIR_NAMES.get(sampler, sampler)


def sampler_of(name: str | None, available: list[str]) -> tuple[str | None, bool]:
    """The sampler that a name means, None = the model's own; and whether it is what was asked for.

    Args:
        name: by the client.
        available: the model's.
    """
    if name is None or name.lower() in ("", "none", "automatic"):
        return None, True
    found = their_sampler(name)
    return (found, True) if found in available else (None, False)


def told_samplers(available: list[str]) -> list[dict[str, Any]]:
    """The list that clients show."""
    names = [AUTOMATIC, *(their_name(one) for one in available)]
    return [{"name": name, "aliases": [name.lower()], "options": {}} for name in names]
