"""One optimizer step: the only place where weights move."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.recipe import TrainConfig
from calotype.data.batches import Batch
from calotype.diffusion import Weighting, min_snr_weighting, sigmoid_weighting
from calotype.training.distributed import Group
from calotype.training.draft_folds import DraftFolds, fold_of
from calotype.training.estimates import LowresEstimates
from calotype.training.learning_rate import decay_start, learning_rate
from calotype.training.optimizer import set_learning_rate
from calotype.training.randomness import PreparedNoise, StepDraws, draw_step, seed_networks
from calotype.training.shards import whole
from calotype.training.state import TrainState
from calotype.training.text import TextLookup


@dataclass(frozen=True)
class StepMetrics:
    """What one step says.

    Args:
        images: pictures this stage has seen, the step included.
        loss: mean over the batch of all processes.
        grad_norm: before clipping.
        learning_rate: of the step.
        skipped: loss or gradient was not finite, and no weight was moved.
        keys: of this process's pictures.
        losses: of each picture, (B,) float64 on the CPU; `loss` is their mean.
        logsnr: their noise levels, (B,).
    """

    images: int
    loss: float
    grad_norm: float
    learning_rate: float
    skipped: bool
    keys: tuple[str, ...]
    losses: Tensor
    logsnr: Tensor


def train_step(
    state: TrainState,
    batch: Batch,
    text: TextLookup | None,
    *,
    config: TrainConfig,
    drafts: DraftFolds | None = None,
    estimates: LowresEstimates | None = None,
) -> StepMetrics:
    """Train on one batch; everything random is a function of seed and position.

    Numbers are drawn for the whole batch, and each process takes those of its rows: how many
    processes there are changes nothing but rounding (and dropout inside networks, whose numbers
    each process draws itself).

    Args:
        state: moved by one step, unless loss or gradient is not finite.
        batch: up to `config.batch_size` pictures, or this process's part of them.
        text: captions -> embeddings; None for a network without text.
        config: of the stage.
        drafts: of a base that is conditioned on the drafts of folds as well.
        estimates: take the place of some low-resolution pictures.
    """
    images = batch.images
    shape = torch.Size((images, *batch.x.shape[1:]))
    estimated = None if estimates is None else estimates.shape(batch)
    draws = draw_step(
        config, state.stage.schedule, state.position, shape=shape, estimated=estimated
    )
    own_draws = _own(draws, batch)
    embedded = None if text is None else text(batch.captions)
    if estimates is not None:
        batch = replace(batch, lowres=estimates(batch, embedded, own_draws))
    state.optimizer.zero_grad(set_to_none=True)
    own = _accumulate(state, batch, own_draws, embedded=embedded, config=config, drafts=drafts)
    losses = _of_all(own, batch, state.parallel.group)
    loss = float(losses.sum()) / images
    norm = _clip(state.stage, config.optimizer.grad_clip_norm)
    rate = learning_rate(config.optimizer, state.images_seen, config.total_images)
    finite = state.parallel.group.all(math.isfinite(loss) and math.isfinite(norm))
    state.decayed |= state.images_seen > decay_start(config.optimizer, config.total_images)
    state.images_seen += images
    if finite:
        set_learning_rate(state.optimizer, rate)
        state.optimizer.step()
        state.ema.update(batch_size=images, images_seen=state.images_seen)
    if state.posthoc is not None:  # after a skipped step, too: time goes on with the same weights
        state.posthoc.update(state.images_seen)
    return StepMetrics(
        images=state.images_seen,
        loss=loss,
        grad_norm=norm,
        learning_rate=rate,
        skipped=not finite,
        keys=batch.keys,
        losses=losses,
        logsnr=draws.logsnr,
    )


def _own(draws: StepDraws, batch: Batch) -> StepDraws:
    """The draws of this process's rows; rows that do not count get any."""
    if batch.share is None:
        return draws
    return draws.part(torch.tensor(batch.share.rows).clamp_max(batch.share.total - 1))


def _of_all(losses: Tensor, batch: Batch, group: Group) -> Tensor:
    """The loss of each picture of the whole batch."""
    if batch.share is None:
        return losses
    rows = torch.tensor(batch.share.rows)
    counts = rows < batch.share.total
    every = torch.zeros(batch.share.total, dtype=torch.float64)
    every[rows[counts]] = losses[counts]
    return group.summed(every)


def _accumulate(
    state: TrainState,
    batch: Batch,
    draws: StepDraws,
    *,
    embedded: TextEmbedding | None,
    config: TrainConfig,
    drafts: DraftFolds | None,
) -> Tensor:
    """Gradients of the mean loss, in as many parts as the recipe says.

    Returns:
        The loss of each of this process's pictures, (B,) float64 on the CPU.
    """
    images, weighting = len(batch.x), _WEIGHTINGS[config.weighting]
    parallel, processes = state.parallel, state.parallel.group.world_size
    size = math.ceil(images / min(config.optimizer.accumulation, images))
    starts = range(0, images, size)
    parts = []
    for number, start in enumerate(starts):
        rows = slice(start, start + size)
        x = _to_device(batch.x[rows], state.stage)
        part = draws.part(rows)
        text = None if embedded is None else embedded[rows]
        lowres = None if batch.lowres is None else batch.lowres[rows]
        cond = condition(state.stage, text, lowres, draws=part, size=x.shape[2:])
        if drafts is not None:
            cond = _with_drafts(cond, drafts, batch.first_captions[rows], draws=part)
        seed = number + len(starts) * parallel.group.rank
        seed_networks(config.seed, state.position, part=seed)
        with parallel.part(last=number + 1 == len(starts)):
            losses = parallel.losses(
                x, cond, part.logsnr.to(x.device), part.eps.to(x.device), weighting=weighting
            )
            if batch.weights is not None:
                losses = losses * batch.weights[rows].to(losses)
            # The mean over all rows; gradients are averaged over processes, not added.
            mean = losses.sum() / batch.images
            torch.autograd.backward(mean * processes if processes > 1 else mean)
        parts.append(losses.detach().double().cpu())
    return torch.cat(parts)


def condition(
    stage: Stage,
    text: TextEmbedding | None,
    lowres: Tensor | None,
    *,
    draws: StepDraws,
    size: Sequence[int],
) -> Conditioning:
    """What the network is told in training: captions dropped, low-resolution pictures noised."""
    if text is not None:
        text = text.drop(draws.keep).to(stage.device)
    if lowres is None or draws.aug_level is None or draws.aug_noise is None:
        return Conditioning(text)
    return stage.lowres_condition(
        lowres.to(stage.device),
        text,
        size=(size[0], size[1]),
        aug_level=draws.aug_level,
        noise=PreparedNoise(draws.aug_noise),
    )


def _with_drafts(
    cond: Conditioning, drafts: DraftFolds, first_captions: Sequence[str], *, draws: StepDraws
) -> Conditioning:
    """Give each row the draft of the fold that never saw its caption, or that of all captions."""
    assert cond.text is not None and draws.folded is not None
    folds = torch.tensor([fold_of(caption, len(drafts)) for caption in first_captions])
    folds[~(draws.folded & draws.keep)] = -1
    return replace(cond, draft=drafts(cond.text, folds))


def _clip(stage: Stage, largest: float | None) -> float:
    parameters = [p for p in stage.parameters() if p.grad is not None]
    limit = math.inf if largest is None else largest
    return float(whole(torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)))


def _to_device(x: Tensor, stage: Stage) -> Tensor:
    return x.to(device=stage.device, memory_format=torch.channels_last)


_WEIGHTINGS: dict[str, Weighting | None] = {
    "none": None,
    "min_snr": min_snr_weighting(),
    "sigmoid": sigmoid_weighting(),
}
