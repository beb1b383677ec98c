"""A trained classifier of noisy images, ready to use: its folder, and what it says of images.

A folder holds `classifier.json`, the names of the classes among it, and the weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from calotype.config.class_names import check_class
from calotype.config.classifier import ClassifierConfig
from calotype.config.ranges import require
from calotype.config.typed_json import load_settings, to_dict
from calotype.diffusion import DiscreteSchedule, NoiseSchedule
from calotype.diffusion.named import build_schedule
from calotype.errors import CalotypeError, UsageError
from calotype.networks.classifier import Classifier
from calotype.storage.files import new_folder, write_file
from calotype.storage.places import check_holds_only
from calotype.storage.weights import load_module, save_weights

CLASSIFIER_FILE, WEIGHTS_FILE = "classifier.json", "weights.safetensors"
CLASSIFIER_FOLDER = "classifier"
"""Holds the classifier in a checkpoint."""
_MOST = 25.0  # log-SNRs are told from -25 to 25, spread over 0 to 1000


@dataclass(frozen=True, kw_only=True)
class ClassifierFile:
    """What `classifier.json` holds.

    Args:
        format: of the file.
        name: of the model, said beside what it guides.
        sha256: of the weights file.
        classifier: the network and its classes.
    """

    format: int
    name: str
    sha256: str
    classifier: ClassifierConfig

    def __post_init__(self) -> None:
        require(self.format == 1, f"got format={self.format}; expected 1: get a newer calotype")
        require(
            len(self.classifier.classes) > 1,
            f"got a classifier of {len(self.classifier.classes)} named classes; expected at least "
            "two: get its files again",
        )


class ClassifierModel:
    """Says of noisy images how likely they are of each class.

    Args:
        file: what the folder says of it.
        network: with its weights; they are frozen, and images may have gradients.
    """

    def __init__(self, file: ClassifierFile, network: Classifier) -> None:
        self.file = file
        self.network = network.requires_grad_(False).eval()
        self.name, self.fingerprint = file.name, file.sha256
        self.classes, self.resolution = file.classifier.classes, file.classifier.resolution
        self._schedule = build_schedule(file.classifier.schedule)

    def __call__(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """Logits, (B, K) float32 at least, differentiable in `z`.

        Args:
            z: noisy images, (B, 3, R, R) of the classifier's resolution.
            logsnr: their levels, (B,).

        Raises:
            UsageError: images of another size.
        """
        side = self.resolution
        if tuple(z.shape[2:]) != (side, side):
            raise UsageError(
                f"got images of {z.shape[3]}x{z.shape[2]} for the classifier {self.name!r}; "
                f"expected {side}x{side}: guide a stage of that resolution, or use another "
                "classifier"
            )
        return class_logits(self.network, self._schedule, z, logsnr)

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Numbers of classes, (B,) int64.

        Raises:
            UsageError: one that it was not trained on.
        """
        places = {name: number for number, name in enumerate(self.classes)}
        for name in dict.fromkeys(names):
            check_class(name, self.classes, f"the classifier {self.name!r}")
        return torch.tensor([places[name] for name in names], dtype=torch.int64)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.stem.weight.device

    def to(self, device: str | torch.device) -> Self:
        """Itself, with the network on a device."""
        self.network.to(device)
        return self


def class_logits(network: Classifier, schedule: NoiseSchedule, z: Tensor, logsnr: Tensor) -> Tensor:
    """Logits, (B, K), of noisy images at levels, (B,), as the network was told them in training."""
    if isinstance(schedule, DiscreteSchedule):
        level = schedule.timestep(logsnr)
    else:
        level = (_MOST - logsnr.clamp(-_MOST, _MOST)) * (500 / _MOST)
    logits: Tensor = network(z.to(network.stem.weight.dtype), level.to(z.device, torch.float32))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def save_classifier(
    folder: str | Path, model: ClassifierModel, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a model into `folder`; an older one there is replaced all at once.

    Raises:
        UsageError: `folder` holds something else.
        CalotypeError: the disk is full or `folder` cannot be written to.
    """
    folder = Path(folder).resolve()
    own = {CLASSIFIER_FILE, WEIGHTS_FILE}
    check_holds_only(folder, own, what="classifier", marker=CLASSIFIER_FILE)
    with new_folder(folder) as temporary:
        digest = save_weights(model.network, temporary / WEIGHTS_FILE, dtype=dtype)
        data = {**to_dict(model.file), "sha256": digest}
        write_file(temporary / CLASSIFIER_FILE, json.dumps(data, indent=1).encode())


def load_classifier(path: str | Path) -> ClassifierModel:
    """Read a classifier from its folder, a checkpoint, or a run, whose newest checkpoint is taken.

    Raises:
        UsageError: no classifier is there.
        CalotypeError: files are missing or damaged.
    """
    folder = find_classifier(path)
    file = read_classifier_file(folder)
    weights = folder / WEIGHTS_FILE
    network = load_module(weights, lambda: Classifier(file.classifier), sha256=file.sha256)
    return ClassifierModel(file, network)


def read_classifier_file(folder: Path) -> ClassifierFile:
    """What a folder from `find_classifier` says of its classifier; no weights are loaded."""
    return load_settings(folder / CLASSIFIER_FILE, ClassifierFile)


def find_classifier(path: str | Path) -> Path:
    """The folder that `load_classifier` reads."""
    found = classifier_in(Path(path))
    if found is not None:
        return found
    if (Path(path) / "recipe.json").is_file():
        raise CalotypeError(
            f"the run {path} has no classifier in a checkpoint; train one: classifier-emoji-64"
        )
    raise UsageError(
        f"got classifier {str(path)!r:.200}; expected a folder with {CLASSIFIER_FILE}, or the run "
        "of a recipe such as classifier-emoji-64"
    )


def classifier_in(path: Path) -> Path | None:
    """The folder of the classifier that a folder is, or that is in a run's newest checkpoint."""
    latest = path / "checkpoints" / "latest" / CLASSIFIER_FOLDER
    for folder in (path, latest, path / CLASSIFIER_FOLDER):
        if (folder / CLASSIFIER_FILE).is_file():
            return folder.resolve()
    return None
