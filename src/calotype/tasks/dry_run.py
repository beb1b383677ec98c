"""What a recipe costs, without training it: parameters, FLOPs, memory, and time on this machine.

Parameters, FLOPs and memory are counted on the real network without memory behind it (the meta
device), so that the largest recipes can be looked at anywhere.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from calotype.config.recipe import Recipe
from calotype.networks.draft import CoefficientRegression
from calotype.runtime import DTYPES, Runtime, choose_runtime
from calotype.tasks.cost import (
    Training,
    forward_call,
    new_network,
    peak_flops,
    synchronize,
    trained_size,
)

MEASURED_UP_TO = 100_000_000
"""Networks with more parameters are not run, but estimated from the measured peak."""
_STATE_BYTES = {"adamw": 20, "adafactor": 13}  # weights, gradients, EMA, moments a parameter
_FROZEN_BYTES = 8  # weights, EMA
_SECONDS = 2.0
_MEASURED_BATCH = 32
_EFFICIENCY = 0.5  # of a large network against the measured peak, as a rule


@dataclass(frozen=True)
class DryRunRow:
    """Costs of one stage.

    Args:
        resolution: side of its images.
        trained_size: side of what it is trained on, when that is crops.
        parameters: of the network.
        forward_flops: of one image through the network (multiply and add are two).
        training_flops: of one image, forward and backward.
        activation_bytes_per_image: kept for the backward pass, float32.
        state_bytes: weights and their average; gradients and optimizer of what is trained.
        draft_images: that draft and folds see before the run; 0 without a draft.
        draft_hours: of that, here.
        images: length of the run.
        images_per_second: here.
        hours: of the run after the draft, here.
        measured: whether the speed was measured on this network, or estimated.
    """

    resolution: int
    trained_size: int
    parameters: int
    forward_flops: int
    training_flops: int
    activation_bytes_per_image: int
    state_bytes: int
    draft_images: int
    draft_hours: float
    images: int
    images_per_second: float
    hours: float
    measured: bool


def dry_run(recipe: Recipe, runtime: Runtime | None = None) -> list[DryRunRow]:
    """Count and measure every stage of a recipe.

    Args:
        recipe: whose stages are looked at.
        runtime: how speed is measured; None = as a run would choose.
    """
    runtime = choose_runtime() if runtime is None else runtime
    before = torch.get_num_threads()
    torch.set_num_threads(runtime.threads)
    try:
        return [_row(config, runtime) for config in recipe.stages]
    finally:
        torch.set_num_threads(before)


def _row(config: Training, runtime: Runtime) -> DryRunRow:
    with torch.device("meta"):
        network = new_network(config)
        run = forward_call(network, config)
    parameters = sum(p.numel() for p in network.parameters())
    frozen = sum(p.numel() for p in network.parameters() if not p.requires_grad)
    buffers = sum(buffer.nbytes for buffer in network.buffers())  # of weights and average
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        run()
    saved = _SavedBytes(network)
    with FlopCounterMode(display=False) as training:
        with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
            output = run()
        torch.autograd.backward(output.sum())
    flops = training.get_total_flops()
    measured = parameters <= MEASURED_UP_TO
    if measured:
        rate = _measured_rate(config, runtime)
    else:
        rate = peak_flops(runtime.device, DTYPES[runtime.dtype]) * _EFFICIENCY / flops
    draft_images, draft_rate = _draft(config, runtime)
    return DryRunRow(
        resolution=config.resolution,
        trained_size=trained_size(config),
        parameters=parameters,
        forward_flops=forward.get_total_flops(),
        training_flops=flops,
        activation_bytes_per_image=saved.total,
        state_bytes=(parameters - frozen) * _STATE_BYTES[config.optimizer.kind]
        + frozen * _FROZEN_BYTES
        + 2 * buffers,
        draft_images=draft_images,
        draft_hours=draft_images / draft_rate / 3600,
        images=config.total_images,
        images_per_second=rate,
        hours=config.total_images / rate / 3600,
        measured=measured,
    )


def _measured_rate(config: Training, runtime: Runtime) -> float:
    """Images a second of the real network, forward and backward, in about two seconds."""
    batch_size = min(config.batch_size, _MEASURED_BATCH)
    network = new_network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.to(runtime.device)
    with torch.device(runtime.device):
        run = forward_call(network, config, batch_size=batch_size)
    return batch_size * _steps_a_second(run, runtime)


def _draft(config: Training, runtime: Runtime) -> tuple[int, float]:
    """Images that a draft and its folds see, and images a second of their regressions.

    Forward, backward and the optimizer's step; (0, 1) without a draft.
    """
    if config.kind != "diffusion" or config.draft is None or config.stage.draft is None:
        return 0, 1.0
    training, text_dim = config.draft, config.stage.network.text_dim
    with torch.device(runtime.device):
        regression = CoefficientRegression(config.stage.draft, text_dim)
        text = torch.ones(training.batch_size, text_dim)
    optimizer = torch.optim.AdamW(regression.parameters(), fused=True)
    images = training.images + training.folds * training.fold_images
    steps = _steps_a_second(lambda: regression(text), runtime, optimizer.step)
    return images, training.batch_size * steps


def _steps_a_second(
    run: Callable[[], Tensor], runtime: Runtime, after: Callable[[], object] = lambda: None
) -> float:
    """How often a second a forward pass, its backward pass and `after` can be done."""
    dtype, kind = DTYPES[runtime.dtype], torch.device(runtime.device).type

    def step() -> None:
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            output = run()
        torch.autograd.backward(output.float().sum())
        after()
        synchronize(runtime.device)

    step()  # warm
    began, turns = time.perf_counter(), 0
    while turns == 0 or time.perf_counter() - began < _SECONDS:
        step()
        turns += 1
    return turns / (time.perf_counter() - began)


class _SavedBytes:
    """Counts what autograd keeps, each storage once and without the weights."""

    def __init__(self, network: nn.Module) -> None:
        self.total = 0
        self._seen = {p.untyped_storage()._cdata for p in network.parameters()}
        self._kept: list[Tensor] = []  # alive, so that no storage's number is used again

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._seen:
            self._seen.add(storage._cdata)
            self._kept.append(tensor)
            self.total += storage.nbytes()
        return tensor
