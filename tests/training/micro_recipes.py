"""Recipes of classifiers and of CLIP that train in a second, and the images for them."""

import dataclasses

import numpy as np
from PIL import Image

from calotype.config.adm import AdmLevel
from calotype.config.augmentation import ImageAugmentation
from calotype.config.classifier import ClassifierConfig, ClassifierTraining
from calotype.config.clip import (
    ClipConfig,
    ClipTraining,
    ImageTowerConfig,
    NoiseConfig,
    TextTowerConfig,
)
from calotype.config.data import DataConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.schedule import DiscreteScheduleConfig

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 160, 0), "black": (0, 0, 0)}
NOISE = {
    "clean": None,
    "logsnr": NoiseConfig(),
    "timestep": NoiseConfig(told="timestep", schedule=DiscreteScheduleConfig()),
}


def halves(side, *colours):
    """Each colour in the top and in the bottom half of a white image; with their names."""
    for name in colours:
        for half, rows in (("top", slice(0, side // 2)), ("bottom", slice(side // 2, side))):
            pixels = np.full((side, side, 3), 255, np.uint8)
            pixels[rows] = COLOURS[name]
            yield name, half, Image.fromarray(pixels)


def write_classes(folder):
    """A folder a class, which is the colour of one half of the image."""
    for name, half, image in halves(24, "red", "blue", "green"):
        (folder / name).mkdir(exist_ok=True)
        image.save(folder / name / f"{half}.png")
    return folder


def write_captioned(folder):
    """Images whose captions say which half has which colour."""
    for name, half, image in halves(16, *COLOURS):
        image.save(folder / f"{name}-{half}.png")
        (folder / f"{name}-{half}.txt").write_text(f"{name} {half}")
    return folder


def micro_classifier(*, classifier=None, **changes):
    """Make a recipe for the classes."""
    settings = {
        "resolution": 16,
        "levels": (
            AdmLevel(channels=16, blocks=1),
            AdmLevel(channels=16, blocks=1, attention="joined"),
        ),
        "schedule": DiscreteScheduleConfig(),
        **{"fold": 4, "head_dim": 8, "norm_groups": 4, **(classifier or {})},
    }
    config = ClassifierTraining(
        classifier=ClassifierConfig(**settings),
        data=DataConfig(labels="folder"),
        batch_size=8,
        total_images=320,
        ema_halflife_images=64,
        optimizer=OptimizerConfig(learning_rate=5e-3, warmup_images=32),
        checkpoint_images=160,
        validation_images=320,
        grid_images=0,
    )
    return Recipe(name="micro-classifier", stages=(dataclasses.replace(config, **changes),))


def micro_clip(**changes):
    """Make a recipe for the images with captions."""
    tower = {"width": 16, "layers": 1, "heads": 2}
    config = ClipTraining(
        clip=ClipConfig(
            image=ImageTowerConfig(resolution=16, patch=8, **tower),
            text=TextTowerConfig(states=16, context=16, **tower),
            embed_dim=8,
        ),
        text_encoder="bytes:16",
        batch_size=8,
        total_images=800,
        ema_halflife_images=64,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_images=32),
        checkpoint_images=160,
        validation_images=800,
        grid_images=0,
        augmentation=ImageAugmentation(flip=False, smallest_crop=0.9),
    )
    return Recipe(name="micro-clip", stages=(dataclasses.replace(config, **changes),))


def noised(recipe, noise):
    """The same recipe of CLIP for noisy images."""
    (config,) = recipe.stages
    clip = dataclasses.replace(config.clip, noise=NOISE[noise])
    return dataclasses.replace(recipe, stages=(dataclasses.replace(config, clip=clip),))


def noised_in_parts(noise, **changes):
    """With all that a step draws: noise, what is left out of both sides; and in two parts."""
    parts = OptimizerConfig(learning_rate=3e-3, warmup_images=32, accumulation=2)
    return noised(micro_clip(patch_dropout=0.5, text_noise=0.1, optimizer=parts, **changes), noise)
