"""Network calls that wait at the same time, answered by one call on all their rows.

Calls are joined that ask the same network for images of one shape and number type, conditioned on
the same kinds of things. Each row has its own level, and its own conditioning, bound anew only when
other rows come together than in the call before.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from calotype.cascade.network_call import NetworkCall, bound_network
from calotype.cascade.timesteps import NetworkOutput, network_level
from calotype.conditioning import Conditioning
from calotype.networks import AdmPair
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.strand import Call

_UNLIMITED = 2**31


@dataclass(eq=False)
class Waiting:
    """A call that waits.

    Args:
        call: what is asked.
        age: smaller = older; one image has one.
        alone: not to be joined with others.
        is_new: of its image, before those that have begun: somebody has seen nothing yet.
    """

    call: Call
    age: int
    alone: bool = False
    is_new: bool = False


@dataclass
class _Group:
    """Calls that may be joined, and the last binding of them."""

    waiting: list[Waiting]
    seconds: float  # it was computed for, as turns are counted
    conds: tuple[Conditioning, ...] = ()
    bound: NetworkCall | None = None


class Batcher:
    """The calls that wait, in groups that take turns; within a group new images, then the oldest.

    A group with a new image is next, so that its first preview comes soon; then the group that has
    been computed for the least time, so that what takes long does not hold up what is quick; one
    that comes back has no claim to the time it was away.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._groups: dict[Hashable, _Group] = {}

    def __len__(self) -> int:
        return sum(len(group.waiting) for group in self._groups.values())

    def add(self, one: Waiting) -> None:
        """A call waits from now on."""
        self._group(_key(one)).waiting.append(one)

    def _group(self, key: Hashable) -> _Group:
        if key not in self._groups:
            least = min((group.seconds for group in self._groups.values()), default=0.0)
            self._groups[key] = _Group([], least)
        return self._groups[key]

    def remove(self, age: int) -> None:
        """An image waits no more."""
        for group in self._groups.values():
            group.waiting = [one for one in group.waiting if one.age != age]

    def next(self) -> list[Waiting]:
        """The calls of the next joined call, no longer waiting; [] = none waits."""
        self._tidy()
        if not self._groups:
            return []
        group = min(self._groups.values(), key=_turn)
        in_order = sorted(group.waiting, key=lambda one: (not one.is_new, one.age))
        most = self.limits.rows(self.limits.kind(in_order[0].call))
        images = _UNLIMITED if self.limits.most_images is None else self.limits.most_images
        chosen, rows = in_order[:1], len(in_order[0].call.z)
        for one in in_order[1:images]:
            rows += len(one.call.z)
            if rows > most:
                break
            chosen.append(one)
        group.waiting = in_order[len(chosen) :]
        return chosen

    def compute(self, calls: Sequence[Waiting]) -> list[NetworkOutput]:
        """The answers of calls that `next` chose, computed together."""
        group, first = self._group(_key(calls[0])), calls[0].call
        begin = time.perf_counter()
        try:
            bound = self._bound(group, calls)
            z, logsnr = (
                torch.cat(parts) if len(calls) > 1 else parts[0]
                for parts in zip(*((one.call.z, one.call.logsnr) for one in calls), strict=True)
            )
            output = bound(z, logsnr)
            if z.device.type == "cuda":  # or else no time would have passed
                torch.cuda.synchronize(z.device)
        finally:
            seconds = time.perf_counter() - begin
            group.seconds += seconds
        self.limits.learn(self.limits.kind(first), len(z), seconds, images=len(calls))
        return _parted(output, [len(one.call.z) for one in calls])

    def _bound(self, group: _Group, calls: Sequence[Waiting]) -> NetworkCall:
        conds = tuple(one.call.cond for one in calls)
        same = len(conds) == len(group.conds)
        if group.bound is None or not same or any(map(_other, conds, group.conds)):
            group.conds, group.bound = (), None  # they may be large
            group.bound = bound_network(calls[0].call.stage, reduce(Conditioning.cat, conds))
            group.conds = conds
        return group.bound

    def _tidy(self) -> None:
        """Let go of groups in which no image waits any more, and of their bindings."""
        self._groups = {key: group for key, group in self._groups.items() if group.waiting}


def _turn(group: _Group) -> tuple[bool, float, int]:
    """What comes first is smaller."""
    has_new = any(one.is_new for one in group.waiting)
    return not has_new, group.seconds, min(one.age for one in group.waiting)


def _other(one: Conditioning, other: Conditioning) -> bool:
    return one is not other


def _key(one: Waiting) -> Hashable:
    """What calls that may be joined have in common."""
    call, stage = one.call, one.call.stage
    last = None
    if isinstance(stage.network, AdmPair):  # the second network answers where all rows are at 0
        level = network_level(stage.config.network, stage.schedule, call.logsnr)
        last = bool((level == 0).all())
    given = tuple(_kind(getattr(call.cond, field.name)) for field in fields(Conditioning))
    alone = one.age if one.alone else None
    return (
        id(stage.network),
        stage.compute_dtype,
        call.z.shape[1:],
        call.z.dtype,
        given,
        last,
        alone,
    )


def _kind(part: Any) -> Hashable:
    """What parts of conditionings that can be joined have in common; captions are padded."""
    if isinstance(part, Tensor):
        return part.shape[1:], part.dtype
    return None if part is None else type(part).__name__


def _parted(output: NetworkOutput, rows: Sequence[int]) -> list[NetworkOutput]:
    """The rows of each call."""
    parts, end = [], 0
    for count in rows:
        begin, end = end, end + count
        variance = output.variance_fraction
        variance = None if variance is None else variance[begin:end]
        parts.append(NetworkOutput(output.prediction[begin:end], variance))
    return parts
