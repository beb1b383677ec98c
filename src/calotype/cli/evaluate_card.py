"""`calotype evaluate --card`: the model card of a cascade of the emoji set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from calotype.errors import UsageError

if TYPE_CHECKING:
    from calotype.emoji.card import CardParts
    from calotype.evaluation.evaluate import Watch
    from calotype.evaluation.measure import Measured
    from calotype.evaluation.options import MeasureOptions
    from calotype.generation.request import Request


def card_parts(paths: Sequence[Path] | None, suite: str, model: str | None) -> CardParts:
    """What the card shows beside what is measured now.

    Raises:
        UsageError: a path holds nothing for a card, the suite is not the emoji set's, or the model
            is no cascade.
    """
    from calotype.cascade.find import open_cascade
    from calotype.emoji.card import read_parts
    from calotype.emoji.eleven.suite import NAME

    if suite != NAME:
        raise UsageError(f"got --card with --suite {suite!r:.80}; expected --suite {NAME}")
    open_cascade(model)
    return read_parts(paths or ())


def renew(
    found: Measured,
    out: Path,
    request: Request,
    options: MeasureOptions,
    made: CardParts,
    watch: Watch,
) -> None:
    """Measure what the card has beside the evaluation, and write it into `out`/card.

    The curves of guidance and thresholding are of the base, of the same prompts.
    """
    from calotype.cascade import Cascade
    from calotype.emoji.card import CardOptions, machine_of, renew_card
    from calotype.evaluation.samples import open_samples
    from calotype.evaluation.sweep.axes import preset_axes
    from calotype.evaluation.sweep.run import Sweep
    from calotype.runtime import choose_runtime

    cascade = Cascade.load(request.model)
    runtime = choose_runtime(request.device, request.dtype, request.threads)
    runtime.apply(cascade.stages, cascade.prior)
    sides = [stage.config.resolution for stage in cascade.stages]
    suite = open_samples(out).suite
    base = replace(request, size=sides[0])
    planned = Sweep(base, preset_axes("thresholding", sides), suite)
    planned.run(out / "sweep", replace(options, side=sides[0], checks=None), watch=watch)
    assert options.reference is not None  # the suite's own rules need it
    card = CardOptions(
        data=options.reference, machine=machine_of(runtime), parts=made, sweep=out / "sweep"
    )
    renew_card(out / "card", cascade, found.results, card, say=watch.say)
