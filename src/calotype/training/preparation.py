"""What has to be ready before a stage is trained: data, embedded captions, weights, probes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from calotype.cascade.runtime import DTYPES, Runtime
from calotype.cascade.stage import Stage
from calotype.config import TrainConfig
from calotype.data.open import open_source, validation_source
from calotype.data.source import ExampleSource, all_captions
from calotype.networks.lora import ADAPTERS
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore
from calotype.training.canvas import freeze_canvas, teach_canvas
from calotype.training.initial import initial_weights
from calotype.training.job import StageJob
from calotype.training.probe import Probe, read_probe
from calotype.training.progress import CountDisplay
from calotype.training.signals import StopRequest
from calotype.training.state import TrainState, copy_weights, new_state
from calotype.training.text import (
    TextLookup,
    build_encoder,
    caption_statistics,
    embed_ahead,
    stored_captions,
)

PROBE_EXAMPLES = 64


@dataclass
class Preparation:
    """What the stages of a run share.

    Args:
        data: folder of the data.
        out: folder of the run.
        runtime: where and how it is computed.
        quiet: no progress.
        stop: breaks preparations off.
        stores: embedded captions by text encoder.
    """

    data: Path
    out: Path
    runtime: Runtime
    quiet: bool
    stop: StopRequest
    stores: dict[str, CaptionStore] = field(default_factory=dict)

    @property
    def beside(self) -> Path:
        """Where `calotype data embed` puts embedded captions."""
        return self.data / "embeddings"

    def embeddings(self, spec: str) -> Path:
        """Folder of embedded captions: beside the data if its encoder fits, else in the run."""
        fits = any(card.spec == spec for card in store_cards(self.beside))
        return self.beside if fits and os.access(self.beside, os.W_OK) else self.out / "embeddings"


def prepare_job(
    preparation: Preparation,
    config: TrainConfig,
    *,
    offset: int,
    init: Path | None,
    fit_text: bool,
) -> StageJob:
    """Open the data, embed its captions, and make the stage.

    Args:
        preparation: shared by the stages.
        config: of the stage.
        offset: pictures that earlier stages were trained on.
        init: weights to start from.
        fit_text: set the text statistics of whitened pooling (a new stage without `init`).
    """
    resolution = config.stage.resolution
    source = open_source(preparation.data, resolution=resolution, data=config.data)
    held_out = validation_source(preparation.data, resolution=resolution, data=config.data)
    preserved = None
    if config.preservation is not None:
        folder = Path(config.preservation.data)
        data = replace(config.data, styles=None)  # they choose among the new pictures
        preserved = open_source(folder, resolution=resolution, data=data)
    sources = [source, held_out] if preserved is None else [source, held_out, preserved]
    text = _embedded(preparation, config, sources)
    runtime = preparation.runtime
    state = new_state(config, device=runtime.device, dtype=DTYPES[runtime.dtype])
    if init is not None:
        weights = initial_weights(init, resolution=resolution)
        copy_weights(state.stage, {**_adapter_weights(state.stage), **weights})
    elif fit_text and text is not None and config.stage.network.text_pooling == "whitened_mean":
        _fit_text(state, source, text, variants=config.data.caption_variants)
    if init is None and fit_text and text is not None and config.canvas is not None:
        _teach_canvas(preparation, state, source, text=text, config=config)
    state.ema.reset()
    unseen = _probe(held_out, config)
    trained = None if unseen is None else _probe(source, config, limit=len(unseen))
    return StageJob(config, offset, source, text, unseen, trained, state, preserved)


def _adapter_weights(stage: Stage) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in stage.state_dict().items() if ADAPTERS in name}


def _embedded(
    preparation: Preparation, config: TrainConfig, sources: Sequence[ExampleSource]
) -> TextLookup | None:
    spec, text_dim = config.text_encoder, config.stage.network.text_dim
    if text_dim == 0:
        return None
    captions = [c for s in sources for c in all_captions(s, config.data.caption_variants)]
    captions += config.grid_captions
    missing = config.data.missing_captions
    stored = stored_captions(
        preparation.beside, captions, spec=spec, text_dim=text_dim, missing=missing
    )
    if stored is not None:
        preparation.stores[spec] = stored
        return stored.__getitem__
    encoder = build_encoder(spec, text_dim)
    if encoder is None:
        return None
    display = CountDisplay("embedding captions", quiet=preparation.quiet)

    def progress(done: int, total: int) -> None:
        display.count(done, total)
        preparation.stop.check()

    store = embed_ahead(
        encoder,
        captions,
        folder=preparation.embeddings(spec),
        missing=missing,
        progress=progress,
    )
    preparation.stores[spec] = store
    return store.__getitem__


def _fit_text(state: TrainState, source: ExampleSource, text: TextLookup, *, variants: int) -> None:
    statistics = caption_statistics(text, all_captions(source, variants))
    if statistics is not None:
        network = cast(Any, state.stage.network)
        network.set_text_statistics(statistics.mean, statistics.covariance)


def _teach_canvas(
    preparation: Preparation,
    state: TrainState,
    source: ExampleSource,
    *,
    text: TextLookup,
    config: TrainConfig,
) -> None:
    display = CountDisplay("teaching the canvas: pictures", quiet=preparation.quiet)

    def progress(done: int, total: int) -> None:
        display.count(done, total)
        preparation.stop.check()

    teach_canvas(state.stage, source, text, config=config, progress=progress)
    freeze_canvas(state.stage, config.canvas)


def _probe(
    source: ExampleSource, config: TrainConfig, *, limit: int = PROBE_EXAMPLES
) -> Probe | None:
    if config.validation_images <= 0 and config.grid_images <= 0:
        return None
    return read_probe(source, config, limit=limit)
