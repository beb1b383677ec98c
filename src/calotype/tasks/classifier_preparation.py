"""What has to be ready before a classifier is trained: classes, network, examples to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.config.classifier import ClassifierTraining
from calotype.data.batch import BatchPlan
from calotype.data.open import TrainingData
from calotype.data.source import ExampleSource
from calotype.errors import UsageError
from calotype.networks.classifier import Classifier
from calotype.runtime import DTYPES
from calotype.storage.weights import load_tensors
from calotype.tasks.accuracy import Labelled, read_labelled
from calotype.tasks.class_names import settled_names
from calotype.tasks.classifier import ClassifierTask, new_classifier
from calotype.tasks.validation import PROBE_SEED
from calotype.training.preparation import Job, Preparation
from calotype.training.shards import copy_weights
from calotype.training.task import TaskStart
from calotype.vision.classifier import WEIGHTS_FILE, find_classifier, read_classifier_file

_EXAMPLES = 256  # of each split, to validate on


def prepare_classifier(
    preparation: Preparation, config: ClassifierTraining, start: TaskStart
) -> Job:
    """Open the data, name its classes, and make the network; see `TaskFactory.prepare`."""
    data = TrainingData(
        preparation.data, resolution=config.read_resolution, data=config.data, captioned=False
    )
    source = data.training
    preparation.report_data(source, captioned=False)
    assert config.data.labels is not None  # see `ClassifierTraining`
    known = config.classifier.classes
    names = settled_names(source, config.data.labels, known, preparation.group)
    config = config.of_classes(names)
    runtime = preparation.runtime
    model = new_classifier(config, device=runtime.device)
    if start.init is not None:
        _start_from(start.init, model, config.classifier.classes)
    task = ClassifierTask(config, model, DTYPES[runtime.dtype])
    if preparation.group.is_rank_zero and config.validation_images > 0:
        task.probes = _probes(config, {**data.held_out, "trained": source})
    return Job(task, source)


def _start_from(init: Path, model: Classifier, classes: tuple[str, ...]) -> None:
    """Copy the weights of a classifier of the same classes."""
    folder = find_classifier(init)
    known = read_classifier_file(folder).classifier.classes
    if known != classes:
        raise UsageError(
            f"got --init {init}, a classifier of {', '.join(known):.200}; expected one of the "
            f"data's classes, {', '.join(classes):.200}: train anew, or name another"
        )
    copy_weights(model, load_tensors(folder / WEIGHTS_FILE, model.state_dict()))


def _probes(config: ClassifierTraining, parts: dict[str, ExampleSource]) -> dict[str, Labelled]:
    """Examples of each split, whole and as they are."""
    plan = BatchPlan(
        resolution=config.resolution,
        lowres_resolution=None,
        config=replace(config.data, small="enlarge"),
        batch_size=64,
        seed=PROBE_SEED,
    )
    names = config.classifier.classes
    found = {
        name: read_labelled(part, plan, names, limit=_EXAMPLES) for name, part in parts.items()
    }
    return {name: part for name, part in found.items() if part is not None}
