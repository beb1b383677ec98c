"""What a run keeps of its draft in training, so that a run that was killed resumes it.

RUN/draft/basis.safetensors                        basis, mean, and text statistics
RUN/draft/main.safetensors, fold-0.safetensors     regressions, with their optimizers
RUN/draft/spread.safetensors                       how far images lie from the drafts
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from calotype.config.diffusion import DiffusionTraining
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError
from calotype.networks.draft import Draft
from calotype.storage.files import write_with
from calotype.training.optimizer import optimizer_tensors, restore_optimizer

FOLDER = "draft"
_BASIS = ("basis", "scale", "mean")  # tensors of a draft
_FORMAT = 2  # 1 had a basis of finished images


@dataclass(frozen=True)
class DraftFiles:
    """The files in RUN/draft. Each says what it was made of: data, settings and seed, as a hash.

    Args:
        folder: RUN/draft.
        draft: of the stage.
        pooling: of its captions.
        config: of the stage.
        fingerprint: of the data.
        begun: diffusion has begun, and files are taken as they are.
    """

    folder: Path
    draft: Draft
    pooling: nn.Module
    config: DiffusionTraining
    fingerprint: str
    begun: bool

    def write_basis(self) -> None:
        """Write the draft's basis and the text statistics."""
        basis = {name: getattr(self.draft, name) for name in _BASIS}
        self._write("basis", {**basis, **_with("pooling.", self.pooling.state_dict())}, steps=0)

    @torch.no_grad()
    def read_basis(self) -> bool:
        """Set basis and text statistics to those in the folder; False if it has none.

        Raises:
            CalotypeError: they are damaged, or of other data or settings.
        """
        known = self._read("basis")
        if known is None:
            return False
        for name in _BASIS:
            getattr(self.draft, name).copy_(known[name])
        self.pooling.load_state_dict(_under("pooling.", known))
        return True

    def write_spread(self) -> None:
        """Write how far images lie from their drafts."""
        self._write("spread", {"spread": cast(Tensor, self.draft.spread)}, steps=0)

    @torch.no_grad()
    def read_spread(self) -> bool:
        """Set the spread to that in the folder; False if it has none."""
        known = self._read("spread")
        if known is not None:
            cast(Tensor, self.draft.spread).copy_(known["spread"])
        return known is not None

    def write(
        self,
        name: str,
        regression: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        steps: int,
    ) -> None:
        """Write a regression that has been trained for so many steps."""
        tensors = _with("weights.", regression.state_dict())
        if optimizer is not None:
            tensors |= _with("optimizer.", optimizer_tensors(optimizer))
        self._write(name, tensors, steps=steps)

    def read(
        self, name: str, regression: nn.Module, optimizer: torch.optim.Optimizer | None = None
    ) -> int | None:
        """Put back what the folder holds of a regression; the steps it has taken, or None.

        Raises:
            CalotypeError: it is damaged, or of other data or settings.
        """
        known = self._read(name)
        if known is None:
            return None
        regression.load_state_dict(_under("weights.", known))
        if optimizer is not None:
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
        own = self.draft.basis.shape
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
        config = self.config
        data = to_dict(config.data)
        data.pop("cache_bytes")
        # Under the names they had when drafts of before were made.
        data["crops_per_picture"] = data.pop("crops_per_image")
        data["broken_share"] = data.pop("broken_fraction")
        draft = to_dict(self.draft.config)
        draft.pop("spread")  # is measured of the rest
        decides = [_FORMAT, to_dict(config.draft), draft, config.seed, name]
        decides += [data, self.fingerprint, config.text_encoder]
        if name.startswith("fold"):  # the basis may have come with weights to start from
            decides.append(self.draft.mean.double().sum().item())
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _with(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}
