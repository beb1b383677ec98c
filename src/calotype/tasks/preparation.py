"""What has to be ready before a diffusion stage is trained: captions, draft, weights, probes."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from calotype.cascade.stage import Stage
from calotype.config.data import DataConfig
from calotype.config.diffusion import DiffusionTraining
from calotype.data.grammar import CaptionGrammar
from calotype.data.open import TrainingData
from calotype.data.source import ExampleSource, some_captions
from calotype.networks.lora import ADAPTERS
from calotype.runtime import DTYPES
from calotype.tasks.captions import (
    TextLookup,
    WantedCaptions,
    caption_statistics,
    embedded_captions,
)
from calotype.tasks.class_names import settled_names
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.tasks.draft import DraftTraining
from calotype.tasks.draft_files import FOLDER as DRAFT_FOLDER
from calotype.tasks.draft_folds import DraftFolds, new_folds
from calotype.tasks.estimates import load_estimates
from calotype.tasks.initial import check_initial_classes, initial_weights, with_new_inputs
from calotype.tasks.tokenizers import copied_tokenizer, run_tokenizer, tokenizer_of
from calotype.tasks.validation import Probe, read_probe
from calotype.training.preparation import Job, Preparation
from calotype.training.shards import copy_weights
from calotype.training.task import TaskStart

PROBE_EXAMPLES = 64
_DRAFT = "network.draft."
STATISTICS_CAPTIONS = 1 << 18
"""Captions that the text statistics are of, about; more change nothing and fill memory."""


def prepare_stage(
    preparation: Preparation,
    config: DiffusionTraining,
    start: TaskStart,
    grammar: CaptionGrammar | None,
) -> Job:
    """Open the data, embed its captions, and make the stage; see `TaskFactory.prepare`."""
    data = _opened(preparation.data, config, config.data, grammar)
    source, held_out = data.training, data.validation
    own = _tokenizer(preparation, config, start)
    preparation.report_data(source, captioned=config.stage.network.text_dim > 0)
    if (labels := config.data.labels) is not None:
        known = config.stage.classes
        config = config.of_classes(settled_names(source, labels, known, preparation.group))
    preserved = _preserved(config, grammar)
    sources = [source, held_out] if preserved is None else [source, held_out, preserved]
    text = None
    if (width := config.stage.network.text_dim) > 0:
        spec, reader = own or config.text_encoder, config.stage.token_tower or width
        wanted = WantedCaptions(sources, config.data, spec, reader, config.grid_captions)
        text = embedded_captions(preparation, wanted)
    runtime = preparation.runtime
    estimates = load_estimates(config, runtime)
    stage = new_stage(config, device=runtime.device, dtype=DTYPES[runtime.dtype])
    if start.init is not None:
        _start_from(start.init, stage, without_draft=start.only_draft)
    if start.init is None and not start.resumed and text is not None:
        _fit_text(preparation, stage, source, text, config=config)
    drafts = None
    if config.draft is not None and text is not None:
        shown = functools.cache(lambda name: preparation.progress(f"draft, {name}: images"))
        training = DraftTraining(
            stage,
            source,
            text,
            config=config,
            folder=preparation.out / DRAFT_FOLDER,
            progress=lambda name, done, total: shown(name)(done, total),
            begun=start.resumed,
        )
        drafts = _train_draft(preparation, training, start)
    preparation.group.broadcast_tensors(stage.state_dict().values())
    task = DiffusionTask(config, stage, text, drafts, estimates, tokenizer=own)
    looked_at = config.validation_images > 0 or config.grid_images > 0
    if preparation.group.is_rank_zero and looked_at:
        task.unseen = _probe(held_out, config, PROBE_EXAMPLES)
        if task.unseen is not None:
            task.trained = _probe(source, config, len(task.unseen))
    return Job(task, source, preserved)


def _tokenizer(preparation: Preparation, config: DiffusionTraining, start: TaskStart) -> str | None:
    """The run's own copy of a byte-pair tokenizer, as a specification; None where it has none."""
    tower, before = config.stage.token_tower, config.lowres_estimates
    if tower is None:  # an earlier stage of the run may have one
        return copied_tokenizer(preparation.out)
    trained = {
        "--init": tokenizer_of(start.init),
        "lowres_estimates.model": tokenizer_of(None if before is None else before.model),
    }
    return run_tokenizer(preparation, config.text_encoder, tower, trained=trained)


def _opened(
    path: Path, config: DiffusionTraining, data: DataConfig, grammar: CaptionGrammar | None
) -> TrainingData:
    stage = config.stage
    captioned = stage.network.text_dim > 0
    return TrainingData(
        path, resolution=stage.resolution, data=data, grammar=grammar, captioned=captioned
    )


def _start_from(init: Path, stage: Stage, *, without_draft: bool) -> None:
    """Copy the weights that `init` names, but for adapters and, if asked for, the draft.

    The draft of `init` may then be of another width and rank.
    """
    check_initial_classes(init, stage.config)
    weights = initial_weights(init, resolution=stage.config.resolution)
    if without_draft:
        weights = {k: t for k, t in weights.items() if not k.startswith(_DRAFT)}
    weights = with_new_inputs(weights, stage)
    kept = _DRAFT if without_draft else ADAPTERS
    own = {name: tensor for name, tensor in stage.state_dict().items() if kept in name}
    copy_weights(stage, {**own, **weights})


def _probe(source: ExampleSource, config: DiffusionTraining, limit: int) -> Probe | None:
    """Examples to validate on, read as those that are trained on."""
    return read_probe(source, config.stage, config.data, limit=limit, masks=config.masks)


def _preserved(config: DiffusionTraining, grammar: CaptionGrammar | None) -> ExampleSource | None:
    if config.preservation is None:
        return None
    data = replace(config.data, styles=None)  # they choose among the new images
    return _opened(Path(config.preservation.data), config, data, grammar).training


def _fit_text(
    preparation: Preparation,
    stage: Stage,
    source: ExampleSource,
    text: TextLookup,
    *,
    config: DiffusionTraining,
) -> None:
    """Set the statistics of whitened pooling; of several processes rank 0 does."""
    if config.stage.network.text_pooling != "whitened_mean":
        return

    def work() -> None:
        variants = config.data.caption_variants
        captions = some_captions(source, variants, most=STATISTICS_CAPTIONS)
        statistics = caption_statistics(text, captions)
        if statistics is not None:
            network = cast(Any, stage.network)
            network.condition.set_text_statistics(*statistics)

    preparation.on_rank_zero(work)


def _train_draft(
    preparation: Preparation, training: DraftTraining, start: TaskStart
) -> DraftFolds | None:
    """Train the draft of a new stage, and the folds; of several processes rank 0 does."""
    config = training.config
    folds = 0 if config.draft is None or config.lora is not None else config.draft.folds
    if start.only_draft:  # no diffusion follows: no need of folds
        folds = 0
    trained = not start.resumed and (start.init is None or start.only_draft)
    if trained:
        preparation.on_rank_zero(training.train_main)
    elif folds > 0:
        preparation.on_rank_zero(training.load_main if start.resumed else training.keep_main)
    if folds == 0:
        if trained:
            preparation.on_rank_zero(training.measure_spread)
        return None
    group, stage = preparation.group, training.stage
    group.broadcast_tensors(stage.state_dict().values())
    drafts = new_folds(stage, config)
    preparation.on_rank_zero(lambda: training.train_folds(drafts))
    preparation.on_rank_zero(lambda: training.measure_spread(drafts))
    group.broadcast_tensors(drafts.state_dict().values())
    return drafts
