"""What has to be ready before a stage is trained: data, embedded captions, weights, probes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from calotype.cascade.runtime import DTYPES, Runtime
from calotype.config import TrainConfig
from calotype.data.open import open_source, validation_source
from calotype.data.source import ExampleSource, all_captions
from calotype.text.store import CaptionStore
from calotype.training.initial import initial_weights
from calotype.training.job import StageJob
from calotype.training.probe import Probe, read_probe
from calotype.training.progress import CountDisplay
from calotype.training.signals import StopRequest
from calotype.training.state import TrainState, copy_weights, new_state
from calotype.training.text import TextLookup, build_encoder, caption_statistics, embed_ahead

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
    def embeddings(self) -> Path:
        """Folder of embedded captions: beside the data if it is there, else in the run."""
        beside = self.data / "embeddings"
        return beside if beside.is_dir() else self.out / "embeddings"


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
    text = _embedded(preparation, config, (source, held_out))
    runtime = preparation.runtime
    state = new_state(config, device=runtime.device, dtype=DTYPES[runtime.dtype])
    if init is not None:
        copy_weights(state.stage, initial_weights(init, resolution=resolution))
    elif fit_text and text is not None and config.stage.network.text_pooling == "whitened_mean":
        _fit_text(state, source, text, variants=config.data.caption_variants)
    state.ema.reset()
    unseen = _probe(held_out, config)
    trained = None if unseen is None else _probe(source, config, limit=len(unseen))
    return StageJob(config, offset, source, text, unseen, trained, state)


def _embedded(
    preparation: Preparation, config: TrainConfig, sources: tuple[ExampleSource, ...]
) -> TextLookup | None:
    spec, text_dim = config.text_encoder, config.stage.network.text_dim
    encoder = build_encoder(spec, text_dim)
    if encoder is None:
        return None
    captions = [c for s in sources for c in all_captions(s, config.data.caption_variants)]
    display = CountDisplay("embedding captions", quiet=preparation.quiet)

    def progress(done: int, total: int) -> None:
        display.count(done, total)
        preparation.stop.check()

    store = embed_ahead(
        encoder,
        [*captions, *config.grid_captions],
        folder=preparation.embeddings,
        missing=config.data.missing_captions,
        progress=progress,
    )
    preparation.stores[spec] = store
    return store.__getitem__


def _fit_text(
    state: TrainState, source: ExampleSource, text: TextLookup, *, variants: int
) -> None:
    statistics = caption_statistics(text, all_captions(source, variants))
    if statistics is not None:
        network = cast(Any, state.stage.network)
        network.set_text_statistics(statistics.mean, statistics.covariance)


def _probe(
    source: ExampleSource, config: TrainConfig, *, limit: int = PROBE_EXAMPLES
) -> Probe | None:
    if config.validation_images <= 0 and config.grid_images <= 0:
        return None
    return read_probe(source, config, limit=limit)
