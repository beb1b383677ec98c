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

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, Text, TextEmbedding, TokenIds
from calotype.config.clip import ClipConfig
from calotype.config.diffusion import DiffusionTraining
from calotype.config.lora import LoraConfig
from calotype.config.stage import StageConfig
from calotype.config.training import TrainConfig
from calotype.networks.clip import Clip
from calotype.networks.lora import train_adapters
from calotype.runtime import cached_measurement, cpu_model, known_measurement
from calotype.tasks.draft_folds import freeze_draft

CAPTION_TOKENS = 16  # of an ordinary caption
_BUDGET_SECONDS = 0.4
_MATRIX_SIDE = {"cpu": 1024}
_LARGE_MATRIX_SIDE = 4096  # a GPU needs this much to be busy


@dataclass(frozen=True)
class StageCost:
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


def stage_cost(config: DiffusionTraining, stage: Stage, *, processes: int = 1) -> StageCost:
    """Count what an image costs, and look up or measure what the machine can do.

    Args:
        config: of the stage.
        stage: says on which device, and in which number type, it is computed.
        processes: that train it together, each with threads or a device of its own.
    """
    peak = peak_flops(str(stage.device), stage.compute_dtype)
    return StageCost(training_flops(config), peak * processes)


def training_flops(config: DiffusionTraining) -> int:
    """Operations of one image, forward and backward, without computing anything."""
    return _count(config.stage, config.lora, size=trained_size(config))


@functools.cache  # the first count in a process takes about a second
def _count(config: StageConfig, lora: LoraConfig | None, *, size: int) -> int:
    with torch.device("meta"):
        stage = Stage(config)
        inputs = network_inputs(config, size, batch_size=1)
        freeze_draft(stage.network)
        if lora is not None:
            train_adapters(stage.network, lora)
        with FlopCounterMode(display=False) as counter:
            output = run_network(stage.network, inputs)
            torch.autograd.backward(output.sum())
    return int(counter.get_total_flops())


def clip_flops(config: ClipConfig) -> int:
    """Operations of one image and its caption, forward and backward."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(clip_call(Clip(config), batch_size=1)())
    return int(counter.get_total_flops())


def clip_call(network: Clip, *, batch_size: int) -> Callable[[], Tensor]:
    """A forward pass of both towers to one number; call under the wanted device."""
    side, tower = network.config.image.resolution, network.config.text
    mask = torch.ones(batch_size, min(CAPTION_TOKENS, tower.context), dtype=torch.bool)
    text: Text = TokenIds(torch.zeros(mask.shape, dtype=torch.int64), mask)
    if tower.states is not None:
        text = TextEmbedding(torch.zeros(*mask.shape, tower.states), mask)
    x = torch.zeros(batch_size, 3, side, side)
    return lambda: (network.embed_images(x) * network.embed_texts(text)).sum()


def trained_size(config: TrainConfig) -> int:
    """Side of what is trained on: images of the resolution, or crops of them."""
    return config.resolution if config.data.crop is None else config.data.crop


@dataclass(frozen=True)
class NetworkInputs:
    """What a network is called with.

    Args:
        z: (B, 3, H, W).
        logsnr: (B,).
        cond: text and low-resolution images, where the network has them.
    """

    z: Tensor
    logsnr: Tensor
    cond: Conditioning


def network_inputs(config: StageConfig, size: int, *, batch_size: int) -> NetworkInputs:
    """Images, levels and captions of the right shapes; call under the wanted device."""
    text: Text | None = None
    text_dim = config.network.text_dim
    if text_dim > 0:
        mask = torch.ones(batch_size, CAPTION_TOKENS, dtype=torch.bool)
        if config.takes_ids:
            text = TokenIds(mask.long(), mask)
        else:
            text = TextEmbedding(torch.ones(batch_size, CAPTION_TOKENS, text_dim), mask)
    image = torch.zeros(batch_size, 3, size, size)
    lowres = aug_level = None
    if config.lowres_resolution is not None:
        lowres, aug_level = image, torch.zeros(batch_size)
    return NetworkInputs(image, torch.zeros(batch_size), Conditioning(text, lowres, aug_level))


def run_network(network: nn.Module, inputs: NetworkInputs) -> Tensor:
    """The network's output."""
    output: Tensor = network(inputs.z, inputs.logsnr, inputs.cond)
    return output


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
    work: tuple[tuple[int, Callable[[], Tensor]], ...] = (
        (2 * side**3, partial(torch.mm, matrix, matrix)),
        (
            2 * x.numel() * weight[0].numel(),
            partial(torch.nn.functional.conv2d, x, weight, padding=1),
        ),
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
