"""Trains a base's draft, alone and before diffusion: caption in, coefficients of an image out.

Targets are projected once (`training/draft_examples.py`), so a step of training is a few matrix
products of some hundred captions.

Everything random is a function of the seed, and everything is kept in RUN/draft, so that a run
that was killed goes on there:

    RUN/draft/basis.safetensors                        basis, mean, and text statistics
    RUN/draft/main.safetensors, fold-0.safetensors     regressions, with their optimizers
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding, token_states
from calotype.config.diffusion import DiffusionTraining, DraftTrainingConfig
from calotype.config.typed_json import to_dict
from calotype.data.batch import BatchPlan
from calotype.data.batches import each_example
from calotype.data.cache import Prepared
from calotype.data.source import ExampleSource, evenly_spaced
from calotype.errors import CalotypeError, UsageError
from calotype.networks.draft import Draft
from calotype.storage.files import write_with
from calotype.tasks.captions import TextLookup
from calotype.tasks.draft_examples import Basis, DraftExamples, fit_basis, project_examples
from calotype.tasks.draft_folds import DraftFolds, draft_of, fold_of, text_conditioner
from calotype.training.optimizer import optimizer_tensors, restore_optimizer
from calotype.training.randomness import mixed_seed

FOLDER = "draft"
MOST_EXAMPLES = 1 << 16
"""Examples a draft is trained on, evenly spaced over the data: they are held in memory."""
BASIS_EXAMPLES = 1 << 13
"""Examples of the principal components."""
_BASIS = ("basis", "scale", "mean")  # tensors of a draft
_FORMAT = 2  # of the files; 1 had a basis of finished images
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
    _examples: DraftExamples | None = field(default=None, init=False)

    def train_main(self) -> None:
        """Fit the basis and train the draft itself.

        Raises:
            UsageError: the data are not enough for a basis.
            CalotypeError: the folder holds a draft of other data or settings.
        """
        draft = self._draft
        if not self._load_basis():
            found = fit_basis(self._images(BASIS_EXAMPLES), rank=draft.config.rank, seed=self._seed)
            draft.set_basis(found.components, found.mean)
            self._write_basis()
        self._regress("main", draft.regression, images=self._config.images, left_out=None)

    def keep_main(self) -> None:
        """Write down the draft that the stage has already, for `load_main`.

        Raises:
            CalotypeError: another draft was being trained in the folder.
        """
        known = self._read("main")
        if known is not None and int(known["steps"]) > 0:
            raise CalotypeError(
                f"{self.folder} holds a draft in training; go on with --only draft, or choose "
                "another --out"
            )
        self._write_basis()
        weights = {f"weights.{k}": t for k, t in self._draft.regression.state_dict().items()}
        self._write("main", weights, steps=0)

    def load_main(self) -> None:
        """Set the draft and the text statistics to those that the run began with.

        Raises:
            CalotypeError: the folder no longer holds them.
        """
        known = self._read("main")
        if known is None or not self._load_basis():
            raise CalotypeError(
                f"{self.folder} no longer holds the draft that the run began with; restore it, or "
                "begin a new run"
            )
        self._draft.regression.load_state_dict(_under("weights.", known))

    def train_folds(self, folds: DraftFolds) -> None:
        """Train new folds, on the draft's basis."""
        for number, regression in enumerate(folds.regressions):
            self._regress(
                f"fold-{number}", regression, images=self._config.fold_images, left_out=number
            )

    @property
    def _draft(self) -> Draft:
        draft = draft_of(self.stage)
        assert draft is not None  # the settings were checked
        return draft

    @property
    def _config(self) -> DraftTrainingConfig:
        assert self.config.draft is not None
        return self.config.draft

    @property
    def _seed(self) -> int:
        return self.config.seed

    def _write_basis(self) -> None:
        draft, pooling = self._draft, text_conditioner(self.stage).pooling
        statistics = {f"pooling.{k}": t for k, t in pooling.state_dict().items()}
        parts = {name: getattr(draft, name) for name in _BASIS}
        self._write("basis", {**parts, **statistics}, steps=0)

    @torch.no_grad()
    def _load_basis(self) -> bool:
        """Set basis and text statistics to those in the folder; False if it has none."""
        known = self._read("basis")
        if known is None:
            return False
        for name in _BASIS:
            getattr(self._draft, name).copy_(known[name])
        text_conditioner(self.stage).pooling.load_state_dict(_under("pooling.", known))
        return True

    def _regress(
        self, name: str, regression: nn.Module, *, images: int, left_out: int | None
    ) -> None:
        """Train one regression to its end, from where its file in the folder says."""
        config = self._config
        optimizer = torch.optim.AdamW(
            regression.requires_grad_(True).parameters(),
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=config.weight_decay,
            fused=True,
        )
        steps, start = (
            max(1, images // config.batch_size),
            self._resume(name, regression, optimizer),
        )
        if start < steps:
            examples, device = self._all_examples(), self.stage.device
            rows = torch.arange(len(examples.fold))
            if left_out is not None:
                rows = rows[examples.fold != left_out]
            if len(rows) == 0:
                raise UsageError(
                    f"got no example outside of fold {left_out}; expected more captions, or "
                    "draft.folds=0"
                )
            reduced = self.stage.compute_dtype != torch.float32
            saved = time.monotonic()
            for step in range(start, steps):
                generator = torch.Generator().manual_seed(mixed_seed(self._seed, step, name))
                text, target = examples.batch(config, rows, generator)
                for group in optimizer.param_groups:
                    group["lr"] = config.learning_rate * _rate(step, steps)
                with torch.autocast(device.type, dtype=self.stage.compute_dtype, enabled=reduced):
                    found = regression(text.to(device))
                loss = F.mse_loss(found.float(), target.to(device))
                optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                optimizer.step()
                if step % _REPORT_STEPS == 0 or step + 1 == steps:
                    if not math.isfinite(error := float(loss.detach())):
                        raise CalotypeError(
                            f"the error of the draft ({name}) is {error} at step {step}; "
                            "lower draft.learning_rate"
                        )
                    if time.monotonic() - saved > _SAVE_SECONDS or step + 1 == steps:
                        self._save(name, regression, optimizer, steps=step + 1)
                        saved = time.monotonic()
                    self._report(name, step + 1, steps, regression, optimizer)
            optimizer.zero_grad(set_to_none=True)
        regression.requires_grad_(False)

    def _report(
        self,
        name: str,
        done: int,
        steps: int,
        regression: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Show progress; where that asks for the end, keep what was learned."""
        size = self._config.batch_size
        try:
            self.progress(name, done * size, steps * size)
        except BaseException:
            self._save(name, regression, optimizer, steps=done)
            raise

    def _save(
        self, name: str, regression: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int
    ) -> None:
        moments = {f"optimizer.{k}": t for k, t in optimizer_tensors(optimizer).items()}
        weights = {f"weights.{k}": t for k, t in regression.state_dict().items()}
        self._write(name, {**weights, **moments}, steps=steps)

    def _resume(self, name: str, regression: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        """Put back what the folder holds of a regression; returns the steps it has taken."""
        known = self._read(name)
        if known is None:
            return 0
        regression.load_state_dict(_under("weights.", known))
        restore_optimizer(optimizer, _under("optimizer.", known))
        return int(known["steps"])

    def _write(self, name: str, tensors: Mapping[str, Tensor], *, steps: int) -> None:
        own = {k: t.detach().cpu().contiguous() for k, t in tensors.items()}
        own["steps"] = torch.tensor(steps)
        metadata = {"made_of": self._made_of(name)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_with(
            self.folder / f"{name}.safetensors",
            lambda path: save_file(own, path, metadata=metadata),
        )

    def _read(self, name: str) -> dict[str, Tensor] | None:
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                made_of = (file.metadata() or {}).get("made_of")
                tensors = {key: file.get_tensor(key) for key in file.keys()}
        except (OSError, SafetensorError) as error:
            raise CalotypeError(
                f"cannot read {path}: {error}; delete it to train it again"
            ) from error
        own = self._draft.basis.shape
        if name == "basis" and ("scale" not in tensors or tensors["basis"].shape != own):
            raise CalotypeError(
                f"got {path}, a draft of another calotype or rank; expected a basis of {tuple(own)}"
                ": begin a new run, with --init for its weights"
            )
        if made_of != self._made_of(name) and not self.begun:
            raise CalotypeError(
                f"got {path}, a draft of other data, settings or seed; expected those it was begun "
                "with: restore them, or choose another --out"
            )
        return tensors

    def _made_of(self, name: str) -> str:
        """All that decides a file of the folder, as a hash."""
        data = to_dict(self.config.data)
        data.pop("cache_bytes")
        # Under the names they had when drafts of before were made.
        data["crops_per_picture"] = data.pop("crops_per_image")
        data["broken_share"] = data.pop("broken_fraction")
        decides = [
            _FORMAT,
            to_dict(self._config),
            to_dict(self._draft.config),
            self._seed,
            name,
            data,
            self.source.fingerprint,
            self.config.text_encoder,
        ]
        if name.startswith("fold"):  # the basis may have come with weights to start from
            decides.append(self._draft.mean.double().sum().item())
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _images(self, most: int) -> Tensor:
        """RGBA images of evenly spaced examples, (N, side, side, 4) uint8."""
        examples = self._read_examples("basis", most)
        return torch.stack([torch.from_numpy(example.image) for example in examples])

    def _read_examples(self, name: str, most: int) -> Iterator[Prepared]:
        """Evenly spaced examples; progress is told of, and may end it."""
        source = evenly_spaced(self.source, most)
        for done, example in enumerate(each_example(source, self._plan), 1):
            yield example
            if done % self._plan.batch_size == 0:
                self.progress(name, done, len(source))

    @property
    def _plan(self) -> BatchPlan:
        return BatchPlan(
            resolution=self.config.stage.resolution,
            lowres_resolution=None,
            config=self.config.data,
            batch_size=64,
            seed=self._seed,
        )

    def _all_examples(self) -> DraftExamples:
        """The examples as coefficients of the draft's basis, projected once for all regressions."""
        if self._examples is None:
            draft = self._draft
            self._examples = project_examples(
                self._read_examples("projection", MOST_EXAMPLES),
                Basis(draft.components().cpu(), draft.mean.cpu()),
                variants=self.config.data.caption_variants,
                fold=partial(fold_of, folds=max(1, self._config.folds)),
                pool=self._pooled,
            )
        return self._examples

    @torch.no_grad()
    def _pooled(self, captions: Sequence[str]) -> Tensor:
        """Whitened text of captions, (T, D) on the CPU; of the first, the null caption, zeros."""
        pooling, device = text_conditioner(self.stage).pooling, self.stage.device
        parts = [torch.zeros(1, self.config.stage.network.text_dim)]
        for start in range(1, len(captions), 1024):
            text = token_states(self.lookup(captions[start : start + 1024]))
            text = TextEmbedding(text.tokens.float(), text.mask).to(device)
            parts.append(pooling(text).cpu())
        return torch.cat(parts)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: warm-up, constant, and half a cosine over the second half."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    progress = max(0.0, (step / steps - _DECAY_FROM) / (1 - _DECAY_FROM))
    return warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))
