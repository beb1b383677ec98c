"""How often does a classifier's guidance lead to the style that is wanted?

    python -m calotype.emoji.styles --model BASE --classifier RUN --data EMOJI
        [--judge RUN] [--scales 0,1,2,4,8,16] [--samples 64] [--sheet SHEET.png]

All scales begin from the same noise, and no two images of one do. Which style a sample shows is
said by a CLIP that did not guide: the one whose captions fit best on average (Radford et al. 2021,
section 3.1.4, arXiv:2103.00020). A line says how often it is right of real images that it never
saw.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.cascade import Cascade
from calotype.cascade.guide import Pull
from calotype.emoji.gallery import Gallery, read_gallery
from calotype.emoji.prompts import ImageRow
from calotype.errors import UsageError
from calotype.evaluation.command import add_machine_options, load_cascade, run_command, say
from calotype.tasks.grid import save_sheet
from calotype.vision.classifier import load_classifier
from calotype.vision.clip import EMBEDDED_JUDGE, ClipModel, load_clip
from calotype.vision.guides import ClassifierGuide

HELD_OUT = ("unseen_pair", "unseen_concept")
SHOWN = 4
"""Samples of each class that the sheet shows in a row."""


class StyleJudge:
    """Says which style of the emoji set images show, by a CLIP and all captions of each style."""

    def __init__(self, clip: ClipModel, rows: Sequence[ImageRow]) -> None:
        self.styles = tuple(sorted({row.style for row in rows}))
        means = [
            clip.embed_texts([row.caption for row in rows if row.style == style]).mean(0)
            for style in self.styles
        ]
        self._clip, self._texts = clip, F.normalize(torch.stack(means), dim=1)

    def __call__(self, images: Tensor) -> list[str]:
        """The style of each image, (B, 3, H, W) in [-1, 1]."""
        best = (self._clip.embed_images(images) @ self._texts.T).argmax(1)
        return [self.styles[number] for number in best]


def style_of_class(rows: Sequence[ImageRow], classes: Sequence[str]) -> dict[str, str]:
    """The style of each class: sets of the emoji data have one each, or classes are styles.

    Raises:
        UsageError: the classes are neither.
    """
    styles = {row.set: row.style for row in rows} | {row.style: row.style for row in rows}
    unknown = sorted(set(classes) - styles.keys())
    if unknown:
        raise UsageError(
            f"got a classifier of {unknown[0]!r:.80}; expected one of the emoji data's sets or "
            f"styles, {sorted(styles)}: train classifier-emoji-64"
        )
    return {name: styles[name] for name in classes}


def sample_classes(
    cascade: Cascade, guide: ClassifierGuide, classes: Sequence[str], scale: float, count: int
) -> dict[str, Tensor]:
    """`count` images of each class, (count, 3, R, R); each has a seed, the same at all scales."""
    base = cascade.stages[0].config.resolution
    found = {}
    for number, name in enumerate(classes):
        pulls = [Pull(guide.towards(name), scale)] if scale > 0 else []
        seeds = range(number * count, (number + 1) * count)
        made = cascade.sample([""] * count, seeds=seeds, stop_at=base, pulls=pulls)
        found[name] = made.images[0]
    return found


def summary(shown: Mapping[str, Sequence[str]], wanted: Mapping[str, str]) -> dict[str, object]:
    """The fraction that shows the wanted style, its 95 % interval (Wilson), and each class's."""
    from scipy.stats import binomtest

    right = {name: [one == wanted[name] for one in styles] for name, styles in shown.items()}
    hits, all_of_them = sum(map(sum, right.values())), sum(map(len, right.values()))
    interval = binomtest(hits, all_of_them).proportion_ci(method="wilson")
    return {
        "images": all_of_them,
        "right": round(hits / all_of_them, 4),
        "low": round(float(interval.low), 4),
        "high": round(float(interval.high), 4),
        "by_class": {name: round(sum(each) / len(each), 4) for name, each in right.items()},
    }


def real_images(gallery: Gallery, judge: StyleJudge) -> dict[str, object]:
    """How often the judge is right of real images that nobody was trained with."""
    shown: dict[str, list[str]] = {}
    for row in gallery.rows:
        if row.split in HELD_OUT:
            shown.setdefault(row.style, []).extend(judge(gallery.real(row.key)[None]))
    return summary(shown, {style: style for style in shown})


def _scales(text: str) -> list[float]:
    """The numbers of a text such as "0,1,2".

    Raises:
        UsageError: there are others.
    """
    try:
        scales = [float(part) for part in text.split(",")]
    except ValueError:
        scales = []
    if not scales or not all(0 <= scale < float("inf") for scale in scales):
        raise UsageError(f"got --scales {text!r:.80}; expected numbers of at least 0, e.g. 0,1,2")
    return scales


def measure(options: argparse.Namespace) -> None:
    """Sample, judge and print a line for each scale."""
    scales = _scales(options.scales)
    if options.samples < 1:
        raise UsageError(f"got --samples {options.samples}; expected at least 1")
    cascade, runtime = load_cascade(options)
    side = cascade.stages[0].config.resolution
    gallery = read_gallery(options.data, side)
    classifier = load_classifier(options.classifier)
    wanted = style_of_class(gallery.rows, classifier.classes)
    judge = StyleJudge(load_clip(options.judge), gallery.rows)
    guide = ClassifierGuide(classifier.to(runtime.device), None)
    print(json.dumps({"scale": None, **real_images(gallery, judge)}), flush=True)
    rows = []
    for scale in scales:
        found = sample_classes(cascade, guide, classifier.classes, scale, options.samples)
        shown = {name: judge(images) for name, images in found.items()}
        print(json.dumps({"scale": scale, **summary(shown, wanted)}), flush=True)
        rows += [images[:SHOWN] for images in found.values()]
    if options.sheet is not None:
        columns = min(SHOWN, options.samples) * len(classifier.classes)
        save_sheet(torch.cat(rows), options.sheet, columns=columns)
        say(f"wrote {options.sheet}: a row for each scale")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calotype.emoji.styles")
    parser.add_argument("--model", required=True, help="a base that is told of no class")
    parser.add_argument("--classifier", required=True, help="a run of classifier-emoji-64")
    parser.add_argument(
        "--judge", default=EMBEDDED_JUDGE, help="a CLIP that did not guide; if not the embedded one"
    )
    parser.add_argument("--data", type=Path, required=True, help="the emoji set's folder")
    parser.add_argument("--scales", default="0,1,2,4,8,16", help="of the classifier's gradient")
    parser.add_argument("--samples", type=int, default=64, help="of each class and scale")
    parser.add_argument("--sheet", type=Path, help="a PNG of the first ones")
    add_machine_options(parser)
    return run_command(parser, measure, arguments)


if __name__ == "__main__":
    sys.exit(main())
