"""The task of a classifier: the class of an image, told from its noisy self.

Reference: Dhariwal & Nichol 2021, section 4 and appendix H, arXiv:2105.05233.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.config.classifier import ClassifierTraining
from calotype.config.recipe import Recipe
from calotype.data.batch import Batch, BatchPlan
from calotype.data.labels import class_numbers
from calotype.diffusion import (
    GlobalNoise,
    NoiseSchedule,
    add_noise,
    stratified_levels,
)
from calotype.diffusion.named import build_schedule
from calotype.networks.blocks import Block
from calotype.networks.classifier import Classifier
from calotype.tasks.accuracy import Labelled, accuracy_by_level
from calotype.tasks.augmentation import AugmentationNumbers, augmentation_numbers, augmented
from calotype.tasks.cost import TrainingCost, training_cost
from calotype.tasks.level_losses import loss_by_level
from calotype.training.randomness import Rows, mixed_seed, seed_networks
from calotype.training.task import Task
from calotype.vision.classifier import (
    CLASSIFIER_FOLDER,
    ClassifierFile,
    ClassifierModel,
    class_logits,
    save_classifier,
)


@dataclass(frozen=True)
class ClassifierNumbers(Rows):
    """All random numbers of a step, on the CPU.

    Args:
        logsnr: noise levels, (B,) float64.
        eps: noise of the images, (B, 3, R, R).
        augmentation: of the images before that.
    """

    logsnr: Tensor
    eps: Tensor
    augmentation: AugmentationNumbers


@dataclass(frozen=True)
class ClassifierInputs(Rows):
    """Rows of a step, on the CPU.

    Args:
        x: clean images, (B, 3, S, S) in [-1, 1], of which crops are taken.
        labels: numbers of their classes, (B,) int64.
        numbers: all that is random.
    """

    x: Tensor
    labels: Tensor
    numbers: ClassifierNumbers


@dataclass(eq=False)
class ClassifierTask(Task[ClassifierNumbers, ClassifierInputs]):
    """A classifier and what it is trained with; a `Task`.

    Args:
        config: of the run, with the names of the classes.
        model: the network.
        compute_dtype: of its calls.
        probes: fixed examples to validate on, by name of the split.
    """

    config: ClassifierTraining
    model: Classifier
    compute_dtype: torch.dtype
    probes: Mapping[str, Labelled] | None = None
    shard_units: tuple[type[nn.Module], ...] = (Block,)
    use: str = "guide a model with --classifier"
    name: str = "classifier"
    measured: str = "sigma "

    @property
    def key(self) -> int:
        """The images' resolution."""
        return self.config.resolution

    @cached_property
    def _schedule(self) -> NoiseSchedule:
        return build_schedule(self.config.classifier.schedule)

    def batch_plan(self) -> BatchPlan:
        """Whole images, large enough for crops."""
        config = self.config
        return BatchPlan(
            resolution=config.read_resolution,
            lowres_resolution=None,
            config=config.data,
            batch_size=config.batch_size,
            seed=config.seed,
        )

    def random_numbers(self, batch: Batch, position: int) -> ClassifierNumbers:
        """Noise, its levels, and numbers of the augmentation."""
        return classifier_numbers(self.config, self._schedule, position, batch.images)

    def inputs(self, batch: Batch, numbers: ClassifierNumbers) -> ClassifierInputs:
        """Rows with the numbers of their classes."""
        assert batch.labels is not None
        labels = class_numbers(batch.labels, self.config.classifier.classes, batch.keys)
        return ClassifierInputs(batch.x, torch.tensor(labels), numbers)

    def losses(self, inputs: ClassifierInputs) -> Tensor:
        """The cross entropy of each image, (B,)."""
        config, numbers = self.config, inputs.numbers
        device = self.model.stem.weight.device
        x = inputs.x.to(device=device, memory_format=torch.channels_last)
        x = augmented(x, numbers.augmentation, config.augmentation, side=config.resolution)
        logsnr = numbers.logsnr.to(device)
        z = add_noise(x, logsnr, numbers.eps.to(device))
        half = self.compute_dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(device.type, self.compute_dtype, enabled=half):
            logits = class_logits(self.model, self._schedule, z, logsnr)
        return F.cross_entropy(logits, inputs.labels.to(device), reduction="none")

    def log(self, losses: Tensor, numbers: ClassifierNumbers) -> Mapping[str, Any]:
        """The loss by noise level."""
        return loss_by_level(losses, numbers.logsnr)

    def cost(self, processes: int) -> TrainingCost:
        """FLOPs of an image, beside the measured peak."""
        device = str(self.model.stem.weight.device)
        return training_cost(self.config, device, self.compute_dtype, processes=processes)

    def validate(self, average: nn.Module) -> dict[str, dict[str, float]]:
        """Fractions of images whose class is the likeliest, and among five, by noise level."""
        model, found = self._usable(average), dict[str, dict[str, float]]()
        for name, probe in (self.probes or {}).items():
            found[name] = accuracy_by_level(model, probe, most=1)
            if len(model.classes) > 5:
                found[f"{name} top-5"] = accuracy_by_level(model, probe, most=5)
        return found

    def write_model(
        self, checkpoint: Path, average: nn.Module, earlier: Sequence[nn.Module], recipe: Recipe
    ) -> None:
        """The folder that `load_classifier` reads."""
        save_classifier(checkpoint / CLASSIFIER_FOLDER, self._usable(average, name=recipe.name))

    def _usable(self, average: nn.Module, name: str = "classifier") -> ClassifierModel:
        file = ClassifierFile(format=1, name=name, sha256="", classifier=self.config.classifier)
        return ClassifierModel(file, cast(Classifier, average))


def classifier_numbers(
    config: ClassifierTraining, schedule: NoiseSchedule, position: int, count: int
) -> ClassifierNumbers:
    """The numbers of the step at `position` for so many images."""
    seed = mixed_seed(config.seed, position, "classifier")
    generator = torch.Generator().manual_seed(seed)
    noise, side = GlobalNoise(generator), config.resolution
    logsnr = stratified_levels(count, noise, schedule)
    eps = noise.normal((count, 3, side, side))
    return ClassifierNumbers(logsnr, eps, augmentation_numbers(count, generator))


def new_classifier(config: ClassifierTraining, *, device: str) -> Classifier:
    """A network with initial weights, which depend on the seed and the resolution alone."""
    seed_networks(config.seed, config.resolution, part=-1)
    network = Classifier(config.classifier).to(device)
    cast(Any, network).to(memory_format=torch.channels_last)
    return network.train()
