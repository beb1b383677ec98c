"""What guidance by a gradient costs beside classifier-free guidance; see README.md."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from calotype.cascade.guide import Guide, Pull
from calotype.cascade.sampling import guided
from calotype.cascade.stage import Stage
from calotype.conditioning import Conditioning, Text, TextEmbedding, TokenIds
from calotype.config.classifier import ClassifierTraining
from calotype.config.clip import ClipTraining
from calotype.config.diffusion import DiffusionTraining
from calotype.diffusion import Denoiser
from calotype.networks.classifier import Classifier
from calotype.networks.clip import Clip
from calotype.training.recipes import load_recipe
from calotype.vision.classifier import ClassifierFile, ClassifierModel
from calotype.vision.clip import ClipFile, ClipModel
from calotype.vision.guides import ClassifierGuide, ClipGuide

GUIDES = ("clip-emoji-noised", "classifier-emoji-64")
BASES = ("emoji-64", "glide-emoji-64")
TOKENS = 24  # of a caption


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    for name in options.bases:
        stage = base(name)
        for guide_name in options.guides:
            for batch in options.batch:
                ratios = step_ratios(stage, guide(guide_name), batch, options.rounds)
                print(
                    f"a step of {name} guided by {guide_name} and without a classifier, against "
                    f"without alone, {batch} at once: {statistics.median(ratios):.3f} times "
                    f"({min(ratios):.2f} to {max(ratios):.2f})",
                    flush=True,
                )


def base(name: str) -> Stage:
    """The first stage of a recipe, with random weights."""
    recipe = load_recipe(name).stages[0]
    assert isinstance(recipe, DiffusionTraining)
    return Stage(recipe.stage).eval()


def guide(name: str) -> Guide:
    """The guide that a recipe trains, with random weights."""
    recipe = load_recipe(name).stages[0]
    if isinstance(recipe, ClassifierTraining):
        count = max(2, recipe.classifier.class_count)
        classes = tuple(map(str, range(count)))
        config = replace(recipe.classifier, classes=classes, class_count=count)
        file = ClassifierFile(format=1, name=name, sha256="", classifier=config)
        return ClassifierGuide(ClassifierModel(file, Classifier(config)), "0")
    assert isinstance(recipe, ClipTraining)
    clip = ClipFile(
        format=1, name=name, text_encoder="none", text_fingerprint="", sha256="", clip=recipe.clip
    )

    def encode(captions: object) -> Text:
        return _text(len(list(captions)), recipe.clip.text.states, clip.clip.text.vocabulary)

    return ClipGuide(ClipModel(clip, Clip(recipe.clip), encode))


def step_ratios(stage: Stage, guide: Guide, batch: int, rounds: int) -> list[float]:
    """Processor seconds of a guided step over those of a classifier-free one, in turns.

    Args:
        stage: the base.
        guide: of its resolution.
        batch: images of the step.
        rounds: one number each; the first, uncounted ones warm up.
    """
    config = stage.config
    network, side = config.network, config.resolution
    vocabulary = network.text.vocabulary if config.takes_ids else None
    cond = Conditioning(_text(batch, network.text_dim, vocabulary))
    z, logsnr = torch.randn(batch, 3, side, side), torch.zeros(batch)
    sampling = replace(config.sampling, guidance_weight=3.0, guidance_interval=None)
    with torch.no_grad():
        cond = stage.with_draft(cond)
        uncond = stage.with_draft(Conditioning(_text(batch, network.text_dim, vocabulary)))
        free = guided(stage.denoiser, cond, uncond, sampling=sampling, levels=torch.zeros(2))
        pulled = Pull(guide, 1.0).guidance(["an owl"] * batch, range(batch))(free)
        return _ratios(lambda: _call(pulled, z, logsnr), lambda: _call(free, z, logsnr), rounds)


def _call(denoise: Denoiser, z: torch.Tensor, logsnr: torch.Tensor) -> None:
    denoise(z, logsnr)


def _text(count: int, width: int | None, vocabulary: int | None) -> Text:
    mask = torch.ones(count, TOKENS, dtype=torch.bool)
    if vocabulary is not None:
        return TokenIds(torch.randint(vocabulary, (count, TOKENS)), mask)
    assert width is not None
    return TextEmbedding(torch.randn(count, TOKENS, width), mask)


def _ratios(one: Callable[[], object], other: Callable[[], object], rounds: int) -> list[float]:
    ratios = []
    for _ in range(rounds + 2):
        began = time.process_time()
        other()
        between = time.process_time()
        one()
        ratios.append((time.process_time() - between) / (between - began))
    return ratios[2:]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bases", nargs="+", default=BASES, help="recipes")
    parser.add_argument("--guides", nargs="+", default=GUIDES, help="recipes")
    parser.add_argument("--batch", nargs="+", type=int, default=(1, 8), help="images of a step")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    return parser


if __name__ == "__main__":
    main()
