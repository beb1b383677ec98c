"""What has to be ready before a diffusion stage is trained: captions, draft, weights, probes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from calotype.cascade.stage import Stage
from calotype.config.recipe import TrainConfig
from calotype.data.open import open_source, validation_source
from calotype.data.source import AllCaptions, ExampleSource, some_captions
from calotype.errors import CalotypeError
from calotype.networks.lora import ADAPTERS
from calotype.progress import Display
from calotype.runtime import DTYPES
from calotype.tasks.captions import (
    TextLookup,
    build_encoder,
    caption_statistics,
    embed_ahead,
    stored_captions,
)
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.draft import FOLDER as DRAFT_FOLDER
from calotype.tasks.draft import DraftTraining
from calotype.tasks.draft_folds import DraftFolds, new_folds
from calotype.tasks.estimates import load_estimates
from calotype.tasks.initial import initial_weights
from calotype.tasks.probe import Probe, read_probe
from calotype.text.encoder import check_encoder
from calotype.text.store import CaptionStore
from calotype.training.job import Job
from calotype.training.preparation import Preparation
from calotype.training.shards import copy_weights
from calotype.training.task import TaskStart

PROBE_EXAMPLES = 64
_DRAFT = "network.draft."
STATISTICS_CAPTIONS = 1 << 18
"""Captions that the text statistics are of, about; more change nothing and fill memory."""


def prepare_task(preparation: Preparation, config: TrainConfig, start: TaskStart) -> Job:
    """Open the data, embed its captions, and make the stage; see `TaskFactory.prepare`."""
    resolution = config.stage.resolution
    source = open_source(preparation.data, resolution=resolution, data=config.data)
    preparation.tell(source, captioned=config.stage.network.text_dim > 0)
    held_out = validation_source(preparation.data, resolution=resolution, data=config.data)
    preserved = _preserved(config)
    sources = [source, held_out] if preserved is None else [source, held_out, preserved]
    text = _embedded(preparation, config, sources)
    runtime = preparation.runtime
    estimates = load_estimates(config, runtime)
    stage = new_stage(config, device=runtime.device, dtype=DTYPES[runtime.dtype])
    if start.init is not None:
        _start_from(start.init, stage, without_draft=start.only_draft)
    if start.init is None and not start.resumed and text is not None:
        _fit_text(preparation, stage, source, text, config=config)
    drafts = None
    if config.draft is not None and text is not None:
        training = DraftTraining(
            stage,
            source,
            text,
            config=config,
            folder=preparation.out / DRAFT_FOLDER,
            progress=_draft_progress(preparation),
            begun=start.resumed,
        )
        drafts = _train_draft(preparation, training, start)
    preparation.group.share_tensors(stage.state_dict().values())
    task = DiffusionTask(config, stage, text, drafts, estimates)
    if preparation.group.is_first:
        task.unseen = _probe(held_out, config)
        if task.unseen is not None:
            task.trained = _probe(source, config, limit=len(task.unseen))
    return Job(task, source, preserved)


def _start_from(init: Path, stage: Stage, *, without_draft: bool) -> None:
    """Copy the weights that `init` names, but for adapters and, if asked for, the draft.

    The draft of `init` may then be of another width and rank.
    """
    weights = initial_weights(init, resolution=stage.config.resolution)
    if without_draft:
        weights = {k: t for k, t in weights.items() if not k.startswith(_DRAFT)}
    kept = _DRAFT if without_draft else ADAPTERS
    own = {name: tensor for name, tensor in stage.state_dict().items() if kept in name}
    copy_weights(stage, {**own, **weights})


def _preserved(config: TrainConfig) -> ExampleSource | None:
    if config.preservation is None:
        return None
    data = replace(config.data, styles=None)  # they choose among the new images
    folder = Path(config.preservation.data)
    return open_source(folder, resolution=config.stage.resolution, data=data)


def _embedded(
    preparation: Preparation, config: TrainConfig, sources: Sequence[ExampleSource]
) -> TextLookup | None:
    spec, text_dim = config.text_encoder, config.stage.network.text_dim
    if text_dim == 0:
        return None
    if config.stage.takes_ids:
        return build_encoder(spec, text_dim, ids=True)
    variants = config.data.caption_variants
    captions = AllCaptions(sources, variants, more=config.grid_captions)
    missing = config.data.missing_captions

    def stored_in(folder: Path) -> CaptionStore | None:
        return stored_captions(folder, captions, spec=spec, text_dim=text_dim, missing=missing)

    group, beside = preparation.group, preparation.beside
    stored = stored_in(beside) if group.is_first else None
    if group.shared(stored is not None):  # what the first one sees: it may write there next
        stored = stored_in(beside) if stored is None else stored
    else:
        preparation.do_first(lambda: _embed(preparation, config, captions))
        if group.is_first:
            return preparation.stores[spec].__getitem__
        stored = stored_in(preparation.embeddings(spec))
    if stored is None:
        raise CalotypeError(
            f"process {group.rank} does not see the captions that process 0 has embedded in "
            f"{preparation.embeddings(spec)}; put --data and --out where all machines see them"
        )
    preparation.stores[spec] = stored
    return stored.__getitem__


def _embed(preparation: Preparation, config: TrainConfig, captions: Iterable[str]) -> None:
    """Embed the captions that are not stored yet; the store is `preparation.stores[spec]`."""
    spec = config.text_encoder
    encoder = check_encoder(build_encoder(spec, config.stage.network.text_dim), spec)
    display = Display("embedding captions", quiet=preparation.quiet, seconds=5.0)

    def progress(done: int, total: int) -> None:
        display.tell(done, total)
        preparation.stop.check()

    preparation.stores[spec] = embed_ahead(
        encoder,
        captions,
        folder=preparation.embeddings(spec),
        missing=config.data.missing_captions,
        progress=progress,
    )


def _fit_text(
    preparation: Preparation,
    stage: Stage,
    source: ExampleSource,
    text: TextLookup,
    *,
    config: TrainConfig,
) -> None:
    """Set the statistics of whitened pooling; of several processes the first one does."""
    if config.stage.network.text_pooling != "whitened_mean":
        return

    def work() -> None:
        variants = config.data.caption_variants
        captions = some_captions(source, variants, most=STATISTICS_CAPTIONS)
        statistics = caption_statistics(text, captions)
        if statistics is not None:
            network = cast(Any, stage.network)
            network.condition.set_text_statistics(statistics.mean, statistics.covariance)

    preparation.do_first(work)


def _train_draft(
    preparation: Preparation, training: DraftTraining, start: TaskStart
) -> DraftFolds | None:
    """Train the draft of a new stage, and the folds; of several processes the first one does."""
    config = training.config
    folds = 0 if config.draft is None or config.lora is not None else config.draft.folds
    if start.only_draft:  # no diffusion follows: no need of folds
        folds = 0
    if not start.resumed and (start.init is None or start.only_draft):
        preparation.do_first(training.train_main)
    elif start.resumed and folds > 0:
        preparation.do_first(training.load_main)
    elif folds > 0:
        preparation.do_first(training.keep_main)
    if folds == 0:
        return None
    group, stage = preparation.group, training.stage
    group.share_tensors(stage.state_dict().values())
    drafts = new_folds(stage, config)
    preparation.do_first(lambda: training.train_folds(drafts))
    group.share_tensors(drafts.state_dict().values())
    return drafts


def _draft_progress(preparation: Preparation) -> Callable[[str, int, int], None]:
    displays: dict[str, Display] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in displays:
            title = f"draft, {name}: images"
            displays[name] = Display(title, quiet=preparation.quiet, seconds=5.0)
        displays[name].tell(done, total)
        preparation.stop.check()

    return progress


def _probe(
    source: ExampleSource, config: TrainConfig, *, limit: int = PROBE_EXAMPLES
) -> Probe | None:
    if config.validation_images <= 0 and config.grid_images <= 0:
        return None
    return read_probe(source, config, limit=limit)
