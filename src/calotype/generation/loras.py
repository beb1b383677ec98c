"""LoRAs that a request names, and what they do to a cascade."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.config.lora import LORA_WEIGHTS
from calotype.errors import UsageError
from calotype.storage.reading import file_sha256

if TYPE_CHECKING:
    from calotype.cascade import Cascade


@dataclass(frozen=True)
class LoraRequest:
    """A LoRA file and how much of it."""

    path: Path
    weight: float


def parse_lora(text: str) -> LoraRequest:
    """Read FILE[:WEIGHT]; a colon that no number follows belongs to the name.

    Raises:
        UsageError: the weight is not finite.
    """
    name, colon, number = text.rpartition(":")
    try:
        weight = float(number) if colon else None
    except ValueError:
        weight = None
    if weight is None:
        return LoraRequest(Path(text), 1.0)
    LORA_WEIGHTS.check(f"the weight of {name}", weight)
    return LoraRequest(Path(name), weight)


def apply_loras(
    cascade: Cascade, texts: Sequence[str] | None, *, known: Collection[int], merged: bool
) -> list[dict[str, Any]]:
    """Let a cascade sample with LoRAs.

    Args:
        cascade: its loaded stages are changed; LoRAs of stages that are not loaded do nothing.
        texts: FILE[:WEIGHT].
        known: resolutions of the whole model.
        merged: add them to the weights, or compute them beside.

    Returns:
        What an image's recipe notes of them.

    Raises:
        UsageError: a file is missing, or of another model.
    """
    requests = [parse_lora(text) for text in texts or ()]
    if not requests:
        return []
    from calotype.cascade.lora import LoraStack, load_lora

    stack = LoraStack(cascade.stages, merged=merged)
    loaded = {stage.config.resolution for stage in cascade.stages}
    notes = []
    for request in requests:
        lora = load_lora(request.path)
        if lora.resolution not in known:
            raise UsageError(
                f"{request.path} is of a {lora.resolution} pixel stage; expected one of "
                f"{sorted(known)}"
            )
        notes.append(_note(request))
        if lora.resolution not in loaded:
            continue
        stack.add(lora, request.weight)
        if not stack.fits(lora):
            print(
                f"calotype: {request.path} was trained on other weights than these; sampling "
                "with it all the same",
                file=sys.stderr,
            )
    return notes


def lora_notes(texts: Sequence[str]) -> list[dict[str, Any]]:
    """What `apply_loras` returns, without a cascade; errors as there."""
    from calotype.cascade.lora import load_lora

    requests = [parse_lora(text) for text in texts]
    for request in requests:
        load_lora(request.path)
    return [_note(request) for request in requests]


def _note(request: LoraRequest) -> dict[str, Any]:
    digest = file_sha256(request.path)
    return {"file": request.path.name, "sha256": digest, "weight": request.weight}


def check_like(recipe: Mapping[str, Any] | None, texts: Sequence[str] | None) -> None:
    """Refuse to sample an image again without the LoRAs it was sampled with.

    Raises:
        UsageError: it was sampled with some, and none is given.
    """
    noted = None if recipe is None else recipe.get("loras")
    if not isinstance(noted, list) or not noted or texts:
        return
    known = (one for one in noted if isinstance(one, dict))
    wanted = [f"--lora {one.get('file')}:{one.get('weight')}" for one in known]
    raise UsageError(f"the image was sampled with LoRAs; add {' '.join(wanted)}"[:500])
