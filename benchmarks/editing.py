"""What editing costs beside sampling; `python benchmarks/editing.py`, see README.md."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from tiled import time_ratio

from calotype.cascade import Cascade
from calotype.cascade.edit import EditSettings, plan_edit
from calotype.cascade.find import open_cascade
from calotype.cascade.results import drain
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import KNOWN_CHANNELS
from calotype.cascade.tiles import MAX_TILED_SIDE
from calotype.conditioning import Conditioning

CAPTION = "an owl, noto style"


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    cascade = Cascade.load(options.model)
    last = cascade.stages[-1].config.resolution
    for stage in cascade.stages:
        _print(
            f"a step of {stage.config.resolution}² with mask channels against one without",
            mask_channels(cascade, stage, options.rounds),
        )
    _print(f"in-painting {last}² against sampling it", in_painting(cascade, options.rounds))
    repeated = Cascade.load(open_cascade(options.model).repeated(MAX_TILED_SIDE))
    _print("4096² in tiles against sixteen of 1024²", time_ratio(repeated, last, options.rounds))


def mask_channels(cascade: Cascade, stage: Stage, rounds: int) -> list[float]:
    """Time of a network's step with the channels of known pixels over one without, in turns."""
    config = stage.config
    network = replace(config.network, extra_channels=KNOWN_CHANNELS)
    stages = [Stage(one).eval() for one in (config, replace(config, network=network))]
    side = config.resolution
    z, logsnr = torch.randn(1, 3, side, side), torch.zeros(1)
    plain = Conditioning(cascade.text_encoder([CAPTION]))
    if config.lowres_resolution is not None:
        plain = Conditioning(plain.text, torch.zeros_like(z), torch.zeros(1))
    known = replace(plain, extra=torch.ones(1, KNOWN_CHANNELS, side, side))
    # Steps alone: what is computed once an image is in `in_painting`.
    with torch.no_grad():
        calls = [one.denoiser(cond) for one, cond in zip(stages, (plain, known), strict=True)]
        return _ratios(lambda: calls[1](z, logsnr), lambda: calls[0](z, logsnr), rounds * 10)


def in_painting(cascade: Cascade, rounds: int) -> list[float]:
    """Time of filling in the right half of an image over that of sampling it, in turns."""
    side = cascade.stages[-1].config.resolution
    keep = torch.zeros(1, 1, side, side, dtype=torch.bool)
    keep[..., : side // 2] = True
    image = cascade.sample([CAPTION], seeds=[0]).images[-1]

    def edit() -> None:
        settings = EditSettings(mask=keep)
        plan = plan_edit(cascade, image, settings, [CAPTION], seeds=[1])
        drain(cascade.generate(plan))

    return _ratios(edit, lambda: cascade.sample([CAPTION], seeds=[1]), rounds)


def _ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    """Processor seconds of `one` over those of `other`; the first, uncounted round warms up."""
    ratios = []
    for _ in range(rounds + 1):
        began = time.process_time()
        other()
        between = time.process_time()
        one()
        ratios.append((time.process_time() - between) / (between - began))
    return ratios[1:]


def _print(what: str, ratios: list[float]) -> None:
    print(
        f"{what}: {statistics.median(ratios):.3f} times ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a cascade folder; the embedded cascade if not given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
