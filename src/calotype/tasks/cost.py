"""What a trained image costs in floating-point operations, and how fast the machine could be.

Operations are counted, not timed: those of matrix products and convolutions, forward and backward,
of the weights that are trained. The peak is measured, once on each machine, with the best of a
large matrix product and a 3x3 convolution in the number type of the network calls.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from calotype.conditioning import Conditioning, Text, TextEmbedding, TokenIds
from calotype.config.classifier import ClassifierTraining
from calotype.config.clip import ClipTraining
from calotype.config.diffusion import DiffusionTraining
from calotype.networks import build_network
from calotype.networks.classifier import Classifier
from calotype.networks.clip import Clip
from calotype.networks.lora import train_adapters
from calotype.runtime import cached_measurement, cpu_model, known_measurement
from calotype.tasks.draft_folds import freeze_draft
from calotype.vision.noise_level import told_level

Training = DiffusionTraining | ClipTraining | ClassifierTraining
CAPTION_TOKENS = 16  # of an ordinary caption
_BUDGET_SECONDS = 0.4
_MATRIX_SIDE = {"cpu": 1024}
_LARGE_MATRIX_SIDE = 4096  # a GPU needs this much to be busy


@dataclass(frozen=True)
class TrainingCost:
    """Operations of an image against those that the machine can do.

    Args:
        flops_per_image: forward and backward (multiply and add are two).
        peak_flops: operations a second of all processes together, as measured.
    """

    flops_per_image: int
    peak_flops: float

    def rates(self, images_per_second: float) -> dict[str, float]:
        """`flops_per_second` and `flops_share_of_peak`, for the log; both are timings."""
        rate = self.flops_per_image * images_per_second
        return {
            "flops_per_second": float(f"{rate:.4g}"),
            "flops_share_of_peak": round(rate / self.peak_flops, 4),
        }


def training_cost(
    config: Training, device: str, dtype: torch.dtype, *, processes: int = 1
) -> TrainingCost:
    """Count what an image costs, and look up or measure what the machine can do.

    Args:
        config: of what is trained.
        device: that computes it.
        dtype: of the network calls.
        processes: that train it together, each with threads or a device of its own.
    """
    return TrainingCost(training_flops(config), peak_flops(device, dtype) * processes)


@functools.cache  # the first count in a process takes about a second
def training_flops(config: Training) -> int:
    """Operations of one image, forward and backward, without computing anything."""
    with torch.device("meta"):
        network = new_network(config)
        if isinstance(config, DiffusionTraining) and config.lora is not None:
            train_adapters(network, config.lora)
        call = forward_call(network, config)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(call().sum())
    return int(counter.get_total_flops())


def trained_size(config: Training) -> int:
    """Side of what is trained on: images of the resolution, or crops of them."""
    return config.resolution if config.data.crop is None else config.data.crop


def new_network(config: Training) -> nn.Module:
    """The network of a stage or a classifier, or both towers; a draft is frozen, as in training."""
    if isinstance(config, ClassifierTraining):
        return Classifier(config.classifier)
    if isinstance(config, ClipTraining):
        return Clip(config.clip)
    network = build_network(config.stage.network)
    freeze_draft(network)
    return network


def forward_call(
    network: nn.Module, config: Training, *, batch_size: int = 1
) -> Callable[[], Tensor]:
    """A forward pass on inputs of the right shapes; call under the wanted device.

    Args:
        network: of `config`.
        config: of what is trained.
        batch_size: images, and captions of `CAPTION_TOKENS` tokens.
    """
    size = trained_size(config)
    image = torch.zeros(batch_size, 3, size, size)
    if isinstance(config, ClassifierTraining):
        return partial(network, image, torch.zeros(batch_size))
    if isinstance(config, ClipTraining):
        tower, towers, patches = config.clip.text, cast(Clip, network), None
        captions = _captions(batch_size, tower.states, min(CAPTION_TOKENS, tower.context))
        if config.kept_patches is not None:
            patches = torch.zeros(batch_size, config.kept_patches, dtype=torch.int64)
        level = told_level(config.clip.noise, None, image)
        return lambda: (
            towers.embed_image(image, level, patches) * towers.embed_text(captions)
        ).sum()
    stage, text, level = config.stage, None, torch.zeros(batch_size)
    if (width := stage.network.text_dim) > 0:
        text = _captions(batch_size, None if stage.takes_ids else width, CAPTION_TOKENS)
    cond = Conditioning(text)
    if stage.lowres_resolution is not None:
        cond = Conditioning(text, lowres=image, aug_level=level)
    return partial(network, image, level, cond)


def _captions(count: int, width: int | None, tokens: int) -> Text:
    """Captions of some tokens, as states of a width or (None) as ids."""
    mask = torch.ones(count, tokens, dtype=torch.bool)
    return (
        TokenIds(mask.long(), mask)
        if width is None
        else TextEmbedding(torch.ones(count, tokens, width), mask)
    )


def peak_flops(device: str, dtype: torch.dtype) -> float:
    """Operations a second of this device, from the cache or measured in half a second.

    On a CPU that is with torch's present number of threads.
    """
    key = _peak_key(device, dtype)
    return cached_measurement("peak_flops", key, partial(_measure_peak, device, dtype))


def known_peak_flops(device: str, dtype: torch.dtype) -> float | None:
    """The same where it was measured before; None elsewhere."""
    return known_measurement("peak_flops", _peak_key(device, dtype))


def _peak_key(device: str, dtype: torch.dtype) -> str:
    kind = torch.device(device).type
    threads = torch.get_num_threads()
    name = torch.cuda.get_device_name(device) if kind == "cuda" else cpu_model()
    count = f", {threads} threads" if kind == "cpu" else ""
    return f"{name}, {kind} {dtype}, torch {torch.__version__}{count}"


@torch.no_grad()
def _measure_peak(device: str, dtype: torch.dtype) -> float:
    kind = torch.device(device).type
    side = _MATRIX_SIDE.get(kind, _LARGE_MATRIX_SIDE)
    matrix = torch.ones(side, side, device=device, dtype=dtype)
    x = torch.ones(8, 256, 32, 32, device=device, dtype=dtype)
    weight = torch.ones(256, 256, 3, 3, device=device, dtype=dtype)
    x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
    convolve = partial(torch.nn.functional.conv2d, x, weight, padding=1)
    work: tuple[tuple[int, Callable[[], Tensor]], ...] = (
        (2 * side**3, partial(torch.mm, matrix, matrix)),
        (2 * x.numel() * weight[0].numel(), convolve),
    )
    best, began, turn = 0.0, time.perf_counter(), 0
    while turn < 3 or time.perf_counter() - began < _BUDGET_SECONDS:
        for flops, run in work:
            start = time.perf_counter()
            run()
            synchronize(device)
            best = max(best, flops / (time.perf_counter() - start))
        turn += 1
    return best


def synchronize(device: str) -> None:
    """Wait for a device: GPUs answer before they have computed."""
    kind = torch.device(device).type
    if kind != "cpu":
        getattr(torch, kind).synchronize()
