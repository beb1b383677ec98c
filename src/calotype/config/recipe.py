"""Everything that decides a training run."""

from __future__ import annotations

from dataclasses import dataclass

from calotype.config.classifier import ClassifierTraining
from calotype.config.clip import ClipTraining
from calotype.config.diffusion import DiffusionTraining
from calotype.config.ranges import require


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `calotype train NAME` runs: the stages in turn, coarse to fine.

    Args:
        name: what the recipe is called.
        stages: one training configuration a stage; all recipes but `tiny` have one.
        note: for people.
    """

    name: str
    stages: tuple[DiffusionTraining | ClipTraining | ClassifierTraining, ...]
    note: str = ""

    def __post_init__(self) -> None:
        require(bool(self.stages), "got a recipe without stages; expected at least one")
        kinds = sorted({stage.kind for stage in self.stages})
        require(
            kinds == ["diffusion"] or len(self.stages) == 1,
            f"got {len(self.stages)} stages of kind {' and '.join(kinds)}; expected several stages "
            "of diffusion alone: a recipe each",
        )

    @property
    def cascade(self) -> tuple[DiffusionTraining, ...]:
        """The stages of a cascade; () where the recipe trains something else."""
        return tuple(stage for stage in self.stages if isinstance(stage, DiffusionTraining))
