"""Pre-trains a base's draft, alone and before diffusion: caption in, coefficients of an image out.

Targets are projected once (`tasks/draft_examples.py`), so a step of training is a few matrix
products of some hundred captions. Everything random is a function of the seed, and everything is
kept in RUN/draft (`tasks/draft_files.py`), so that a run that was killed resumes there.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding, token_states
from calotype.config.diffusion import DiffusionTraining
from calotype.data.batch import BatchPlan
from calotype.data.batches import each_example
from calotype.data.cache import Prepared
from calotype.data.source import ExampleSource, evenly_spaced
from calotype.errors import CalotypeError, UsageError
from calotype.tasks.captions import TextLookup
from calotype.tasks.draft_examples import Basis, DraftExamples, fit_basis, project_examples
from calotype.tasks.draft_files import DraftFiles
from calotype.tasks.draft_folds import DraftFolds, draft_of, fold_of, text_conditioner
from calotype.training.optimizer import set_learning_rate
from calotype.training.randomness import mixed_seed

MOST_EXAMPLES = 1 << 16
"""Examples a draft is trained on, evenly spaced over the data: they are held in memory."""
BASIS_EXAMPLES = 1 << 13
"""Examples of the principal components."""
_WARMUP_STEPS = 50
_DECAY_FROM = 0.5
_FINAL_RATE = 0.003
_SAVE_SECONDS = 30.0
_REPORT_STEPS = 20
Progress = Callable[[str, int, int], None]


@dataclass
class DraftTraining:
    """Trains the draft and the folds of a stage, and keeps them in a folder.

    Args:
        stage: with its text statistics already set.
        source: of examples.
        lookup: captions -> embeddings.
        config: of the stage; `config.draft` says how long.
        folder: RUN/draft.
        progress: gets (what is trained, images seen, images in all); may raise to stop.
        begun: diffusion has begun, and what is in the folder is taken as it is.
    """

    stage: Stage
    source: ExampleSource
    lookup: TextLookup
    config: DiffusionTraining
    folder: Path
    progress: Progress
    begun: bool = False

    def __post_init__(self) -> None:
        draft = draft_of(self.stage)
        assert draft is not None and self.config.draft is not None  # the settings were checked
        self._draft, self._settings = draft, self.config.draft
        self._pooling = text_conditioner(self.stage).pooling
        self._files = DraftFiles(
            self.folder, draft, self._pooling, self.config, self.source.fingerprint, self.begun
        )

    def train_main(self) -> None:
        """Fit the basis and train the draft itself.

        Raises:
            UsageError: the data are not enough for a basis.
            CalotypeError: the folder holds a draft of other data or settings.
        """
        draft = self._draft
        if not self._files.read_basis():
            examples = self._read_examples("basis", BASIS_EXAMPLES)
            pixels = torch.stack([torch.from_numpy(example.image) for example in examples])
            found = fit_basis(pixels, rank=draft.config.rank, seed=self.config.seed)
            draft.set_basis(found.components, found.mean)
            self._files.write_basis()
        self._regress("main", draft.regression, images=self._settings.images, left_out=None)

    def keep_main(self) -> None:
        """Write down the draft that the stage has already, for `load_main`.

        Raises:
            CalotypeError: another draft was being trained in the folder.
        """
        regression = self._draft.regression
        if self._files.read("main", copy.deepcopy(regression)):
            raise CalotypeError(
                f"{self.folder} holds a draft in training; continue with --only draft, or choose "
                "another --out"
            )
        self._files.write_basis()
        self._files.write("main", regression, steps=0)

    def load_main(self) -> None:
        """Set the draft and the text statistics to those that the run began with.

        Raises:
            CalotypeError: the folder no longer holds them.
        """
        if self._files.read("main", self._draft.regression) is None or not self._files.read_basis():
            raise CalotypeError(
                f"{self.folder} no longer holds the draft that the run began with; restore it, or "
                "begin a new run"
            )

    def train_folds(self, folds: DraftFolds) -> None:
        """Train new folds, on the draft's basis."""
        images = self._settings.fold_images
        for number, regression in enumerate(folds.regressions):
            self._regress(f"fold-{number}", regression, images=images, left_out=number)

    @torch.no_grad()
    def measure_spread(self, folds: DraftFolds | None = None) -> None:
        """Measure how far images lie from drafts that never saw their captions; and set it in both.

        Without folds, from the draft itself, which knows them better than others.
        """
        draft, spread = self._draft, self._draft.spread
        if spread is None:
            return
        if not self._files.read_spread():
            examples = self._examples
            text = examples.pooled[examples.captions[:, 0]].to(spread.device)
            residual = examples.image.clone()
            for number, regression in enumerate(
                [draft.regression] if folds is None else folds.regressions
            ):
                rows = slice(None) if folds is None else examples.fold == number
                residual[rows] -= regression(text[rows])[:, : len(spread)].cpu()
            spread.copy_(residual.square().mean(0))
            self._files.write_spread()
        if folds is not None:
            cast(Tensor, folds.draft.spread).copy_(spread)

    def _regress(
        self, name: str, regression: nn.Module, *, images: int, left_out: int | None
    ) -> None:
        """Train one regression to its end, from where its file in the folder says."""
        config, files = self._settings, self._files
        optimizer = torch.optim.AdamW(
            regression.requires_grad_(True).parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        size, steps = config.batch_size, max(1, images // config.batch_size)
        start = files.read(name, regression, optimizer) or 0
        if start < steps:
            rows = self._rows(left_out)
        saved = time.monotonic()
        for step in range(start, steps):
            generator = torch.Generator().manual_seed(mixed_seed(self.config.seed, step, name))
            text, target = self._examples.batch(config, rows, generator)
            set_learning_rate(optimizer, config.learning_rate * _rate(step, steps))
            loss = self._loss(regression, text, target)
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            optimizer.step()
            last = step + 1 == steps
            if step % _REPORT_STEPS and not last:
                continue
            if not math.isfinite(error := float(loss.detach())):
                raise CalotypeError(
                    f"the error of the draft ({name}) is {error} at step {step}; "
                    "lower draft.learning_rate"
                )
            due = True
            try:
                self.progress(name, (step + 1) * size, steps * size)
                due = last or time.monotonic() - saved > _SAVE_SECONDS
            finally:  # progress may ask for the end
                if due:
                    files.write(name, regression, optimizer, steps=step + 1)
                    saved = time.monotonic()
        optimizer.zero_grad(set_to_none=True)
        regression.requires_grad_(False)

    def _loss(self, regression: nn.Module, text: Tensor, target: Tensor) -> Tensor:
        device, dtype = self.stage.device, self.stage.compute_dtype
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            found = regression(text.to(device))
        return F.mse_loss(found.float(), target.to(device))

    def _rows(self, left_out: int | None) -> Tensor:
        """Numbers of the examples that are trained on: all but those of one fold."""
        rows = torch.arange(len(self._examples.fold))
        if left_out is not None:
            rows = rows[self._examples.fold != left_out]
        if len(rows) == 0:
            raise UsageError(
                f"got no example outside of fold {left_out}; expected more captions, or "
                "draft.folds=0"
            )
        return rows

    @cached_property
    def _examples(self) -> DraftExamples:
        """The examples as coefficients of the draft's basis, projected once for all regressions."""
        draft = self._draft
        return project_examples(
            self._read_examples("projection", MOST_EXAMPLES),
            Basis(draft.components().cpu(), draft.mean.cpu()),
            variants=self.config.data.caption_variants,
            fold=partial(fold_of, folds=max(1, self._settings.folds)),
            pool=self._pooled,
        )

    def _read_examples(self, name: str, most: int) -> Iterator[Prepared]:
        """Evenly spaced examples; `progress` hears of them, and may end it."""
        source = evenly_spaced(self.source, most)
        plan = BatchPlan(
            resolution=self.config.stage.resolution,
            lowres_resolution=None,
            config=self.config.data,
            batch_size=64,
            seed=self.config.seed,
        )
        for done, example in enumerate(each_example(source, plan), 1):
            yield example
            if done % plan.batch_size == 0:
                self.progress(name, done, len(source))

    @torch.no_grad()
    def _pooled(self, captions: Sequence[str]) -> Tensor:
        """Whitened text of captions, (T, D) on the CPU; of the first, the null caption, zeros."""
        parts = [torch.zeros(1, self.config.stage.network.text_dim)]
        for start in range(1, len(captions), 1024):
            text = token_states(self.lookup(captions[start : start + 1024]))
            text = TextEmbedding(text.tokens.float(), text.mask).to(self.stage.device)
            parts.append(self._pooling(text).cpu())
        return torch.cat(parts)


def _rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: warm-up, constant, and half a cosine over the second half."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    progress = max(0.0, (step / steps - _DECAY_FROM) / (1 - _DECAY_FROM))
    return warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))
