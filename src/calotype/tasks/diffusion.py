"""The task of one diffusion stage of a cascade: its loss, its conditioning, how it is judged."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.cascade.find import CASCADE_FOLDER
from calotype.cascade.io import save_cascade
from calotype.cascade.lora import save_lora, trained_lora
from calotype.cascade.objective import Objective
from calotype.cascade.stage import Stage
from calotype.cascade.stage_edit import KnownPixels
from calotype.conditioning import Conditioning, Text, token_states
from calotype.config.diffusion import DiffusionTraining
from calotype.config.recipe import Recipe
from calotype.data.batch import Batch, BatchPlan
from calotype.diffusion import DiscreteSchedule, Weighting, min_snr_weighting, sigmoid_weighting
from calotype.networks.adm_blocks import TextNorm, TextProjection
from calotype.networks.blocks import Block
from calotype.networks.lora import merge_adapters, train_adapters
from calotype.networks.transformer import TransformerLayer
from calotype.storage.files import make_folder
from calotype.tasks.captions import TextLookup
from calotype.tasks.cost import TrainingCost, training_cost
from calotype.tasks.draft_folds import DraftFolds, fold_of, freeze_draft
from calotype.tasks.estimates import LowresEstimates
from calotype.tasks.grid import save_preview
from calotype.tasks.importance import LossHistory
from calotype.tasks.level_losses import loss_by_level
from calotype.tasks.masks import known_masks
from calotype.tasks.random_numbers import PreparedNoise, StepNumbers, step_numbers, whole_timesteps
from calotype.tasks.validation import Probe, bits_per_dimension, errors_by_level, numbered
from calotype.training.randomness import Rows, seed_networks
from calotype.training.run_folder import LORA_FOLDER
from calotype.training.task import Task

_WEIGHTINGS: dict[str, Weighting | None] = {
    "none": None,
    "min_snr": min_snr_weighting(),
    "sigmoid": sigmoid_weighting(),
}


@dataclass(frozen=True)
class DiffusionInputs(Rows):
    """Rows of a step, on the CPU.

    Args:
        x: clean images, (B, 3, H, W) in [-1, 1].
        text: of their captions; None for a network without text.
        lowres: low-resolution images, (B, 3, h, w); None for a base.
        known: what in-painting is given, (B, 4, H, W): see `Conditioning.extra`; or None.
        first_captions: say which fold of the draft never saw a row.
        numbers: all that is random.
        classes: numbers of classes, (B,) int64; None for a network without them.
    """

    x: Tensor
    text: Text | None
    lowres: Tensor | None
    known: Tensor | None
    first_captions: tuple[str, ...]
    numbers: StepNumbers
    classes: Tensor | None = None


@dataclass(eq=False)
class DiffusionTask(Task[StepNumbers, DiffusionInputs]):
    """One stage and everything it is trained with; a `Task`.

    Args:
        config: of the stage.
        model: the stage.
        text: captions -> embeddings; None for a network without text.
        drafts: the draft and its folds, for a base whose rows are conditioned on either, or None.
        estimates: of low-resolution images by the stage before, or None.
        unseen: fixed examples to validate on, or None.
        trained: as many that are trained on, or None.
        tokenizer: specification of the run's own copy, which goes into its cascades; None where it
            has none.
    """

    config: DiffusionTraining
    model: Stage
    text: TextLookup | None = None
    drafts: DraftFolds | None = None
    estimates: LowresEstimates | None = None
    unseen: Probe | None = None
    trained: Probe | None = None
    tokenizer: str | None = None
    shard_units: tuple[type[nn.Module], ...] = (
        Block,
        TextNorm,
        TextProjection,
        TransformerLayer,
    )
    measured: str = "sigma "
    memory: Mapping[str, Tensor] = field(init=False)

    def __post_init__(self) -> None:
        schedule, config = self.model.schedule, self.config
        self._history: LossHistory | None = None
        if config.bound_alone and isinstance(schedule, DiscreteSchedule):
            self._history = LossHistory(schedule.steps)
        self.memory = {} if self._history is None else {"losses": self._history.losses}
        self._objective = Objective(
            _WEIGHTINGS[config.weighting], config.vlb_weight, config.bound_alone
        )

    @property
    def key(self) -> int:
        """The stage's resolution."""
        return self.config.stage.resolution

    @property
    def name(self) -> str:
        """The stage's resolution, with its unit."""
        return f"{self.key}px"

    @property
    def fingerprint(self) -> str | None:
        """Of the stage that estimates low-resolution images."""
        return None if self.estimates is None else self.estimates.sha256

    def batch_plan(self) -> BatchPlan:
        """Images of the stage, or crops of them, with what the stage enlarges."""
        config, estimates = self.config, self.estimates
        whole = estimates is not None and estimates.of_whole_images and config.data.crop is not None
        return BatchPlan(
            resolution=config.stage.resolution,
            lowres_resolution=config.stage.lowres_resolution,
            config=config.data,
            batch_size=config.batch_size,
            seed=config.seed,
            whole_lowres=whole,
            alpha=config.masks is not None and config.masks.silhouettes.fraction > 0,
        )

    def random_numbers(self, batch: Batch, position: int) -> StepNumbers:
        """Noise, levels, dropped captions, and what of the low-resolution images is estimated."""
        shape = torch.Size((batch.images, *batch.x.shape[1:]))
        estimated = None if self.estimates is None else self.estimates.shape(batch)
        return step_numbers(
            self.config,
            self.model.schedule,
            position,
            shape=shape,
            estimated=estimated,
            probabilities=None if self._history is None else self._history.probabilities(),
        )

    def inputs(self, batch: Batch, numbers: StepNumbers) -> DiffusionInputs:
        """Captions looked up, low-resolution images estimated."""
        text = None if self.text is None else self.text(batch.captions)
        lowres = batch.lowres
        if self.estimates is not None:
            lowres = self.estimates(batch, text, numbers)
        known = None
        if self.config.masks is not None and numbers.masks is not None:
            x = batch.x
            alpha = x.new_ones(len(x), 1, *x.shape[2:]) if batch.alpha is None else batch.alpha
            known = KnownPixels(x, known_masks(self.config.masks, numbers.masks, alpha)).channels()
        classes = numbered(batch.labels, self.config.stage, keys=batch.keys)
        return DiffusionInputs(batch.x, text, lowres, known, batch.first_captions, numbers, classes)

    def losses(self, inputs: DiffusionInputs) -> Tensor:
        """The loss of each image, (B,)."""
        device, numbers = self.model.device, inputs.numbers
        x = inputs.x.to(device=device, memory_format=torch.channels_last)
        cond = self._condition(inputs, size=(x.shape[2], x.shape[3]))
        if inputs.classes is not None and numbers.keep_class is not None:
            cond = replace(cond, classes=inputs.classes.to(device)).drop_classes(numbers.keep_class)
        if inputs.known is not None:
            cond = replace(cond, extra=inputs.known.to(device))
        if self.drafts is not None:
            cond = self._with_drafts(cond, self.drafts, inputs)
        logsnr, eps = numbers.logsnr.to(device), numbers.eps.to(device)
        losses = self.model.loss(x, cond, logsnr, eps, objective=self._objective)
        weights = numbers.loss_weights
        return losses if weights is None else losses * weights.to(losses)

    def remember(self, losses: Tensor, numbers: StepNumbers) -> None:
        """Of timesteps that are taken by their losses, the losses as they were."""
        if self._history is not None and numbers.loss_weights is not None:
            timesteps = whole_timesteps(self.model.schedule, numbers.logsnr)
            self._history.add(timesteps, losses / numbers.loss_weights)

    def _condition(self, inputs: DiffusionInputs, *, size: tuple[int, int]) -> Conditioning:
        """Conditioning in training: captions dropped, low-resolution images noised."""
        stage, numbers, text = self.model, inputs.numbers, inputs.text
        if text is not None:
            text = text.drop(numbers.keep).to(stage.device)
        if inputs.lowres is None or numbers.aug_level is None or numbers.aug_noise is None:
            return Conditioning(text)
        return stage.lowres_condition(
            inputs.lowres.to(stage.device),
            text,
            size=size,
            aug_level=numbers.aug_level,
            noise=PreparedNoise(numbers.aug_noise),
        )

    def _with_drafts(
        self, cond: Conditioning, drafts: DraftFolds, inputs: DiffusionInputs
    ) -> Conditioning:
        """Give each row the draft of the fold that never saw its caption, or of all captions."""
        numbers = inputs.numbers
        assert numbers.folded is not None
        folds = torch.tensor([fold_of(caption, len(drafts)) for caption in inputs.first_captions])
        folds[~(numbers.folded & numbers.keep)] = -1
        return replace(cond, draft=drafts(token_states(cond.text), folds, cond.extra))

    def log(self, losses: Tensor, numbers: StepNumbers) -> Mapping[str, Any]:
        """The loss by noise level."""
        return loss_by_level(losses, numbers.logsnr)

    def cost(self, processes: int) -> TrainingCost:
        """FLOPs of an image, beside the measured peak."""
        stage = self.model
        return training_cost(
            self.config, str(stage.device), stage.compute_dtype, processes=processes
        )

    def validate(self, average: nn.Module) -> dict[str, dict[str, float]]:
        """Errors by noise level, on examples that are not trained on and on some that are.

        Of a learned variance the bound, too, in bits per dimension: `vlb`.
        """
        stage = cast(Stage, average)
        probes = {"validation": self.unseen, "trained": self.trained}
        errors = dict[str, dict[str, float]]()
        for name, probe in probes.items():
            if probe is not None:
                errors[name] = errors_by_level(stage, probe, self.text)
                if self.config.learns_variance:
                    bits = bits_per_dimension(stage, probe, self.text)
                    errors[name]["vlb"] = float(bits.mean())
        if self.unseen is not None and self.unseen.known is not None:
            errors["holes"] = errors_by_level(stage, self.unseen, self.text, in_holes=True)
        return errors

    def preview(self, average: nn.Module, path: Path) -> None:
        """Samples of the fixed captions; of a super-resolution stage and of holes, of examples."""
        stage, captions = cast(Stage, average), self.config.grid_captions
        save_preview(stage, path, self.unseen, captions=captions, text=self.text)

    def exported(self, average: nn.Module) -> Stage:
        """The stage; where it has adapters, a copy with these added to its weights."""
        stage = cast(Stage, average)
        if self.config.lora is not None:
            stage = copy.deepcopy(stage)
            merge_adapters(stage.network)
        return stage

    def write_beside(self, run: Path, average: nn.Module, images: int) -> None:
        """The adapters alone, in RUN/lora."""
        if self.config.lora is not None:
            make_folder(run / LORA_FOLDER)
            path = run / LORA_FOLDER / f"{images}-{self.key}.safetensors"
            save_lora(trained_lora(cast(Stage, average), self.config.lora), path)

    def write_model(
        self, checkpoint: Path, average: nn.Module, earlier: Sequence[nn.Module], recipe: Recipe
    ) -> None:
        """A cascade of all stages so far."""
        encoder = self.tokenizer or recipe.cascade[0].text_encoder
        if all(one.stage.network.text_dim == 0 for one in recipe.cascade):
            encoder = "none"
        save_cascade(
            checkpoint / CASCADE_FOLDER,
            stages=[*cast(Sequence[Stage], earlier), self.exported(average)],
            text_encoder=encoder,
            name=recipe.name,
        )


def new_stage(config: DiffusionTraining, *, device: str, dtype: torch.dtype) -> Stage:
    """A stage with initial weights, which depend on the seed and the resolution alone."""
    seed_networks(config.seed, config.stage.resolution, part=-1)
    stage = Stage(config.stage).to(device)
    freeze_draft(stage.network)
    if config.lora is not None:  # after it: adapters of the draft may move
        train_adapters(stage.network, config.lora)
    cast(Any, stage).to(memory_format=torch.channels_last)
    stage.compute_dtype = dtype
    stage.train()
    return stage
