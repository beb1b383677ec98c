"""The embedded CLIP's folder: its weights in float16, and a card with what they reach.

    python -m calotype.emoji.clip_card RUN --data EMOJI [--best-of LINES] -o FOLDER

Retrieval is measured anew on the weights as they are written. LINES are what
`python -m calotype.emoji.best_of` printed; a CLIP of noisy images needs none.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from calotype.config.clip import ClipConfig, ClipTraining, ConvTowerConfig, ImageTowerConfig
from calotype.config.data import DataConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import load_config
from calotype.data.batch import BatchPlan
from calotype.data.open import TrainingData
from calotype.emoji.captions import GRAMMAR
from calotype.errors import UsageError
from calotype.evaluation.command import run_command
from calotype.storage.files import write_file
from calotype.tasks.clip_preparation import retrieval_pools
from calotype.tasks.clip_retrieval import POOL, RATIOS, at_level, retrieval
from calotype.training.record import read_run
from calotype.vision.clip import CARD_FILE, ClipModel, load_clip, save_clip

_SPLITS = {
    "trained": "trained pairs",
    "unseen_pair": "unseen pairs",
    "unseen_concept": "unseen concepts",
}
_SCORES = (
    "It scores how well an image of the emoji kind fits\na caption (`calotype score`), and ranks "
    "candidates (`calotype sample --best-of`)."
)
_GUIDES = (
    "It looks at noisy images of the emoji kind and guides\nwhat samples them to their captions "
    "(`calotype sample --clip-guidance`)."
)
_JUDGES = (
    "It judges images of the emoji kind\nthat another CLIP chose or guided "
    "(`calotype sweep-guidance`)."
)
_WAYS = ("", "image to text ", "text to image ")


def make(options: argparse.Namespace) -> None:
    """Write the folder and its card.

    Raises:
        UsageError: the run is none of CLIP.
    """
    config = load_config(options.run / "recipe.json", Recipe).stages[0]
    if not isinstance(config, ClipTraining):
        raise UsageError(f"got the run {options.run} of kind {config.kind!r}; expected clip")
    save_clip(options.out, load_clip(options.run), dtype=torch.float16)
    model = load_clip(options.out)
    measured = measure(model, options.data, config.data)
    ranked = "" if options.best_of is None else options.best_of.read_text("utf-8")
    lines = [json.loads(line) for line in ranked.splitlines()]
    text = card(model, config, measured, lines, training=told(options.run))
    write_file(options.out / CARD_FILE, text.encode())


def measure(model: ClipModel, data: Path, config: DataConfig) -> dict[str, dict[str, float]]:
    """Retrieval by split; see `clip_retrieval`."""
    side = model.file.clip.image.resolution
    plan = BatchPlan(resolution=side, lowres_resolution=None, config=config, batch_size=64, seed=0)
    source = TrainingData(data, resolution=side, data=config, grammar=GRAMMAR)
    ratios = () if model.file.clip.noise is None else RATIOS
    pools = retrieval_pools(source, plan)
    return {name: retrieval(model, part, ratios=ratios) for name, part in pools.items()}


def told(run: Path) -> str:
    """What the run's log says of its length."""
    record = read_run(run)
    seen, rates = record.steps["images"], record.steps["images_per_second"]
    hours = float(((seen[1:] - seen[:-1]) / rates[1:]).sum()) / 3600
    state = record.state
    runtime, processes = state.get("runtime", {}), state.get("processes", 1)
    return (
        f"{record.images:,} images in {hours:.2f} hours of steps on {processes} process"
        f"{'es' if processes > 1 else ''} of {runtime.get('threads')} thread"
        f"{'s' if runtime.get('threads') != 1 else ''} ({runtime.get('dtype')})"
    )


def card(
    model: ClipModel,
    config: ClipTraining,
    measured: Mapping[str, Mapping[str, float]],
    best_of: Sequence[Mapping[str, Any]],
    *,
    training: str,
) -> str:
    """The card, in Markdown: of what was measured."""
    template = _template(noisy=config.clip.noise is not None, ranked=bool(best_of))
    numbers = [f"{way}R@{most}" for way in _WAYS for most in (1, 5)]
    styles = sorted(name for name in measured["trained"] if name.endswith("style R@1"))
    splits = [split for split in _SPLITS if split in measured]
    retrieval = [
        [_SPLITS[split], *(f"{measured[split][n]:.2f}" for n in numbers)] for split in splits
    ]
    by_style = [["style", *(_SPLITS[split] for split in splits)], ["---"] * (1 + len(splits))]
    for style in styles:
        values = [f"{measured[split][style]:.2f}" for split in splits]
        by_style.append([style.removesuffix(" R@1"), *values])
    chosen = [
        [
            "pixels" if line["judge"] == "pixels" else "another CLIP",
            line["split"].replace("_", " "),
            f"{line['prompts']}",
            f"{line['one']:.2f}",
            f"{line['best']:.2f}",
            f"{line['difference']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]",
        ]
        for line in best_of
    ]
    return template.format(
        name=model.name,
        parameters=sum(p.numel() for p in model.network.parameters()),
        config=config,
        training=training,
        pool=POOL,
        retrieval=_rows(retrieval),
        styles=_rows(by_style),
        chosen=_rows(chosen),
        purpose=_purpose(config.clip),
        tower=_tower(config.clip.image),
        augmented=", ".join(_augmented(config)),
        levels=_rows(_by_level({split: measured[split] for split in splits})),
    )


def _template(*, noisy: bool, ranked: bool) -> str:
    """The card's text without the sections of what was not measured."""
    text = (resources.files("calotype") / "configs" / "clip_card.md").read_text("utf-8")
    wanted = {"At every noise level": noisy, "The best of several": ranked}
    sections = re.split(r"(?m)^## ", text)
    kept = [part for part in sections if wanted.get(part.partition("\n")[0], True)]
    return "## ".join(kept).rstrip() + "\n"


def _purpose(clip: ClipConfig) -> str:
    """What it is for: the judge is of another kind than those it judges."""
    if clip.noise is not None:
        return _GUIDES
    return _JUDGES if isinstance(clip.image, ConvTowerConfig) else _SCORES


def _tower(tower: ImageTowerConfig | ConvTowerConfig) -> str:
    """The image tower's network, in words."""
    if isinstance(tower, ImageTowerConfig):
        return f"a ViT of width {tower.width} and {tower.layers} layers"
    widths = ", ".join(map(str, tower.channels))
    return f"residual convolutions of {widths} channels, {tower.blocks} blocks each"


def _augmented(config: ClipTraining) -> list[str]:
    """How training images were changed, in words."""
    augmentation = config.augmentation
    kinds = [name for name in ("blur", "colour", "noise") if getattr(augmentation, name) > 0]
    words = ["crops", "mirroring", *kinds, "painted backgrounds"]
    if config.patch_dropout > 0:
        words.append(f"{config.patch_dropout:.0%} of the patches left out")
    return words


def _by_level(measured: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Header, line and rows of the table of noise levels."""
    rows = [["", *(f"{ratio:g}" for ratio in RATIOS)], ["---"] * (1 + len(RATIOS))]
    for split, numbers in measured.items():
        found = [numbers.get(at_level(ratio)) for ratio in RATIOS]
        rows.append([_SPLITS[split], *(f"{value:.2f}" for value in found if value is not None)])
    return rows


def _rows(rows: Iterable[Sequence[str]]) -> str:
    """Rows of a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the folder; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m calotype.emoji.clip_card")
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the emoji set's folder")
    parser.add_argument("--best-of", type=Path, help="lines of emoji.best_of")
    parser.add_argument("-o", "--out", type=Path, required=True)
    return run_command(parser, make, arguments)


if __name__ == "__main__":
    sys.exit(main())
