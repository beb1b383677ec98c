"""Trains a base's draft, alone and before diffusion: caption in, coefficients of an image out.

The basis are the principal components of the training images, on white and on random grounds. A
ground enters an image linearly, x = alpha * image + (1 - alpha) * ground, so image and ground are
projected once, apart, and a step of training is three matrix products of a few hundred captions.

A base that is trained on drafts of captions which the draft knows by heart trusts it blindly. So
further drafts, the folds, are trained without one part of the captions each, and a part of the
base's rows is conditioned on the draft that never saw their caption.

Everything random is a function of the seed, and everything is kept in RUN/draft, so that a run
that was killed goes on there:

    RUN/draft/basis.safetensors                        basis and mean
    RUN/draft/main.safetensors, fold-0.safetensors     regressions, with their optimizers
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from calotype.cascade.files import write_with
from calotype.cascade.stage import Stage
from calotype.conditioning import TextEmbedding
from calotype.config import DraftTrainingConfig, TrainConfig, to_dict
from calotype.data.batches import BatchPlan, each_example
from calotype.data.source import ExampleSource, evenly_spaced
from calotype.errors import CalotypeError, UsageError
from calotype.networks import UNet
from calotype.networks.draft import CoefficientRegression, Draft
from calotype.networks.text import TextConditioner
from calotype.training.optimizer import optimizer_tensors, restore_optimizer
from calotype.training.randomness import mixed_seed
from calotype.training.text import TextLookup

FOLDER = "draft"
MOST_EXAMPLES = 1 << 16
"""Examples a draft is trained on, evenly spaced over the data: they are held in memory."""
BASIS_EXAMPLES = 1 << 13
"""Examples of the principal components, each on two grounds."""
_WARMUP_STEPS = 50
_DECAY_FROM = 0.5
_FINAL_RATE = 0.003
_SAVE_SECONDS = 30.0
_REPORT_STEPS = 20
Progress = Callable[[str, int, int], None]


def draft_of(stage: Stage) -> Draft | None:
    """The draft of a stage's network, if it has one."""
    return stage.network.draft if isinstance(stage.network, UNet) else None


def text_conditioner(stage: Stage) -> TextConditioner:
    """What pools the captions of a network with a draft."""
    assert isinstance(stage.network, UNet) and stage.network.condition.text is not None
    return stage.network.condition.text


def freeze_draft(stage: Stage) -> None:
    """Leave the draft as `train_draft` made it."""
    draft = draft_of(stage)
    if draft is not None:
        draft.requires_grad_(False)


def fold_of(caption: str, folds: int) -> int:
    """Which fold leaves out the examples whose first caption this is, 0 to `folds` - 1."""
    digest = hashlib.blake2b(caption.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % folds


class DraftFolds(nn.Module):
    """A trained draft and its folds, which are a fraction of a base's training examples.

    Args:
        pooling: of the captions, as the draft was trained with.
        draft: has seen every caption.
        regressions: one a fold, like that of `draft`, to coefficients of the same basis.
    """

    def __init__(self, pooling: nn.Module, draft: Draft, regressions: nn.ModuleList) -> None:
        super().__init__()
        self.pooling = pooling
        self.draft = draft
        self.regressions = regressions

    def __len__(self) -> int:
        """Number of folds."""
        return len(self.regressions)

    @torch.no_grad()
    def forward(self, text: TextEmbedding, fold: Tensor) -> Tensor:
        """The drafts of B captions, (B, 3, side, side), each by its `fold`, (B,); -1 = `draft`."""
        pooled = self.pooling(text)
        regressions = (self.draft.regression, *self.regressions)
        coefficients = torch.stack([regression(pooled) for regression in regressions])
        rows = torch.arange(len(pooled), device=pooled.device)
        return self.draft.image(coefficients[fold.to(pooled.device) + 1, rows])


@dataclass(frozen=True)
class DraftExamples:
    """Training examples in the space of the coefficients.

    Args:
        image: coefficients of the images on black, less the mean image, (N, R).
        ground: coefficients of a red, a green and a blue ground of 1 behind them, (N, 3, R).
        pooled: whitened text of all captions, (T, D); the first is the null caption.
        captions: which of them each example has, (N, V); `counts`, (N,), says how many count.
        counts: captions of each example.
        colours: ground that each of its captions asks for, (N, V, 3) in [0, 1].
        fold: which fold leaves the example out, (N,).
    """

    image: Tensor
    ground: Tensor
    pooled: Tensor
    captions: Tensor
    counts: Tensor
    colours: Tensor
    fold: Tensor

    def batch(
        self, config: DraftTrainingConfig, rows: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Text (B, D), augmented, and coefficients (B, R) of `batch_size` examples of `rows`."""
        size = config.batch_size
        chosen = rows[torch.randint(len(rows), (size,), generator=generator)]
        place = (torch.rand(size, generator=generator) * self.counts[chosen]).long()
        place[torch.rand(size, generator=generator) < config.plain_fraction] = 0
        text = self.pooled[self.captions[chosen, place]]
        spread = config.text_noise * torch.rand(size, 1, generator=generator)
        text = text + spread * torch.randn(text.shape, generator=generator)
        kept = torch.rand(text.shape, generator=generator) >= config.text_dropout
        text = text * kept / max(1 - config.text_dropout, 1e-6)
        colours = self.colours[chosen, place]
        return text, self.image[chosen] + torch.einsum("bc,bcr->br", colours, self.ground[chosen])


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
    """

    stage: Stage
    source: ExampleSource
    lookup: TextLookup
    config: TrainConfig
    folder: Path
    progress: Progress
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
            with torch.no_grad():
                draft.basis.copy_(found.basis)
                draft.mean.copy_(found.mean)
            self._write_basis()
        self._regress("main", draft.regression, images=self._config.images, left_out=None)

    def keep_main(self) -> None:
        """Write down the draft that the stage has already, for `load_main`."""
        self._write_basis()
        weights = {f"weights.{k}": t for k, t in self._draft.regression.state_dict().items()}
        self._write("main", weights, steps=0)

    def load_main(self) -> None:
        """Set the draft and the text statistics to those that the run began with.

        Raises:
            CalotypeError: the folder no longer holds them, or those of other data or settings.
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
        self._write("basis", {"basis": draft.basis, "mean": draft.mean, **statistics}, steps=0)

    @torch.no_grad()
    def _load_basis(self) -> bool:
        """Set basis and text statistics to those in the folder; False if it has none."""
        known = self._read("basis")
        if known is None:
            return False
        self._draft.basis.copy_(known["basis"])
        self._draft.mean.copy_(known["mean"])
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
        steps, start = max(1, images // config.batch_size), self._resume(name, regression, optimizer)
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
                with torch.autocast(
                    device.type, dtype=self.stage.compute_dtype, enabled=reduced
                ):
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
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise CalotypeError(f"cannot read {path}: {error}; delete it to train it again") from error
        if made_of != self._made_of(name):
            raise CalotypeError(
                f"got {path}, a draft of other data, settings or seed; expected those it was begun "
                "with: restore them, or choose another --out"
            )
        return tensors

    def _made_of(self, name: str) -> str:
        """All that decides a file of the folder, as a hash."""
        data = to_dict(self.config.data)
        data.pop("cache_bytes")
        decides = [
            to_dict(self._config),
            to_dict(self._draft.config),
            self._seed,
            name,
            data,
            self.source.fingerprint,
            self.config.text_encoder,
        ]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def _images(self, most: int) -> Tensor:
        """RGBA images of evenly spaced examples, (N, side, side, 4) uint8."""
        return torch.stack(
            [
                torch.from_numpy(example.image)
                for example in each_example(evenly_spaced(self.source, most), self._plan)
            ]
        )

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
            draft, folds = self._draft, max(1, self._config.folds)
            basis, mean = draft.basis.detach().cpu(), draft.mean.detach().cpu()
            known: dict[str, int] = {"": 0}
            image, ground, captions, colours, fold = [], [], [], [], []
            variants = self.config.data.caption_variants
            for example in each_example(evenly_spaced(self.source, MOST_EXAMPLES), self._plan):
                layers = image_and_grounds(torch.from_numpy(example.image)[None])
                layers[:, 0] -= mean
                coefficients = layers[0] @ basis.T
                image.append(coefficients[0])
                ground.append(coefficients[1:])
                texts = example.captions[:variants]
                own = [known.setdefault(text.text.strip(), len(known)) for text in texts] or [0]
                captions.append(torch.tensor(own))
                white = (255, 255, 255)
                painted = [white if t.background is None else t.background for t in texts]
                colours.append(torch.tensor(painted or [white]) / 255)
                fold.append(fold_of(texts[0].text if texts else "", folds))
            if len(known) == 1:
                raise UsageError("got no captions to make drafts of; expected captions, or no draft")
            self._examples = DraftExamples(
                torch.stack(image),
                torch.stack(ground),
                self._pooled(list(known)),
                nn.utils.rnn.pad_sequence(captions, batch_first=True),
                torch.tensor([len(own) for own in captions]),
                nn.utils.rnn.pad_sequence(colours, batch_first=True),
                torch.tensor(fold),
            )
        return self._examples

    @torch.no_grad()
    def _pooled(self, captions: Sequence[str]) -> Tensor:
        """Whitened text of captions, (T, D) on the CPU; of the first, the null caption, zeros."""
        pooling, device = text_conditioner(self.stage).pooling, self.stage.device
        parts = [torch.zeros(1, self.config.stage.network.text_dim)]
        for start in range(1, len(captions), 1024):
            text = self.lookup(captions[start : start + 1024])
            text = TextEmbedding(text.tokens.float(), text.mask).to(device)
            parts.append(pooling(text).cpu())
        return torch.cat(parts)


def new_folds(stage: Stage, config: TrainConfig) -> DraftFolds:
    """Folds of random weights, a function of the seed, with copies of the stage's draft and pooling.

    Copies, since the stage's own may become shards on several processes.
    """
    draft, conditioner = draft_of(stage), text_conditioner(stage)
    assert draft is not None and config.draft is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(config.seed, 0, "draft folds"))
        made = [
            CoefficientRegression(
                config.stage.network.text_dim, draft.config.width, draft.config.rank
            )
            for _ in range(config.draft.folds)
        ]
    regressions = nn.ModuleList(made).to(stage.device)
    pooling, copied = copy.deepcopy(conditioner.pooling), copy.deepcopy(draft)
    return DraftFolds(pooling, copied, regressions).requires_grad_(False)


@dataclass(frozen=True)
class Basis:
    """Principal components of images: orthonormal rows, (R, 3 * side²), and the mean image."""

    basis: Tensor
    mean: Tensor


def image_and_grounds(pixels: Tensor) -> Tensor:
    """What an image on any plain ground is a sum of.

    Args:
        pixels: straight-alpha RGBA, (B, side, side, 4) uint8.

    Returns:
        (B, 4, 3 * side²): the image on black, in [-1, 1], and what a red, a green and a blue ground
        of 1 would add to it.
    """
    rgba = pixels.permute(0, 3, 1, 2).float() / 255
    alpha = rgba[:, 3:]
    image = (2 * rgba[:, :3] * alpha - 1).flatten(1)
    behind = 2 * (1 - alpha).flatten(1)
    grounds = torch.zeros(len(pixels), 3, 3, behind.shape[1])
    grounds[:, range(3), range(3)] = behind[:, None]
    return torch.cat((image[:, None], grounds.flatten(2)), 1)


def fit_basis(pixels: Tensor, *, rank: int, seed: int) -> Basis:
    """Principal components of images, each once on white and once on a random ground.

    Args:
        pixels: straight-alpha RGBA, (N, side, side, 4) uint8.
        rank: components.
        seed: of the grounds, and of the randomized decomposition (Halko et al. 2011,
            arXiv:0909.4061).

    Raises:
        UsageError: there are fewer images than components, or all are alike.
    """
    if 2 * len(pixels) <= rank:
        raise UsageError(
            f"got {len(pixels)} images for a draft of rank {rank}; expected more than "
            f"{rank // 2} images, or a smaller stage.network.draft.rank"
        )
    generator = torch.Generator().manual_seed(mixed_seed(seed, 0, "draft grounds"))
    colours = torch.ones(2, len(pixels), 3)
    colours[1] = torch.rand(len(pixels), 3, generator=generator)
    images = []
    for chosen in colours:
        for start in range(0, len(pixels), 256):
            layers = image_and_grounds(pixels[start : start + 256])
            grounds = torch.einsum("bc,bcp->bp", chosen[start : start + 256], layers[:, 1:])
            images.append(layers[:, 0] + grounds)
    x = torch.cat(images)
    mean = x.mean(0)
    x -= mean
    if float(x.abs().max()) < 1e-6:
        raise UsageError(
            f"got {len(pixels)} images that are all alike; expected different images to make a "
            "draft's basis of"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mixed_seed(seed, 0, "draft basis"))
        components = torch.svd_lowrank(x, q=min(rank + 64, *x.shape), niter=4)[2]
    return Basis(components[:, :rank].T.contiguous(), mean)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _rate(step: int, steps: int) -> float:
    """Fraction of the peak rate: warm-up, constant, and half a cosine over the second half."""
    warmup = min(1.0, (step + 1) / _WARMUP_STEPS)
    progress = max(0.0, (step / steps - _DECAY_FROM) / (1 - _DECAY_FROM))
    return warmup * (_FINAL_RATE + (1 - _FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * progress)))
