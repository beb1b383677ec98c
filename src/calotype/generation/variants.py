"""The same images with several sampling settings: what settings have in common is sampled once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.plan import SamplePlan, StagePlan
from calotype.cascade.results import drain


def sample_variants(cascade: Cascade, plans: Sequence[SamplePlan]) -> list[Tensor]:
    """Finished images of plans of the same captions and seeds, each (B, 3, H, W) in [-1, 1].

    Plans whose first stages are equal share what those sample; the images are those that each
    plan would give alone.
    """
    found: dict[int, Tensor] = {}
    found.update(_sampled(cascade, dict(enumerate(plans)), depth=0, lowres=None))
    return [found[number] for number in range(len(plans))]


def _sampled(
    cascade: Cascade, plans: dict[int, SamplePlan], *, depth: int, lowres: Tensor | None
) -> Iterator[tuple[int, Tensor]]:
    """Images of the plans, whose stages before `depth` are equal and gave `lowres`."""
    branches: list[tuple[StagePlan, dict[int, SamplePlan]]] = []
    for number, plan in plans.items():
        stage = plan.stages[depth]
        alike = next((members for known, members in branches if known == stage), None)
        if alike is None:
            alike = {}
            branches.append((stage, alike))
        alike[number] = plan
    for stage, alike in branches:
        first = next(iter(alike.values()))
        part = replace(first, stages=(stage,), lowres=first.lowres if depth == 0 else lowres)
        images = drain(cascade.generate(part)).images[0]
        rest = {}
        for number, plan in alike.items():
            if len(plan.stages) == depth + 1:
                yield number, images
            else:
                rest[number] = plan
        if rest:
            yield from _sampled(cascade, rest, depth=depth + 1, lowres=images)
