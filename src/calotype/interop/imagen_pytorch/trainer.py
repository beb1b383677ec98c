"""`ImagenTrainer` with the arguments of imagen-pytorch 2.1.0, over this library's training code.

AdamW, learning rates and averages are those of `calotype.training`; lengths are counted in updates.
Every U-Net has its own optimizer, and several may be trained in one process.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from calotype.errors import ConfigError, UsageError
from calotype.interop.imagen_pytorch import batches, checkpoint
from calotype.interop.imagen_pytorch.batches import TRAINING, VALIDATION, Feeds
from calotype.interop.imagen_pytorch.cascade import CascadedUnets
from calotype.interop.imagen_pytorch.options import CudaOptional
from calotype.interop.imagen_pytorch.presets import NullUnet
from calotype.interop.imagen_pytorch.trainer_config import read_trainer_settings
from calotype.training.ema import EMA
from calotype.training.learning_rate import learning_rate
from calotype.training.optimizer import build_optimizer, set_learning_rate


class ImagenTrainer(CudaOptional):
    """Trains the U-Nets of a cascade; samples with averaged weights.

    Args:
        imagen: the cascade.
        imagen_checkpoint_path: or a file of `save`, or a converted folder, to make it from.
        **arguments: the fields of `TrainerSettings`.

    Raises:
        ConfigError: an argument is unknown, out of range, or not offered here.
    """

    is_main = is_local_main = True  # there is one process
    is_distributed = False

    def __init__(
        self,
        imagen: CascadedUnets | None = None,
        imagen_checkpoint_path: str | Path | None = None,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.settings = read_trainer_settings(arguments)
        self._fp16 = self.settings.dtype == "fp16"
        if (imagen is None) == (imagen_checkpoint_path is None):
            raise ConfigError("got both or none of imagen and imagen_checkpoint_path; give one")
        if imagen_checkpoint_path is not None:
            imagen = checkpoint.cascade_from(Path(imagen_checkpoint_path))
        if not isinstance(imagen, CascadedUnets):
            raise ConfigError(f"got a {type(imagen).__name__}; expected an Imagen")
        self.imagen = imagen
        self.num_unets = len(imagen.unets)
        self.schedules = self.settings.schedules(self.num_unets)
        self.optimizers = [
            build_optimizer(unet, schedule.optimizer)
            for unet, schedule in zip(imagen.unets, self.schedules, strict=True)
        ]
        scaled = self._fp16 and torch.cuda.is_available()
        self.scalers = [torch.amp.GradScaler("cuda", enabled=scaled) for _ in self.schedules]
        self.averages: list[EMA] = []
        self.ema_unets = nn.ModuleList()
        if self.settings.use_ema:
            halflife = self.settings.ema_halflife
            self.averages = [EMA(unet, halflife_images=halflife) for unet in imagen.unets]
            self.ema_unets.extend(average.averaged() for average in self.averages)
        self.register_buffer("steps", torch.zeros(self.num_unets, dtype=torch.int64))
        self.steps: Tensor
        self.feeds = feeds = Feeds(self.settings)
        self.add_train_dataset = partial(feeds.add_dataset, TRAINING)
        self.add_valid_dataset = partial(feeds.add_dataset, VALIDATION)
        self.add_train_dataloader = partial(feeds.add, TRAINING)
        self.add_valid_dataloader = partial(feeds.add, VALIDATION)
        if self.settings.checkpoint_path is not None:
            self.load_from_checkpoint_folder()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.imagen.device

    @property
    def unets(self) -> nn.ModuleList:
        """The averaged U-Nets."""
        return self.ema_unets

    def get_ema_unet(self, unet_number: int | None = None) -> nn.Module | None:
        """An averaged U-Net; None without averages."""
        index = self._index(unet_number)
        return self.ema_unets[index] if self.settings.use_ema else None

    def get_lr(self, unet_number: int | None = None) -> float:
        """The learning rate of the next update."""
        index = self._index(unet_number)
        schedule = self.schedules[index]
        return learning_rate(schedule.optimizer, int(self.steps[index]), schedule.length)

    def num_steps_taken(self, unet_number: int | None = None) -> int:
        """Updates of a U-Net so far."""
        return int(self.steps[self._index(unet_number)])

    def encode_text(self, text: list[str], **kwargs: Any) -> Any:
        """As the cascade's."""
        return self.imagen.encode_text(text, **kwargs)

    def print_unet_devices(self) -> None:
        """Print where the U-Nets are."""
        for number, unet in enumerate(self.imagen.unets, start=1):
            self._print(f"U-Net {number}: {next(unet.parameters()).device}")

    def forward(
        self,
        *args: Any,
        unet_number: int | None = None,
        max_batch_size: int | None = None,
        **kwargs: Any,
    ) -> float:
        """Loss of a batch; in training mode its gradients are added up for `update`.

        Arguments are those of the cascade, images first; the batch is computed in chunks of
        `max_batch_size`.
        """
        index = self._index(unet_number)
        only = self.settings.only_train_unet_number
        if only is not None and only != index + 1:
            raise UsageError(f"got unet_number={index + 1}; only U-Net {only} is to be trained")
        total = 0.0
        for call in batches.split(batches.as_tensors(args, kwargs), max_batch_size):
            with self._autocast():
                loss = self.imagen(*call.args, unet_number=index + 1, **call.kwargs)
            loss = loss * call.fraction
            total += float(loss.detach())
            if self.training:
                self.scalers[index].scale(loss).backward()  # type: ignore[no-untyped-call]
        return total

    def update(self, unet_number: int | None = None) -> None:
        """Take a step with the gradients added up, average, and save where it is time."""
        index = self._index(unet_number)
        unet, optimizer = self.imagen.unets[index], self.optimizers[index]
        scaler = self.scalers[index]  # does nothing but with fp16
        set_learning_rate(optimizer, self.get_lr(index + 1))
        scaler.unscale_(optimizer)
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(unet.parameters(), self.settings.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        self.steps[index] += 1
        if self.settings.use_ema:
            with torch.no_grad():
                self.averages[index].update(batch_size=1, images_seen=int(self.steps[index]))
        every = self.settings.checkpoint_every
        if every is not None and int(self.steps.sum()) % every == 0:
            self.save_to_checkpoint_folder()

    def train_step(self, *, unet_number: int | None = None, **kwargs: Any) -> float:
        """A batch of the training data, and an update."""
        loss = self(unet_number=unet_number, **{**kwargs, **self.feeds.next(TRAINING)})
        self.update(unet_number)
        return float(loss)

    @torch.no_grad()
    def valid_step(self, *, use_ema_unets: bool = False, **kwargs: Any) -> float:
        """Loss of a batch of the validation data."""
        was_training = self.training
        self.eval()
        try:
            with self.use_ema_unets() if use_ema_unets else nullcontext():
                return float(self(**{**kwargs, **self.feeds.next(VALIDATION)}))
        finally:
            self.train(was_training)

    @contextmanager
    def use_ema_unets(self) -> Iterator[None]:
        """The cascade works with averaged weights meanwhile."""
        trained = self.imagen.unets
        self.imagen.unets = self.ema_unets if self.settings.use_ema else trained
        try:
            yield
        finally:
            self.imagen.unets = trained

    def sample(
        self,
        *args: Any,
        max_batch_size: int | None = None,
        use_non_ema: bool = False,
        **kwargs: Any,
    ) -> Any:
        """As the cascade's `sample`, in chunks of `max_batch_size`; averaged weights or not."""
        self._print_untrained()
        calls = [batches.as_tensors(args, kwargs)]
        if max_batch_size is not None and self.imagen.unconditional:
            count = int(kwargs.get("batch_size", 1))
            sizes = [min(max_batch_size, count - i) for i in range(0, count, max_batch_size)]
            calls = [batches.as_tensors(args, {**kwargs, "batch_size": n}) for n in sizes]
        elif max_batch_size is not None:
            calls = list(batches.split(calls[0], max_batch_size))
        with nullcontext() if use_non_ema else self.use_ema_unets():
            outputs = [self.imagen.sample(*one.args, **one.kwargs) for one in calls]
        return outputs[0] if len(outputs) == 1 else batches.joined(outputs)

    def save(
        self,
        path: str | Path,
        overwrite: bool = True,
        without_optim_and_sched: bool = False,
        **extra: Any,
    ) -> None:
        """Write all into one safetensors file, whatever its suffix; `load` returns `extra`."""
        if Path(path).exists() and not overwrite:
            raise UsageError(f"{path} exists; choose another path, or overwrite=True")
        checkpoint.save(self, Path(path), extra, optimizers=not without_optim_and_sched)
        self._print(f"checkpoint saved to {path}")

    def load(
        self,
        path: str | Path,
        only_model: bool = False,
        strict: bool = True,
        noop_if_not_exist: bool = False,
    ) -> dict[str, Any]:
        """Read what `save` has written, perhaps without averages and optimizers; its `extra`.

        Raises:
            CalotypeError: no such file, or one that does not fit.
        """
        if noop_if_not_exist and not Path(path).exists():
            self._print(f"no checkpoint at {path}")
            return {}
        extra = checkpoint.load(self, Path(path), strict=strict, only_model=only_model)
        self._print(f"checkpoint loaded from {path}")
        return extra

    def save_to_checkpoint_folder(self) -> None:
        """Write a checkpoint into `checkpoint_path`; only the newest are kept."""
        folder = self._checkpoint_folder()
        self.save(folder / f"checkpoint.{int(self.steps.sum())}.pt")
        if self.settings.max_checkpoints_keep > 0:
            for old in checkpoint.files_of(folder)[: -self.settings.max_checkpoints_keep]:
                old.unlink()

    def load_from_checkpoint_folder(self, last_total_steps: int = -1) -> None:
        """Load the newest checkpoint of the folder, or that after so many updates."""
        folder, steps = self._checkpoint_folder(), last_total_steps
        one = [folder / f"checkpoint.{steps}.pt"]
        found = checkpoint.files_of(folder)[-1:] if steps == -1 else one
        for path in found:
            self.load(path)
        if not found:
            self._print(f"no checkpoint in {folder}")

    def _index(self, unet_number: int | None) -> int:
        if unet_number is None and self.num_unets == 1:
            unet_number = 1
        if unet_number is None or not 1 <= unet_number <= self.num_unets:
            raise UsageError(f"got unet_number={unet_number}; expected 1 to {self.num_unets}")
        return unet_number - 1

    def _autocast(self) -> Any:
        device, dtype = self.device.type, torch.float16 if self._fp16 else torch.bfloat16
        if self._fp16 and device != "cuda":
            raise UsageError("got fp16 without a GPU; use precision='bf16' or leave it out")
        return torch.autocast(device, dtype=dtype, enabled=self.settings.dtype != "no")

    def _print(self, message: str) -> None:
        if self.settings.verbose:
            print(message)

    def _print_untrained(self) -> None:
        real = [not isinstance(unet, NullUnet) for unet in self.imagen.unets]
        untrained = [str(i + 1) for i, steps in enumerate(self.steps) if steps == 0 and real[i]]
        if untrained:
            names = ", ".join(untrained)
            self._print(f"not trained yet: U-Net {names}; leave it out by stop_at_unet_number")

    def _checkpoint_folder(self) -> Path:
        if self.settings.checkpoint_path is None:
            raise UsageError("got no checkpoint_path; give ImagenTrainer one")
        return Path(self.settings.checkpoint_path)
