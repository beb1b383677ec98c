"""Enlarging in tiles: time, memory and fidelity; `python benchmarks/tiled.py`, see README.md."""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image

from calotype.cascade import Cascade, Tiling
from calotype.cascade.find import open_cascade
from calotype.cascade.pixels import from_pixels
from calotype.cascade.tiles import MAX_TILED_SIDE
from calotype.config.stage import StageConfig
from calotype.evaluation.superresolution import Comparison, RealImage, compare_with_bicubic


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    opened = open_cascade(options.model)
    last = opened.config.stages[-1]
    cascade = Cascade.load(opened.repeated(MAX_TILED_SIDE))
    rounds = time_ratio(cascade, last.resolution, options.rounds)
    print(
        f"tiled against {last.again().resolution ** 2 // last.resolution**2} enlargements to "
        f"{last.resolution}: {statistics.median(rounds):.2f} times ({min(rounds):.2f} to "
        f"{max(rounds):.2f}), seconds of the processor"
    )
    print(f"most memory of the command: {peak_bytes(options, last.again()) / 1e9:.2f} GB")
    if options.images:
        print(_fidelity_line(fidelity(cascade, last.again().resolution, options.images)))


def time_ratio(cascade: Cascade, resolution: int, rounds: int) -> list[float]:
    """Time of one tiled enlargement over that of plain ones with as many pixels, in turns.

    Args:
        cascade: with the stage of `resolution` again, of `CascadeFolder.repeated`.
        resolution: of the stage.
        rounds: one number each; the first, uncounted one warms up.
    """
    stage = next(one for one in cascade.stages if one.config.resolution == resolution)
    again = stage.config.again().resolution
    small = torch.rand(1, 3, stage.config.lowres_resolution, stage.config.lowres_resolution)
    large = torch.rand(1, 3, resolution, resolution)
    tiling, ratios = Tiling.of_stage(stage.config), []
    for _ in range(rounds + 1):
        began = time.process_time()
        for seed in range((again // resolution) ** 2):
            cascade.upscale(small, [""], seeds=[seed], stop_at=resolution)
        between = time.process_time()
        cascade.upscale(large, [""], seeds=[0], stop_at=again, tiling=tiling)
        ratios.append((time.process_time() - between) / (between - began))
    return ratios[1:]


def peak_bytes(options: argparse.Namespace, again: StageConfig) -> int:
    """Most memory of `calotype upscale --tiled` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "a.png", Path(folder) / "b.png"
        Image.effect_mandelbrot((again.lowres_resolution,) * 2, (-2, -1, 1, 1), 90).save(source)
        command = [sys.executable, "-m", "calotype", "upscale", str(source), "--tiled", "-o"]
        command += [str(out), "--size", str(again.resolution), "--threads", str(options.threads)]
        command += ["--model", options.model] if options.model else []
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise SystemExit(f"the command failed: {' '.join(command)}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fidelity(cascade: Cascade, resolution: int, count: int) -> Comparison:
    """PSNR of held-out vector images, shrunk and enlarged in tiles, and of bicubic enlargement."""
    stage = next(one for one in cascade.stages if one.config.resolution == resolution)
    stages = (one.config for one in cascade.stages)
    trained = next(one for one in stages if one.resolution == stage.config.lowres_resolution)
    images = heldout_images(count, resolution)
    steps = [stage.config.sampling.steps]
    tiling = Tiling.of_stage(trained)
    return compare_with_bicubic(cascade, resolution, images, steps=steps, tiling=tiling)


def heldout_images(count: int, size: int) -> Iterator[RealImage]:
    """Vector images that nothing was trained on, on white; npm fetches them, hashes choose them."""
    from calotype.emoji.build import plan_images
    from calotype.emoji.fetch import fetched
    from calotype.emoji.plan import PlanReport
    from calotype.emoji.recipe import load_heldout, load_recipe
    from calotype.emoji.render import RenderJob, render

    recipe = load_recipe()
    sources = [recipe.label_package, *(source.package for source in recipe.sources)]
    with fetched(sources) as packages:
        planned = plan_images(recipe, packages, load_heldout(), report=PlanReport())
    vectors = [
        one for name, rows in planned.items() if not recipe.source(name).raster for one in rows
    ]
    held = [one for one in vectors if one.split != "train"]
    held.sort(key=lambda one: hashlib.sha256(one.key.encode()).hexdigest())
    for one in held[:count]:
        image = Image.fromarray(render(RenderJob(one.artwork.data, False, size)))
        white = Image.new("RGBA", image.size, "white")
        pixels = Image.alpha_composite(white, image).convert("RGB")
        yield RealImage(from_pixels([pixels])[0], f"{one.name}, {one.style}")


def _fidelity_line(found: Comparison) -> str:
    (result,) = found.results
    return (
        f"PSNR of {found.images} held-out vector images at {found.resolution}: "
        f"{result.psnr:.2f} dB, bicubic {found.bicubic:.2f} dB; better on {result.better:.0%}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a cascade folder; the embedded cascade if not given")
    parser.add_argument("--rounds", type=int, default=3, help="of the timing")
    parser.add_argument("--images", type=int, default=0, help="held-out images; needs npm")
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
