"""Record what this calotype computes, to the bit, so that a change of the code can be held to it.

    python tests/pins/record.py before.json            # in a checkout of the commit before
    python tests/pins/record.py after.json             # in yours; on the same machine
    python tests/pins/record.py after.json --against before.json

Runs of `calotype train` and images of `calotype sample` are recorded as SHA-256 of their tensors
and pixels, and the lines of their logs without what a clock decides. Only commands and the files
they write are used, so the script outlives what moves inside. The same bits are promised for the
same machine and the same torch alone: `machine` in the file says which.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

CLOCKED = {
    "images_per_second", "data_wait", "seconds", "flops_per_second", "flops_share_of_peak", "time",
}  # fmt: skip
CONFIGS = Path(__file__).parents[2] / "src/calotype/configs"
Recipe = dict[str, Any]


def machine() -> str:
    """What the bits depend on beside the code: torch, and what the processor can do."""
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), platform.machine())
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()
    return f"torch {torch.__version__}, processor {digest:.12}"


def record(place: Path, only: str | None = None) -> dict[str, Any]:
    """All pins, made in the empty folder `place`; those whose name begins with `only`."""
    make_data(place / "data")
    pins: dict[str, Any] = {"machine": machine()}
    for name, make in cases().items():
        if only is None or name.startswith(only):
            folder = place / name
            folder.mkdir()
            pins[name] = make(folder, place / "data")
    return pins


def cases() -> dict[str, Callable[[Path, Path], Any]]:
    """How each pin is made, from its own empty folder and the folder of images."""
    return {
        "tiny": lambda folder, data: trained(folder, data, tiny()),
        "tiny-killed": lambda folder, data: trained(folder, data, tiny(), kill_at=250),
        "tiny-two": lambda folder, data: trained(folder, data, tiny(), processes=2),
        **{f"emoji-{name}": _emoji(name, change) for name, change in emoji_changes().items()},
        **{f"image-{name}": _image(*arguments) for name, arguments in image_commands().items()},
        "image-edits": edits,
    }


def tiny() -> Recipe:
    """The recipe `tiny` with 400 images over its three stages."""
    recipe: Recipe = json.loads((CONFIGS / "tiny.json").read_text())
    for stage, images in zip(recipe["stages"], (160, 120, 120), strict=True):
        stage.update(total_images=images, checkpoint_images=40, grid_images=40)
    return recipe


def emoji_changes() -> dict[str, tuple[str, Recipe]]:
    """Three steps of each emoji recipe, as it is and with one thing more switched on."""
    switches: dict[str, Recipe] = {
        "plain": {},
        "lora": {"lora": {"rank": 4}},
        "preservation": {"preservation": {"data": "DATA", "share": 0.25}},
        "posthoc": {"posthoc_ema_images": 8},
    }
    sizes = ("64", "256", "1024")
    return {f"{size}-{name}": (size, change) for size in sizes for name, change in switches.items()}


def image_commands() -> dict[str, tuple[str, ...]]:
    """Arguments of `calotype` whose images are recorded."""
    owl = ("sample", "an owl, noto style")
    return {
        "64": (*owl, "--size", "64", "-n", "2", "--seed", "3"),
        "1024": (*owl, "--size", "1024", "--seed", "3"),
        "options": (*owl, "--size", "64", "--guidance", "3", "--steps", "4", "--sampler", "ddim",
                    "--variety", "0.5", "--negative", "a cat"),
        "wide": (*owl, "--size", "384x256"),
        "list": ("sample", "--from-file", "captions.txt", "--size", "64", "--batch", "3"),
        "list-workers": ("sample", "--from-file", "captions.txt", "--size", "64", "--workers", "2"),
        "upscale": ("upscale", "DATA/0.png", "a red square", "--size", "256"),
    }  # fmt: skip


def _emoji(name: str, change: tuple[str, Recipe]) -> Callable[[Path, Path], Any]:
    size, more = change

    def make(folder: Path, data: Path) -> Any:
        recipe: Recipe = json.loads((CONFIGS / f"emoji-{size}.json").read_text())
        (stage,) = recipe["stages"]
        stage.update(batch_size=4, total_images=12, checkpoint_images=8, grid_images=0)
        stage.update(validation_images=8, **json.loads(json.dumps(more).replace("DATA", str(data))))
        stage["data"].update(caption_variants=1)
        if "draft" in stage:
            stage["draft"].update(images=16, batch_size=8, folds=2, fold_images=16)
        return trained(folder, data, recipe, init="default")

    make.__name__ = name
    return make


def _image(*arguments: str) -> Callable[[Path, Path], Any]:
    def make(folder: Path, data: Path) -> Any:
        captions = ("a red apple", "an owl", "", "a police car, noto style", "an owl")
        (folder / "captions.txt").write_text("\n".join(captions) + "\n")
        named = [argument.replace("DATA", str(data)) for argument in arguments]
        run("calotype", *named, *COMPUTE, cwd=folder)
        return {path.name: pixels(path) for path in sorted(folder.rglob("*.png"))}

    return make


COMPUTE = ("--dtype", "float32", "--threads", "1", "--device", "cpu")


def trained(
    folder: Path,
    data: Path,
    recipe: Recipe,
    *,
    init: str | None = None,
    kill_at: int | None = None,
    processes: int = 1,
) -> dict[str, Any]:
    """What a run of `recipe` leaves: tensors of its last checkpoints, averages, LoRAs, lines."""
    (folder / "recipe.json").write_text(json.dumps(recipe))
    out = folder / "run"
    command = ["train", str(folder / "recipe.json"), "--data", str(data), "--out", str(out)]
    command += ["--quiet", *COMPUTE, *([] if init is None else ["--init", init])]
    if processes > 1:
        launch = ("torch.distributed.run", "--nproc-per-node", str(processes), "-m", "calotype")
        run(*launch, *command)
    elif kill_at is None:
        run("calotype", *command)
    else:
        _kill_at(command, out / "log.jsonl", kill_at)
        run("calotype", *command, "--resume")
    files = sorted([*out.glob("checkpoints/*/*.safetensors"), *out.glob("*/*.safetensors")])
    latest = (out / "checkpoints/latest").resolve()
    found = {str(p.relative_to(out)): tensors(p) for p in files if "latest" not in p.parts}
    found |= {
        f"latest/{path.relative_to(latest)}": tensors(path)
        for path in sorted(latest.rglob("weights.safetensors"))
    }
    for name in ("log.jsonl", "validation.jsonl"):
        found[name] = lines(out / name)
    found["grids"] = {path.name: pixels(path) for path in sorted(out.glob("grids/*.png"))}
    return found


def _kill_at(command: Sequence[str], log: Path, images: int) -> None:
    process = subprocess.Popen([sys.executable, "-m", "calotype", *command], env=_environment())
    while process.poll() is None and (not log.exists() or len(lines(log)) < images // 8):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def edits(folder: Path, data: Path) -> dict[str, Any]:
    """In-painting and image-to-image, at the base and further on."""
    import calotype

    torch.set_num_threads(1)
    cascade = calotype.load(stop_at=256)
    image = torch.linspace(-1, 1, 64).expand(1, 3, 64, 64)
    mask = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    mask[..., :40] = True
    changed = calotype.image_to_image(
        cascade, image, ["an owl"], strength=0.6, seeds=[1], stop_at=64
    )
    filled = calotype.inpaint(cascade, image, mask, ["an owl"], seeds=[1])
    return {"image_to_image": sums(changed.images), "inpaint": sums(filled.images)}


def sums(images: Sequence[torch.Tensor]) -> list[str]:
    """SHA-256 of each tensor."""
    return [hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest() for image in images]


def tensors(path: Path) -> str:
    """SHA-256 of the names, types and bytes of a file's tensors."""
    digest = hashlib.sha256()
    for name, value in sorted(load_file(path).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(torch.uint8).numpy().tobytes() if value.ndim else
                      value.reshape(1).view(torch.uint8).numpy().tobytes())  # fmt: skip
    return digest.hexdigest()


def pixels(path: Path) -> str:
    """SHA-256 of an image's pixels."""
    return hashlib.sha256(np.asarray(Image.open(path)).tobytes()).hexdigest()


def lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a log without what a clock decides; lines that are not whole are left out."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append({k: v for k, v in json.loads(line).items() if k not in CLOCKED})
        except ValueError:
            continue
    return found


def make_data(folder: Path) -> None:
    """Sixteen images of 72x72: squares of four colours on two grounds, at two places."""
    folder.mkdir()
    colours = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 220)}
    colours["grey"] = (90, 90, 90)
    grounds = {"white": 255, "pale": 200}
    count = 0
    for colour, rgb in colours.items():
        for ground, level in grounds.items():
            for side, left in (("left", 6), ("right", 34)):
                image = np.full((72, 72, 3), level, np.uint8)
                image[10:50, left : left + 32] = rgb
                image[::7, ::5] //= 2  # something fine for super-resolution
                Image.fromarray(image).save(folder / f"{count}.png")
                caption = f"a {colour} square on the {side}, {ground} ground"
                (folder / f"{count}.txt").write_text(caption)
                count += 1


def run(module: str, *arguments: str, cwd: Path | None = None) -> None:
    """Run `python -m module`, and say what it printed if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=_environment(), cwd=cwd, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}")


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def differences(before: Any, after: Any, where: str = "") -> list[str]:
    """Where two records differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [
            line
            for key in keys
            for line in differences(before.get(key), after.get(key), f"{where}/{key}")
        ]
    return [] if before == after else [f"{where}: got {after}; expected {before}"]


def main() -> int:
    """Record, and compare if asked; the exit code is 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--only", help="pins whose name begins with this")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        pins = record(Path(place), arguments.only)
    arguments.out.write_text(json.dumps(pins, indent=1) + "\n")
    if arguments.against is None:
        return 0
    before = json.loads(arguments.against.read_text())
    found = differences({key: before.get(key) for key in pins}, pins)
    print("\n".join(found) or f"{len(pins) - 1} pins hold")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
