"""Averages of the weights whose length is chosen after training.

Two averages with power-function profiles run beside training; snapshots of both are kept. The
average of any other length is, to small error, a sum of snapshots: the one whose profile is
nearest to the wanted profile in the least-squares sense.

    theta_avg(t) = integral_0^t p(tau) theta(tau),   p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)

Times are images seen. The length is sigma_rel: the standard deviation of the profile as a fraction
of the time so far, so 0.1 averages over about the last tenth of the run.

Reference: Karras et al. 2024, sections 3.1 and 3.2 and appendix C, arXiv:2312.02696.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calotype.errors import CalotypeError, UsageError
from calotype.storage.files import make_folder, write_with
from calotype.storage.headers import NOTES
from calotype.storage.reading import check_regular
from calotype.training.shards import distribute_like, full_tensor, to_local

LENGTHS = (0.05, 0.10)
"""sigma_rel of the averages that are tracked, as in the paper."""
SHORTEST, LONGEST = 0.005, 0.28
FOLDER = "ema"
_FORMAT = "calotype-ema-1"
Floats = NDArray[np.float64]


def gamma_of(length: float) -> float:
    """The exponent of a profile of relative length sigma_rel (equation 126).

    sigma_rel^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)); the largest root of that cubic.

    Raises:
        UsageError: the length is out of range.
    """
    if not SHORTEST <= length <= LONGEST:
        raise UsageError(f"got length {length}; expected {SHORTEST} to {LONGEST}, e.g. 0.1")
    inverse = length**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


class PowerFunctionEMA:
    """The running average of a model's parameters with one profile.

    Args:
        model: what is averaged; the first update takes the weights as they are then.
        length: sigma_rel.
    """

    def __init__(self, model: nn.Module, *, length: float) -> None:
        self.length = length
        self._power = gamma_of(length) + 1
        named = dict(model.named_parameters())
        self._weights = [to_local(parameter.data) for parameter in named.values()]
        self._averages = {name: p.detach().clone() for name, p in named.items()}

    @torch.no_grad()
    def update(self, *, batch_size: int, images_seen: int) -> None:
        """Take in the weights after a step; `images_seen` includes it (equation 127)."""
        old = (1.0 - batch_size / images_seen) ** self._power
        averages = [to_local(average) for average in self._averages.values()]
        torch._foreach_lerp_(averages, self._weights, 1.0 - old)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by the parameters' names; training goes on changing them."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` gave.

        Raises:
            CalotypeError: the tensors belong to another network.
        """
        if saved.keys() != self._averages.keys():
            raise CalotypeError("got averages of another network; expected the same recipe")
        for name, average in self._averages.items():
            average.copy_(distribute_like(saved[name], average))


def write_snapshots(
    emas: Sequence[PowerFunctionEMA],
    run: Path,
    *,
    images: int,
    facts: Mapping[str, Any],
    writes: bool = True,
) -> None:
    """Write float16 snapshots into RUN/ema; every process calls this, to gather what is sharded.

    Args:
        emas: that are tracked.
        run: its folder.
        images: over all stages: they name the files.
        facts: `images` that the stage has seen, and its `resolution`.
        writes: whether this process writes.

    Raises:
        CalotypeError: the disk is full, or a weight does not fit float16.
    """
    for ema in emas:
        averages = ema.state_dict().items()
        halves = {name: full_tensor(t).half().contiguous().cpu() for name, t in averages}
        if not writes:
            continue
        for name, tensor in halves.items():
            if not bool(tensor.isfinite().all()):
                raise CalotypeError(
                    f"the average of {name!r} does not fit float16; lower the learning rate, or "
                    "set posthoc_ema_images=0"
                )
        make_folder(run / FOLDER)
        # One entry: safetensors writes several in any order, and not the same bits every time.
        notes = {NOTES: json.dumps({"format": _FORMAT, "length": ema.length, **facts})}
        write = partial(save_file, halves, metadata=notes)
        write_with(run / FOLDER / f"{images}-{ema.length:.3f}.safetensors", write)


@dataclass(frozen=True)
class EmaSnapshot:
    """One stored average.

    Args:
        path: its file.
        resolution: of the stage.
        images: images the stage had seen.
        length: sigma_rel of its profile.
    """

    path: Path
    resolution: int
    images: int
    length: float


def find_snapshots(run: Path) -> list[EmaSnapshot]:
    """All snapshots of a run, of all its stages, oldest first.

    Raises:
        UsageError: there are none.
        CalotypeError: a file is damaged.
    """
    found = [_read_facts(path) for path in (run / FOLDER).glob("*.safetensors")]
    if not found:
        raise UsageError(
            f"{run} has no snapshots of averages; train with --set posthoc_ema_images=N, e.g. a "
            "fiftieth of the run"
        )
    return sorted(found, key=lambda one: (one.resolution, one.images, one.length))


def _read_facts(path: Path) -> EmaSnapshot:
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[NOTES])
        if facts["format"] != _FORMAT:
            raise ValueError(f"format {facts['format']!r}")
        length, images = float(facts["length"]), int(facts["images"])
        return EmaSnapshot(path, int(facts["resolution"]), images, length)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise CalotypeError(f"{path} is no snapshot of an average ({error}); remove it") from error


@dataclass(frozen=True)
class ProfileFit:
    """How snapshots add up to an average.

    Args:
        weights: one a snapshot.
        error: distance of the profile from the wanted one, as a fraction of that one's norm.
    """

    weights: tuple[float, ...]
    error: float


def fit_profile(snapshots: Sequence[EmaSnapshot], *, length: float, images: int) -> ProfileFit:
    """Weights whose sum of profiles is nearest to the profile of `length` at `images`.

    The normal equations of algorithm 3, in float64, scaled to a sum of 1.
    """
    times = np.array([one.images for one in snapshots], np.float64)
    gammas = np.array([gamma_of(one.length) for one in snapshots], np.float64)
    wanted_time, wanted = np.array([images], np.float64), np.array([gamma_of(length)])
    gram = _profile_products(times, gammas, times, gammas)
    products = _profile_products(times, gammas, wanted_time, wanted)[:, 0]
    norm = float(_profile_products(wanted_time, wanted, wanted_time, wanted)[0, 0])
    # Snapshots close in time are nearly dependent: the shortest of nearly equal solutions.
    weights = np.linalg.lstsq(gram, products, rcond=1e-12)[0]
    weights = weights / weights.sum()
    square = float(weights @ gram @ weights - 2 * weights @ products) / norm + 1
    return ProfileFit(tuple(float(w) for w in weights), max(square, 0.0) ** 0.5)


def _profile_products(
    times_a: Floats, gammas_a: Floats, times_b: Floats, gammas_b: Floats
) -> Floats:
    """Inner products of all profiles a with all profiles b, (A, B) (equation 151).

    For t_a <= t_b: (g_a + 1) (g_b + 1) (t_a / t_b)^g_b / ((g_a + g_b + 1) t_b).
    """
    t_a, g_a, t_b, g_b = times_a[:, None], gammas_a[:, None], times_b[None], gammas_b[None]
    earlier, later = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    ratio = (earlier / later) ** np.where(t_a < t_b, g_b, g_a)
    product: Floats = (g_a + 1) * (g_b + 1) * ratio / ((g_a + g_b + 1) * later)
    return product


def combine(snapshots: Sequence[EmaSnapshot], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted sum of snapshots, float32, summed in float64 one parameter at a time.

    Raises:
        CalotypeError: a file is damaged, or they are of different networks.
    """
    try:
        with ExitStack() as stack:
            files: list[Any] = [
                stack.enter_context(safe_open(one.path, framework="pt")) for one in snapshots
            ]
            return {name: _weighted_sum(files, weights, name) for name in files[0].keys()}
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CalotypeError(
            f"the snapshots in {snapshots[0].path.parent} cannot be read: {error}; remove the "
            "damaged ones"
        ) from error


def _weighted_sum(files: Sequence[Any], weights: Sequence[float], name: str) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for file, weight in zip(files, weights, strict=True):
        total = total + weight * file.get_tensor(name).double()
    return total.float()
