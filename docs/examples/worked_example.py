"""Run the worked example of docs/finetuning.md, and draw its sheet of images.

    python docs/examples/worked_example.py [--images NUMBER] [--work FOLDER] [--out FOLDER]

The commands are read from the page, so that what it shows is what was run. Writes
docs/images/finetuning.png, and the measured numbers into the page (with --out into a folder
instead). `--images` makes the first training shorter, and the second in proportion, to try it out.
Takes as long as its commands and two minutes more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from calotype.cascade import Cascade
from calotype.cascade.lora import Lora, LoraStack, load_lora
from calotype.cli import run
from calotype.data.images import decode_image
from calotype.data.painting import composite
from calotype.data.resize import area_resize
from calotype.evaluation.sheet import Cell, render_sheet
from calotype.runtime import choose_runtime

DOCS = Path(__file__).resolve().parents[1]
PAGE = DOCS / "finetuning.md"
MASCOT = DOCS / "examples" / "mascot"
IMAGES = 2400
"""Images of the page's first training."""
RUNS = ("mascot", "mascot-alone")
"""Its runs: with prior preservation, and without."""
WEIGHTS = (0.0, 0.5, 1.0, 1.5)
SEED = 3
LIMIT = 400_000

THING = "teapot robot"
STYLE = "flat twemoji style"
STYLES = ("glossy gradient style", "3d render style", "noto style")
NEW = (
    *(f"{THING}, {style}" for style in STYLES),
    f"{THING}, {STYLE}, on an orange background",
    f"{THING}, {STYLE}, on a dark blue background",
    f"sleeping {THING}, glossy gradient style",
    f"steaming {THING}, 3d render style",
    f"{THING} in love, noto style, on a pink background",
)
"""Captions of the thing that no image of it had."""
SHOWN = (
    "slice of pizza, glossy gradient style",
    "rocket, 3d render style",
    "violin, noto style",
    "police car, flat twemoji style",
    "robot, flat twemoji style",
    "teapot, glossy gradient style",
)
OTHERS = (
    *SHOWN,
    "robot, flat fluent style",
    "teapot, flat fluent style",
    "owl, flat twemoji style",
    "kettle, flat twemoji style",
    "dolphin, 3d render style",
    "house, noto style",
)
"""Captions of other things, for what is forgotten; the first six are on the sheet."""

_SECTION = re.compile(r"^## A worked example$(.*?)(?=^## )", re.M | re.S)
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)
_NUMBERS = re.compile(r"(?<=<!-- numbers -->\n).*?(?=<!-- end of numbers -->)", re.S)


def commands(page: str, *, images: int = IMAGES) -> list[str]:
    """The worked example's commands, its trainings as long as `images` says."""
    section = _SECTION.search(page)
    assert section is not None
    blocks = "".join(_BLOCK.findall(section[1])).replace("\\\n", " ")
    for number in (IMAGES, IMAGES // 2):
        blocks = re.sub(rf"\b{number}\b", str(number * images // IMAGES), blocks)
    return [line for line in blocks.splitlines() if line.strip()]


def perform(line: str) -> float:
    """Run a command; returns its seconds."""
    begin = time.perf_counter()
    words = shlex.split(line)
    print("$", line, flush=True)
    if words[0] == "mkdir":
        Path(words[1]).mkdir()
    elif run(words[1:]) != 0:
        raise SystemExit(f"failed: {line}")
    return time.perf_counter() - begin


class Painter:
    """Draws with a LoRA file at some weight, or without any; always the same seed."""

    def __init__(self, cascade: Cascade) -> None:
        choose_runtime(None, None, None).apply(cascade.stages)
        self._cascade = cascade
        self._stack = LoraStack(cascade.stages)

    def draw(
        self, captions: Sequence[str], lora: Lora | None = None, weight: float = 1.0
    ) -> Tensor:
        """One image a caption, (B, 3, 64, 64)."""
        if lora is not None:
            self._stack.add(lora, weight)
        sample = self._cascade.sample(captions, seeds=[SEED] * len(captions), stop_at=64)
        self._stack.clear()
        return sample.images[0]

    def enlarge(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """(B, 3, 64, 64) -> (B, 3, 256, 256)."""
        seeds = [SEED] * len(captions)
        return self._cascade.upscale(images, captions, seeds=seeds, stop_at=256).images[-1]


@dataclass(frozen=True)
class Mascot:
    """The training images on white, (B, 3, 256, 256), and their captions."""

    images: Tensor
    captions: tuple[str, ...]

    @classmethod
    def read(cls) -> Mascot:
        """Those of the folder, in the order of their names."""
        names = sorted(MASCOT.glob("*.png"))
        pixels = np.stack([decode_image(name.read_bytes()) for name in names])
        white = np.full((len(names), 3), 255, np.float32)
        images = torch.from_numpy(composite(pixels, white)).permute(0, 3, 1, 2)
        texts = [name.with_suffix(".txt").read_text("utf-8").strip() for name in names]
        return cls(area_resize(images, 256), tuple(texts))


def error(a: Tensor, b: Tensor) -> float:
    """Mean squared difference of images in [-1, 1]."""
    return float((a - b).double().square().mean())


@dataclass(frozen=True)
class Results:
    """Drawings, (B, 3, 64, 64): by weight, of new captions, of others by run ("" = no LoRA)."""

    mascot: Mascot
    by_weight: Mapping[float, Tensor]
    new: Tensor
    others: Mapping[str, Tensor]


def draw_all(painter: Painter, loras: Mapping[str, Lora]) -> Results:
    """Draw everything that is shown or measured."""
    mascot, kept = Mascot.read(), loras[RUNS[0]]
    by_weight = {
        weight: painter.draw(mascot.captions, kept if weight else None, weight)
        for weight in WEIGHTS
    }
    others = {name: painter.draw(OTHERS, loras[name]) for name in RUNS}
    others[""] = painter.draw(OTHERS)
    return Results(mascot, by_weight, painter.draw(NEW, kept), others)


@dataclass(frozen=True)
class Shown:
    """A drawing on the sheet: (3, 64, 64), the caption it was drawn of, what is printed below."""

    image: Tensor
    caption: str
    label: str


def shown(results: Results) -> Iterator[Shown]:
    """The drawings of the sheet, six in a row."""
    captions = results.mascot.captions
    for image, caption in zip(results.by_weight[1.0], captions, strict=True):
        yield Shown(image, caption, f"drawn: {_short(caption)}")
    plain = captions.index(f"{THING}, {STYLE}")
    for weight, drawn in results.by_weight.items():
        yield Shown(drawn[plain], captions[plain], f"{THING}, LoRA at {weight:g}")
    for image, caption in zip(results.new, NEW, strict=True):
        yield Shown(image, caption, caption)
    labels = {"": "without LoRA", RUNS[0]: "LoRA", RUNS[1]: "LoRA, nothing preserved"}
    for name, label in labels.items():
        for image, caption in zip(results.others[name], SHOWN, strict=False):
            yield Shown(image, caption, f"{_short(caption)}, {label}")


def _short(caption: str) -> str:
    return caption.partition(",")[0]


def draw_cells(painter: Painter, results: Results) -> list[Cell]:
    """The sheet: the training images, and the drawings enlarged."""
    mascot, drawings = results.mascot, list(shown(results))
    cells = [
        Cell((image,), f"training: {_short(caption)}")
        for image, caption in zip(mascot.images, mascot.captions, strict=True)
    ]
    images = torch.stack([one.image for one in drawings])
    large = painter.enlarge(images, [one.caption for one in drawings])
    return cells + [Cell((image,), one.label) for image, one in zip(large, drawings, strict=True)]


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a PNG of as many colours as keep it within `LIMIT` bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for colours in (256, 128, 64, 32):
        stream = io.BytesIO()
        sheet.quantize(colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        if stream.tell() <= LIMIT:
            break
    path.write_bytes(stream.getvalue())


def numbers(results: Results, seconds: Mapping[str, float]) -> str:
    """The measured numbers, as Markdown."""
    plain = results.others[""]
    goal = area_resize(results.mascot.images, plain.shape[-1])
    lines = ["", "| LoRA at | mean squared error to the six images |", "|---|---|"]
    for weight, drawn in results.by_weight.items():
        lines.append(f"| {weight:g} | {error(drawn, goal):.3f} |")
    lines += ["", "| run | images seen | seconds | images/s | change of other things |"]
    lines.append("|---|---|---|---|---|")
    for name in RUNS:
        log = [json.loads(line) for line in Path(name, "log.jsonl").read_text().splitlines()]
        steps = [line for line in log if "images_per_second" in line]
        speed = statistics.median(step["images_per_second"] for step in steps)
        changed = error(results.others[name], plain)
        lines.append(
            f"| `{name}` | {steps[-1]['images']:,} | {seconds[name]:.0f} | {speed:.1f} | "
            f"{changed:.4f} |"
        )
    size = next(Path(RUNS[0], "lora").glob("*.safetensors")).stat().st_size
    lines += ["", f"The LoRA file takes {size / 2**20:.1f} MiB.", ""]
    return "\n".join(lines) + "\n"


def run_all(images: int) -> tuple[Image.Image, str]:
    """Run the page's commands in the current folder; returns the sheet and the numbers."""
    seconds: dict[str, float] = {}
    for line in commands(PAGE.read_text("utf-8"), images=images):
        words, took = shlex.split(line), perform(line)
        if words[1] == "train":
            seconds[words[words.index("--out") + 1]] = took
    loras = {}
    for name, length in zip(RUNS, (images, images // 2), strict=True):
        loras[name] = load_lora(Path(name, "lora", f"{length}-64.safetensors"))
    painter = Painter(Cascade.load(None, stop_at=256))
    results = draw_all(painter, loras)
    measured = numbers(results, seconds)
    return render_sheet(draw_cells(painter, results), columns=6, side=112), measured


def main(arguments: Sequence[str]) -> int:
    """Run all and write the sheet and the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=IMAGES, help="images of the training")
    parser.add_argument("--work", type=Path, help="new folder for the runs, kept")
    parser.add_argument("--out", type=Path, help="write here instead of into docs")
    options = parser.parse_args(arguments)
    out = None if options.out is None else options.out.resolve()
    with contextlib.ExitStack() as stack:
        if options.work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        else:
            work = options.work.resolve()
            work.mkdir(parents=True)
        (work / "docs").symlink_to(DOCS)
        stack.enter_context(contextlib.chdir(work))
        sheet, measured = run_all(options.images)
    print(measured)
    save_sheet(sheet, (out or DOCS / "images") / "finetuning.png")
    if out is None:
        text = PAGE.read_text("utf-8")
        PAGE.write_text(_NUMBERS.sub(lambda _: measured, text), encoding="utf-8")
    else:
        (out / "numbers.md").write_text(measured, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
