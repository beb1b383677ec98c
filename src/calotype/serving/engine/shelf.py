"""Models by name: settings read at the start, weights when first asked for, and let go again."""

from __future__ import annotations

import dataclasses
import re
import threading
import time
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args, get_type_hints

import torch

from calotype.cascade.find import CascadeFolder, open_cascade
from calotype.cascade.tiles import MAX_TILED_SIDE
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError, UsageError
from calotype.generation.cascade import Job, settle
from calotype.generation.loaded import Loaded, load, outline
from calotype.generation.request import Request
from calotype.runtime import Runtime
from calotype.serving.engine.sizes import enlarges_again
from calotype.serving.job import MOST_SIDE

_LORA = re.compile(r"\+(?=[^+]*\.safetensors(?::[^+:]*)?(?:\+|$))")


@dataclass(frozen=True)
class Entry:
    """A model as the command line names it."""

    name: str
    folder: str | None
    loras: tuple[str, ...] = ()


def parse_entry(text: str) -> Entry:
    """Read NAME=FOLDER[+LORA.safetensors[:WEIGHT]]...; "default" alone is the embedded cascade.

    Raises:
        UsageError: there is no name or no folder.
    """
    name, equals, rest = text.partition("=")
    if not equals and name == "default":
        rest = name
    folder, *loras = _LORA.split(rest)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", name) or not folder:
        raise UsageError(
            f"got model {text!r:.200}; expected NAME=FOLDER or NAME=FOLDER+LORA.safetensors:0.8, "
            "the name of letters, digits, dots and dashes"
        )
    return Entry(name, folder, tuple(loras))


@dataclass(eq=False)
class Model:
    """A model that is served: its settings, and its weights while they are loaded.

    Args:
        entry: how it was named.
        folder: its settings.
        job: all of it.
        outlined: without weights.
        loaded: with them.
        bytes: that the weights take.
        used: when it was last asked for, as `time.monotonic` counts.
    """

    entry: Entry
    folder: CascadeFolder
    job: Job
    outlined: Loaded
    bytes: int
    loaded: Loaded | None = None
    loading: Future[Loaded] | None = None
    began: float = 0.0
    used: float = 0.0
    networks: set[int] = field(default_factory=set)

    def told(self) -> dict[str, Any]:
        """What the front is told of it."""
        stages = self.folder.config.stages
        described = [
            {
                "resolution": stage.resolution,
                "steps": stage.sampling.steps,
                "sampler": stage.sampling.sampler,
                "guidance_weight": stage.sampling.guidance_weight,
                "settings": to_dict(stage.sampling),
                "class": _class_of(stage),
            }
            for stage in stages
        ]
        last = stages[-1]
        begins = stages[0].lowres_resolution is None
        return {
            "name": self.entry.name,
            "stages": described,
            "tunable": [one.name for one in dataclasses.fields(SamplingConfig)],
            "samplers": list(get_args(get_type_hints(SamplingConfig)["sampler"])),
            "classes": list(self.folder.config.classes),
            "edits": begins,
            "unconditional": self.folder.config.text_encoder == "none",
            "largest_side": MOST_SIDE if enlarges_again(last) else last.resolution,
        }


def _class_of(stage: StageConfig) -> Literal["optional", "required"] | None:
    """Whether it is told a class."""
    if stage.class_count == 0:
        return None
    return "optional" if stage.null_class else "required"


def open_model(entry: Entry, runtime: Runtime) -> Model:
    """Read the settings of a model; no weights.

    Raises:
        CalotypeError: it is none, or its LoRAs are none.
    """
    folder = open_cascade(entry.folder)
    job = settle(Request(loras=entry.loras), model=folder, runtime=runtime)
    whole = folder.repeated(MAX_TILED_SIDE)
    # LoRAs name stages of the model as it is trained; its repeated last stage has the same weights.
    job = replace(job, model=whole, stop_at=whole.config.stages[-1].resolution)
    outlined = outline(job)
    own = outlined.cascade.stages[: len(folder.config.stages)]  # the repeated one is held once
    weights = sum(one.numel() * 4 for stage in own for one in stage.parameters())
    return Model(entry, folder, job, outlined, weights)


class Shelf:
    """Models, of which those that were used last stay loaded.

    Args:
        models: the first is the default.
        memory: bytes that weights take together, but for a model that is larger; None = all stay.
        idle_seconds: after which a model that nothing uses is let go; None = never.
    """

    def __init__(
        self,
        models: Collection[Model],
        memory: int | None = None,
        idle_seconds: float | None = None,
    ) -> None:
        self.models = {model.entry.name: model for model in models}
        self.memory, self.idle_seconds = memory, idle_seconds
        self._one_at_a_time = threading.Lock()

    def find(self, name: str | None) -> Model:
        """The model of a name; None = the first.

        Raises:
            UsageError: there is none.
        """
        if name is None:
            return next(iter(self.models.values()))
        if name not in self.models:
            raise UsageError(f"got model {name!r:.80}; expected one of {list(self.models)}")
        return self.models[name]

    def crowded(self, model: Model, used: Collection[Model]) -> list[Model] | None:
        """The models that have to go before one can be loaded; None = they are in use."""
        if self.memory is None:
            return []
        held = [m for m in self.models.values() if m is not model and (m.loaded or m.loading)]
        total = model.bytes + sum(one.bytes for one in held)
        idle = sorted((m for m in held if m.loaded and m not in used), key=lambda one: one.used)
        going: list[Model] = []
        while total > self.memory and idle:
            going.append(idle.pop(0))
            total -= going[-1].bytes
        return going if total <= self.memory or len(going) == len(held) else None

    def load(self, model: Model) -> Future[Loaded]:
        """Begin to load a model, in a thread of its own."""
        model.began = time.monotonic()
        loader = ThreadPoolExecutor(1, thread_name_prefix="loading")
        model.loading = loader.submit(self._load, model.job)
        # Its thread ends with it: where more of OpenMP's wait than there are cores, none spins.
        loader.shutdown(wait=False)
        return model.loading

    def _load(self, job: Job) -> Loaded:
        with self._one_at_a_time:
            return _load(job)

    def settled(self, model: Model) -> float:
        """A model's loading has ended: take it; the seconds that it took.

        Raises:
            Exception: whatever went wrong; it may be tried again.
        """
        loading, model.loading = model.loading, None
        assert loading is not None
        model.loaded = loading.result()
        model.networks = {id(stage.network) for stage in model.loaded.cascade.stages}
        model.used = time.monotonic()
        return model.used - model.began

    def idle(self, used: Collection[Model]) -> list[Model]:
        """Loaded models that nothing has used for too long."""
        if self.idle_seconds is None:
            return []
        since = time.monotonic() - self.idle_seconds
        loaded = (model for model in self.models.values() if model.loaded and model not in used)
        return [model for model in loaded if model.used < since]


def _load(job: Job) -> Loaded:
    with torch.no_grad():
        loaded = load(job)
        encoder = loaded.cascade.text_encoder  # now, so that all that is made of it has the one
        if encoder is None and loaded.cascade.text_encoder_spec != "none":
            raise CalotypeError(f"there is no text encoder {loaded.cascade.text_encoder_spec!r}")
    return loaded
