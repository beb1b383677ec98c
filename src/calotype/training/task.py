"""What training knows of a model: a `Task`, and nothing else.

A task holds the model that is optimized, with whatever stands beside it frozen, and says what a
step computes. The loop samples, splits, averages and saves without looking inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, TypeVar

from torch import Tensor, nn

from calotype.config.recipe import Recipe
from calotype.config.training import TrainConfig
from calotype.data.batch import Batch, BatchPlan

if TYPE_CHECKING:
    from calotype.training.preparation import Job, Preparation


class Numbers(Protocol):
    """All random numbers of a step, for the rows of all processes."""

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Those of some rows, by a slice or by their numbers."""


class Inputs(Protocol):
    """Rows of a step on their way into the loss, with everything random in them."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: slice) -> Self:
        """Some of them."""


class Cost(Protocol):
    """What a trained image costs against what the machine can do; it is sent to all processes."""

    def rates(self, images_per_second: float) -> dict[str, float]:
        """For the log; timings, all of them."""


D = TypeVar("D", bound=Numbers)
In = TypeVar("In", bound=Inputs)


class Task(Protocol[D, In]):
    """One model in training.

    `config` is of the run; `model` is what is optimized, as far as its parameters want gradients.
    `shard_units` are the modules that FSDP2 gathers one at a time. Where rows of a batch look at
    each other, `coupled` is True and the task is a `CoupledTask`. `use` is said of a finished run.
    `memory` are tensors that `remember` changes in place; a checkpoint keeps them.
    A class that names this one as its base may leave out what has a default.
    """

    config: TrainConfig
    model: nn.Module
    shard_units: tuple[type[nn.Module], ...]
    coupled: bool = False
    use: str = "sample with --model"
    memory: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def name(self) -> str:
        """Of what is trained, for people."""

    @property
    def key(self) -> int:
        """Of its lines in the log."""

    @property
    def measured(self) -> str:
        """What numbers that `validate` measures by are, e.g. "sigma " for noise levels."""
        return ""

    @property
    def fingerprint(self) -> str | None:
        """Of what it learns from beside the data, if anything."""
        return None

    def batch_plan(self) -> BatchPlan:
        """How examples become batches; size, seed and processes are filled in by the loop."""

    def random_numbers(self, batch: Batch, position: int) -> D:
        """All random numbers of the step at `position`: a function of seed, position and `memory`.

        Args:
            batch: of this process; the numbers are for the `batch.images` rows of all.
            position: of the step in the endless stream of examples.
        """

    def inputs(self, batch: Batch, numbers: D) -> In:
        """The rows of this process, ready but for the device, with their random numbers."""

    def losses(self, inputs: In) -> Tensor:
        """The loss of each row, (B,), with gradients."""

    def log(self, losses: Tensor, numbers: D) -> Mapping[str, Any]:
        """What the log says of a step beside its mean loss.

        Args:
            losses: of the rows of all processes, (B,) float64 on the CPU.
            numbers: for them.
        """
        return {}

    def remember(self, losses: Tensor, numbers: D) -> None:
        """Take in what a step has shown that moved weights, into `memory`; as in `log`."""
        return

    def cost(self, processes: int) -> Cost | None:
        """What an image costs, of so many processes that train it together; None = not known."""
        return None

    def validate(self, average: nn.Module) -> Mapping[str, Mapping[str, float]]:
        """Numbers of the averaged model on fixed examples, by kind of example and by measure."""

    def preview(self, average: nn.Module, path: Path) -> None:
        """Write a PNG that shows what the averaged model makes; nothing where it shows nothing.

        Raises:
            NotFiniteError: a half-trained model made numbers that are none.
        """
        return

    def exported(self, average: nn.Module) -> nn.Module:
        """The averaged model as others load it."""
        return average

    def write_beside(self, run: Path, average: nn.Module, images: int) -> None:
        """Write what a checkpoint of `images` images puts beside the checkpoints, if anything."""
        return

    def write_model(
        self, checkpoint: Path, average: nn.Module, earlier: Sequence[nn.Module], recipe: Recipe
    ) -> None:
        """Write the averaged model into a checkpoint, ready to use, in a folder of its own there.

        Args:
            checkpoint: folder of the checkpoint.
            average: of the model.
            earlier: exported models of the recipe's stages before this one.
            recipe: of the run.
        """


AnyTask = Task[Any, Any]


class Embedded(NamedTuple):
    """What the loss of a whole batch sees of some rows; a tuple, which FSDP2 looks into.

    Args:
        rows: (B, ...) float32.
        shared: the loss's own parameters, (K,).
    """

    rows: Tensor
    shared: Tensor


class CoupledTask(Task[Any, Any], Protocol):
    """A task whose rows look at each other; `losses` is not called."""

    def embed(self, inputs: Any) -> Embedded:
        """Embeddings of some rows, with gradients."""

    def labels(self, inputs: Any) -> Tensor:
        """What says which rows belong together, (B, K) int64 on the CPU."""

    def coupled_losses(self, embedded: Embedded, labels: Tensor) -> Tensor:
        """The loss of each row, (B,), from all rows of the batch."""


@dataclass(frozen=True, kw_only=True)
class TaskStart:
    """Where a task begins.

    Args:
        init: weights to start from; None = random ones, or those of the checkpoint.
        resumed: a checkpoint follows: what comes before the first step has been done.
        only_draft: train the draft of the base anew, although `init` has one, and nothing else.
    """

    init: Path | None
    resumed: bool
    only_draft: bool = False


class TaskFactory(Protocol):
    """Makes tasks of a recipe's stages; `calotype.tasks` has the one that commands use."""

    def check(self, recipe: Recipe, *, only_draft: bool) -> None:
        """Refuse what cannot be trained, from the settings alone.

        Raises:
            UsageError: settings that do not fit each other; the message says what to do.
        """

    def check_init(self, recipe: Recipe, init: Path | None) -> None:
        """Refuse to begin with these weights; None = random ones.

        Raises:
            UsageError: the recipe needs others.
        """

    def prepare(self, preparation: Preparation, config: TrainConfig, start: TaskStart) -> Job:
        """Open the data, embed the captions, make the model and whatever comes before steps.

        Raises:
            Stopped: somebody asked for the end.
        """

    def load_exported(self, checkpoint: Path, config: TrainConfig) -> nn.Module:
        """An earlier stage's model, from what `Task.write_model` wrote into a checkpoint."""
