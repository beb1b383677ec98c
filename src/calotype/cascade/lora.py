"""LoRA files, and cascades that sample with some of them.

A file holds the adapters of one stage: `<layer>.down` and `<layer>.up` (see
`calotype.networks.lora`), and in its metadata the rank, alpha, the resolution of the stage and a
fingerprint of the weights it was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.config.lora import LORA_FORMAT, LORA_WEIGHTS, LoraConfig, LoraFacts
from calotype.config.typed_json import from_dict
from calotype.errors import CalotypeError, UsageError
from calotype.networks.lora import (
    ADAPTERS,
    Layer,
    LowRank,
    adaptable_layers,
    adapters,
    attach,
    detach,
)
from calotype.storage.files import write_with
from calotype.storage.headers import NOTES

"""Key of the only entry in the metadata of our files, JSON: safetensors writes several entries in
any order, and equal files would not have equal bits."""


@dataclass(frozen=True)
class LoraLayer:
    """The change of one layer's weight: `down` (rank, in[, kh, kw]) and `up` (out, rank)."""

    down: Tensor
    up: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Lora(LoraFacts):
    """Adapters of one stage: `layers` by their names in the network.

    `base` is the `weights_fingerprint` of the stage they were trained on.
    """

    layers: Mapping[str, LoraLayer]

    @property
    def scale(self) -> float:
        """Of every layer's product."""
        return self.alpha / self.rank


def weights_fingerprint(stage: Stage) -> str:
    """SHA-256 of a stage's parameters as float16, adapters left out.

    A stage and its float16 export have the same, and so has an average of weights that stood still:
    such an average turns -0 into 0, so both count as 0.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(stage.named_parameters()):
        if ADAPTERS not in name:
            values = parameter.detach().cpu().half().contiguous() + 0.0
            digest.update(name.encode())
            digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def trained_lora(stage: Stage, config: LoraConfig) -> Lora:
    """The adapters of a stage that was trained with `config`."""
    layers = {
        name: LoraLayer(adapter.down.detach(), adapter.up.detach())
        for name, _, adapter in adapters(stage.network)
    }
    return Lora(
        resolution=stage.config.resolution,
        rank=config.rank,
        alpha=config.alpha,
        base=weights_fingerprint(stage),
        layers=layers,
    )


def save_lora(lora: Lora, path: Path) -> None:
    """Write a LoRA file, all or nothing.

    Raises:
        CalotypeError: the disk is full, or the folder cannot be written to.
    """
    from safetensors.torch import save_file

    tensors = {}
    for name, layer in lora.layers.items():
        tensors[f"{name}.down"] = layer.down.float().cpu().contiguous()
        tensors[f"{name}.up"] = layer.up.float().cpu().contiguous()
    facts = {field.name: getattr(lora, field.name) for field in fields(LoraFacts)}
    metadata = {NOTES: json.dumps(facts)}
    write_with(path, lambda place: save_file(tensors, place, metadata=metadata))


def load_lora(path: Path) -> Lora:
    """Read a LoRA file.

    Raises:
        UsageError: there is no such file, or it is none.
        CalotypeError: it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"got LoRA {str(path)!r:.200}, which is no file; expected FILE[:WEIGHT]")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CalotypeError(f"{path} cannot be read: {error}; get the file again") from error
    if LORA_FORMAT not in metadata.get(NOTES, ""):
        raise UsageError(f"{path} is no LoRA file of calotype; expected what lora training wrote")
    try:
        facts = from_dict(json.loads(metadata[NOTES]), LoraFacts)
        layers = _layers(tensors)
    except (KeyError, ValueError, RecursionError) as error:  # a ConfigError is a ValueError
        raise CalotypeError(f"{path} is damaged ({error}); get the file again") from error
    return Lora(**vars(facts), layers=layers)


def _layers(tensors: Mapping[str, Tensor]) -> dict[str, LoraLayer]:
    layers = {}
    for name in sorted({name.rpartition(".")[0] for name in tensors}):
        down, up = tensors[f"{name}.down"].float(), tensors[f"{name}.up"].float()
        if up.ndim != 2 or down.ndim not in (2, 4) or up.shape[1] != down.shape[0]:
            raise ValueError(f"{name!r:.80} of shapes {tuple(down.shape)} and {tuple(up.shape)}")
        if not (bool(down.isfinite().all()) and bool(up.isfinite().all())):
            raise ValueError(f"{name!r:.80} is not finite")
        layers[name] = LoraLayer(down, up)
    if len(layers) * 2 != len(tensors):
        raise ValueError("unknown names of tensors")
    return layers


class LoraStack:
    """The LoRAs that some stages sample with; taking them off restores every bit.

    Args:
        stages: of a cascade.
        merged: add them to the weights (sampling costs nothing more), or compute them beside
            (the weights stay untouched); results are equal to rounding.
    """

    def __init__(self, stages: Sequence[Stage], *, merged: bool = True) -> None:
        self.merged = merged
        self._stages = {stage.config.resolution: stage for stage in stages}
        self._used: list[tuple[Lora, float]] = []
        self._originals: dict[Layer, Tensor] = {}
        self._attached: list[tuple[Layer, LowRank]] = []
        self._fingerprints: dict[int, str] = {}

    def fits(self, lora: Lora) -> bool:
        """Whether a LoRA was trained on just the weights that the stage has without any."""
        if lora.resolution not in self._fingerprints:
            stage = self._stage(lora)
            used = any(one.resolution == lora.resolution for one, _ in self._used)
            assert not (used and self.merged), "asked before the weights were changed"
            self._fingerprints[lora.resolution] = weights_fingerprint(stage)
        return self._fingerprints[lora.resolution] == lora.base

    def add(self, lora: Lora, weight: float = 1.0) -> None:
        """Sample with a LoRA from now on, its change multiplied by `weight`.

        Raises:
            UsageError: there is no such stage, or its network is another, or the weight is out of
                range; nothing is changed then.
            CalotypeError: a weight of the stage would not be finite; nothing is changed then.
        """
        LORA_WEIGHTS.check("weight", weight)
        layers = self._matched(lora)
        self.fits(lora)  # while the weights are what they were
        self._used.append((lora, weight))
        self._apply()
        for name, layer in layers.items():
            if self.merged and not bool(layer.weight.isfinite().all()):
                self.remove(lora)
                raise CalotypeError(
                    f"the LoRA makes the weight {name!r:.200} of the {lora.resolution} stage "
                    "infinite; expected finite weights: use a smaller weight of the LoRA, or "
                    "another file"
                )

    def remove(self, lora: Lora) -> None:
        """Sample without a LoRA again."""
        self._used = [one for one in self._used if one[0] is not lora]
        self._apply()

    def clear(self) -> None:
        """Sample without any."""
        self._used = []
        self._apply()

    @torch.no_grad()
    def _apply(self) -> None:
        """All that are used, from the start: from the original weights, which are exact."""
        for layer, original in self._originals.items():
            layer.weight.copy_(original)
        for layer, adapter in self._attached:
            detach(layer, adapter)
        self._originals, self._attached = {}, []
        for lora, weight in self._used:
            for name, layer in self._matched(lora).items():
                part, like = lora.layers[name], layer.weight
                adapter = LowRank(part.down.to(like), part.up.to(like), scale=weight * lora.scale)
                if self.merged:
                    self._originals.setdefault(layer, like.detach().clone())
                    like += adapter.delta()
                else:
                    attach(layer, adapter.requires_grad_(False))
                    self._attached.append((layer, adapter))

    def _stage(self, lora: Lora) -> Stage:
        if lora.resolution not in self._stages:
            raise UsageError(
                f"got a LoRA of a {lora.resolution} pixel stage; expected one of "
                f"{sorted(self._stages)}"
            )
        return self._stages[lora.resolution]

    def _matched(self, lora: Lora) -> dict[str, Layer]:
        """The stage's layers that a LoRA changes."""
        known = adaptable_layers(self._stage(lora).network)
        for name, part in lora.layers.items():
            shape = (part.up.shape[0], *part.down.shape[1:])
            if name not in known or tuple(known[name].weight.shape) != shape:
                got = tuple(known[name].weight.shape) if name in known else "missing"
                raise UsageError(
                    f"got a LoRA of another network: its layer {name!r:.80} is {shape}, the "
                    f"stage's {got}; use it with the model it was trained on"
                )
        return {name: known[name] for name in lora.layers}
