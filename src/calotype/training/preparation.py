"""What has to be ready before a stage is trained: data, embedded captions, weights, probes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from calotype.cascade.runtime import DTYPES, Runtime
from calotype.cascade.stage import Stage
from calotype.config.recipe import TrainConfig
from calotype.data.account import check_account, take_account
from calotype.data.listing import STORE_NAME
from calotype.data.open import open_source, validation_source
from calotype.data.source import AllCaptions, ExampleSource, some_captions
from calotype.errors import CalotypeError
from calotype.networks.lora import ADAPTERS
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore
from calotype.training.distributed import ALONE, Group
from calotype.training.draft import FOLDER as DRAFT_FOLDER
from calotype.training.draft import DraftTraining
from calotype.training.draft_folds import DraftFolds, new_folds
from calotype.training.estimates import load_estimates
from calotype.training.initial import initial_weights
from calotype.training.job import StageJob
from calotype.training.probe import Probe, read_probe
from calotype.training.progress import CountDisplay
from calotype.training.signals import Stopped, StopRequest
from calotype.training.state import TrainState, copy_weights, new_state, spread_over
from calotype.training.text import (
    TextLookup,
    build_encoder,
    caption_statistics,
    embed_ahead,
    stored_captions,
)

PROBE_EXAMPLES = 64
_DRAFT = "network.draft."
STATISTICS_CAPTIONS = 1 << 18
"""Captions that the text statistics are of, about; more change nothing and fill memory."""


@dataclass
class Preparation:
    """What the stages of a run share.

    Args:
        data: folder of the data.
        out: folder of the run.
        runtime: where and how it is computed.
        quiet: no progress.
        stop: breaks preparations off.
        group: the processes that train; the first one embeds captions and trains the draft.
        sharded: spread each stage over the processes.
        missing_captions: train although the captions are mostly lost.
        stores: embedded captions by text encoder.
        told: what the data are, to the user.
    """

    data: Path
    out: Path
    runtime: Runtime
    quiet: bool
    stop: StopRequest
    group: Group = ALONE
    sharded: bool = False
    missing_captions: bool = False
    stores: dict[str, CaptionStore] = field(default_factory=dict)
    told: bool = False

    @property
    def beside(self) -> Path:
        """Where `calotype data embed` puts embedded captions."""
        return self.data / STORE_NAME

    def do_first(self, work: Callable[[], None]) -> None:
        """Let the first process work while the others wait.

        Raises:
            Stopped: on all of them, if somebody has asked for the end.
        """
        if self.group.is_first:
            with suppress(Stopped):  # told to all, below
                work()
        self.stop.agree()
        if self.stop:
            raise Stopped

    def tell(self, source: ExampleSource, *, captioned: bool) -> None:
        """Say once a run what the data are, before anything is made of them.

        Args:
            source: of the first stage.
            captioned: the stage is trained on captions.

        Raises:
            UsageError: the captions are mostly lost, and nobody said that this is well.
        """
        if self.told:
            return
        self.told = True
        account = take_account(source)
        if captioned and not self.missing_captions:
            check_account(account)
        if self.group.is_first:
            print(f"calotype: data: {account}", file=sys.stderr, flush=True)

    def embeddings(self, spec: str) -> Path:
        """Folder of embedded captions: beside the data if its encoder fits, else in the run."""
        fits = any(card.spec == spec for card in store_cards(self.beside))
        return self.beside if fits and os.access(self.beside, os.W_OK) else self.out / STORE_NAME


def prepare_job(
    preparation: Preparation,
    config: TrainConfig,
    *,
    offset: int,
    init: Path | None,
    fit_text: bool,
    only_draft: bool = False,
) -> StageJob:
    """Open the data, embed its captions, and make the stage.

    Args:
        preparation: shared by the stages.
        config: of the stage.
        offset: pictures that earlier stages were trained on.
        init: weights to start from.
        fit_text: train what comes before diffusion, text statistics and draft: of a stage that
            begins, not of one that is resumed.
        only_draft: train the draft anew, although `init` has one.
    """
    resolution = config.stage.resolution
    source = open_source(preparation.data, resolution=resolution, data=config.data)
    preparation.tell(source, captioned=config.stage.network.text_dim > 0)
    held_out = validation_source(preparation.data, resolution=resolution, data=config.data)
    preserved = _preserved(config)
    sources = [source, held_out] if preserved is None else [source, held_out, preserved]
    text = _embedded(preparation, config, sources)
    runtime = preparation.runtime
    estimates = load_estimates(config, runtime)
    state = new_state(config, device=runtime.device, dtype=DTYPES[runtime.dtype])
    if init is not None:
        _start_from(init, state.stage, without_draft=only_draft)
    if init is None and fit_text and text is not None:
        _fit_text(preparation, state, source, text, config=config)
    drafts = None
    if config.draft is not None and text is not None:
        training = DraftTraining(
            state.stage,
            source,
            text,
            config=config,
            folder=preparation.out / DRAFT_FOLDER,
            progress=_draft_progress(preparation),
            begun=not fit_text,
        )
        fresh = fit_text and (init is None or only_draft)
        drafts = _train_draft(
            preparation, training, fresh=fresh, resumed=not fit_text, only=only_draft
        )
    preparation.group.share_tensors(state.stage.state_dict().values())
    state.ema.reset()
    spread_over(state, config, preparation.group, sharded=preparation.sharded)
    unseen = trained = None
    if preparation.group.is_first:
        unseen = _probe(held_out, config)
        trained = None if unseen is None else _probe(source, config, limit=len(unseen))
    return StageJob(
        config, offset, source, text, unseen, trained, state, preserved, drafts, estimates
    )


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
    data = replace(config.data, styles=None)  # they choose among the new pictures
    folder = Path(config.preservation.data)
    return open_source(folder, resolution=config.stage.resolution, data=data)


def _embedded(
    preparation: Preparation, config: TrainConfig, sources: Sequence[ExampleSource]
) -> TextLookup | None:
    spec, text_dim = config.text_encoder, config.stage.network.text_dim
    if text_dim == 0:
        return None
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
    encoder = build_encoder(spec, config.stage.network.text_dim)
    assert encoder is not None  # text_dim is not 0
    display = CountDisplay("embedding captions", quiet=preparation.quiet)

    def progress(done: int, total: int) -> None:
        display.count(done, total)
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
    state: TrainState,
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
            network = cast(Any, state.stage.network)
            network.condition.set_text_statistics(statistics.mean, statistics.covariance)

    preparation.do_first(work)


def _train_draft(
    preparation: Preparation, training: DraftTraining, *, fresh: bool, resumed: bool, only: bool
) -> DraftFolds | None:
    """Train the draft of a new stage, and the folds; of several processes the first one does.

    Args:
        preparation: shared by the stages.
        training: of the draft.
        fresh: train the draft itself; else it came with the weights to start from.
        resumed: diffusion has begun: everything is in the run's folder.
        only: no diffusion follows, and so there is no need of folds.
    """
    config = training.config
    folds = 0 if config.draft is None or config.lora is not None or only else config.draft.folds
    if fresh:
        preparation.do_first(training.train_main)
    elif resumed and folds > 0:
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
    displays: dict[str, CountDisplay] = {}

    def progress(name: str, done: int, total: int) -> None:
        if name not in displays:
            displays[name] = CountDisplay(f"draft, {name}: images", quiet=preparation.quiet)
        displays[name].count(done, total)
        preparation.stop.check()

    return progress


def _probe(
    source: ExampleSource, config: TrainConfig, *, limit: int = PROBE_EXAMPLES
) -> Probe | None:
    if config.validation_images <= 0 and config.grid_images <= 0:
        return None
    return read_probe(source, config, limit=limit)
