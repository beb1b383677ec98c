"""The task of CLIP: images and captions of one row are brought together, those of others apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from calotype.conditioning import Text, TextEmbedding
from calotype.config.clip import ClipTraining
from calotype.config.recipe import Recipe
from calotype.data.batch import Batch, BatchPlan
from calotype.diffusion import add_noise
from calotype.networks.blocks import ResidualBlock
from calotype.networks.clip import Clip
from calotype.networks.transformer import TransformerLayer
from calotype.tasks.augmentation import augmented
from calotype.tasks.captions import TextLookup
from calotype.tasks.clip_numbers import ClipNumbers, clip_numbers
from calotype.tasks.clip_retrieval import RATIOS, Pools, retrieval
from calotype.tasks.contrastive import info_nce, matching, siglip
from calotype.tasks.cost import TrainingCost, training_cost
from calotype.training.randomness import Rows, seed_networks
from calotype.training.shards import full_tensor
from calotype.training.task import Embedded, Task
from calotype.vision.clip import CLIP_FOLDER, ClipFile, ClipModel, save_clip
from calotype.vision.noise_level import told_level


@dataclass(frozen=True)
class ClipInputs(Rows):
    """Rows of a step, on the CPU.

    Args:
        x: images, (B, 3, R, R) in [-1, 1].
        text: of their captions.
        labels: numbers of their captions and concepts, (B, 2) int64.
        numbers: all that is random.
    """

    x: Tensor
    text: Text
    labels: Tensor
    numbers: ClipNumbers


@dataclass(eq=False)
class ClipTask(Task[ClipNumbers, ClipInputs]):
    """Both towers and what they are trained with; a `CoupledTask`.

    Args:
        config: of the run.
        model: the towers.
        text: captions -> what the text tower reads.
        text_fingerprint: of the encoder or tokenizer behind it.
        compute_dtype: of the towers' calls.
        pools: fixed examples to validate on, by name of the split.
        tokenizer: specification of the run's own copy, which goes into its CLIPs; None where it has
            none.
    """

    config: ClipTraining
    model: Clip
    text: TextLookup
    text_fingerprint: str
    compute_dtype: torch.dtype
    pools: Mapping[str, Pools] | None = None
    tokenizer: str | None = None
    shard_units: tuple[type[nn.Module], ...] = (TransformerLayer, ResidualBlock)
    coupled: bool = True
    use: str = "score with --clip"
    name: str = "clip"

    @property
    def key(self) -> int:
        """The image tower's resolution."""
        return self.config.resolution

    def batch_plan(self) -> BatchPlan:
        """Whole images at the tower's resolution."""
        config = self.config
        return BatchPlan(
            resolution=config.resolution,
            lowres_resolution=None,
            config=config.data,
            batch_size=config.batch_size,
            seed=config.seed,
        )

    def random_numbers(self, batch: Batch, position: int) -> ClipNumbers:
        """Numbers of the augmentation, patches that are left out, noise of the captions."""
        shape = torch.Size((batch.images, *batch.x.shape[1:]))
        return clip_numbers(self.config, position, shape)

    def inputs(self, batch: Batch, numbers: ClipNumbers) -> ClipInputs:
        """Captions looked up, rows labelled."""
        texts = zip(batch.captions, batch.concepts, strict=True)
        labels = torch.tensor([(_number(caption), _number(concept)) for caption, concept in texts])
        return ClipInputs(batch.x, self.text(batch.captions), labels, numbers)

    def losses(self, inputs: ClipInputs) -> Tensor:
        """Nothing: rows look at each other; see `coupled_losses`.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("got rows without the rest of their batch; expected coupled_losses")

    def embed(self, inputs: ClipInputs) -> Embedded:
        """Images and captions, (B, 2, E), and what the loss learns beside them."""
        device, numbers = self.model.log_scale.device, inputs.numbers
        x = inputs.x.to(device)
        x = augmented(x, numbers.augmentation, self.config.augmentation, eps=numbers.eps)
        text = inputs.text.to(device)
        if numbers.text is not None and isinstance(text, TextEmbedding):
            spread = text.tokens.square().mean(-1, keepdim=True).sqrt()
            noise = self.config.text_noise * spread * numbers.text.to(device)[:, None]
            text = replace(text, tokens=text.tokens + noise)
        if numbers.logsnr is not None and numbers.level_eps is not None:
            x = add_noise(x, numbers.logsnr, numbers.level_eps.to(x))
        level = told_level(self.config.clip.noise, numbers.logsnr, x)
        patches = None if numbers.patches is None else numbers.patches.to(device)
        half = self.compute_dtype in (torch.bfloat16, torch.float16)
        with torch.autocast(device.type, self.compute_dtype, enabled=half):
            image = self.model.embed_image(x, level, patches)
            caption = self.model.embed_text(text)
        return Embedded(torch.stack((image, caption), 1), self.model.loss_parameters)

    def labels(self, inputs: ClipInputs) -> Tensor:
        """Numbers of captions and concepts, (B, 2)."""
        return inputs.labels

    def coupled_losses(self, embedded: Embedded, labels: Tensor) -> Tensor:
        """The loss of each row, (B,), from those of the whole batch."""
        image, text = embedded.rows.unbind(1)
        matches = matching(labels).to(image.device)
        if self.config.clip.loss == "siglip":
            return siglip(image, text, matches, embedded.shared[:1], embedded.shared[1:])
        return info_nce(image, text, matches, embedded.shared)

    def log(self, losses: Tensor, numbers: ClipNumbers) -> Mapping[str, Any]:
        """What similarities are multiplied by."""
        return {"scale": round(float(full_tensor(self.model.log_scale.detach()).exp()), 3)}

    def cost(self, processes: int) -> TrainingCost:
        """FLOPs of an image and its caption, beside the measured peak."""
        device = str(self.model.log_scale.device)
        return training_cost(self.config, device, self.compute_dtype, processes=processes)

    def validate(self, average: nn.Module) -> dict[str, dict[str, float]]:
        """Retrieval both ways, at several levels of noise; see `clip_retrieval`."""
        model, ratios = self._usable(average), RATIOS if self.config.clip.noise else ()
        pools = self.pools or {}
        return {name: retrieval(model, part, ratios=ratios) for name, part in pools.items()}

    def write_model(
        self, checkpoint: Path, average: nn.Module, earlier: Sequence[nn.Module], recipe: Recipe
    ) -> None:
        """The folder that `load_clip` reads."""
        save_clip(checkpoint / CLIP_FOLDER, self._usable(average, name=recipe.name))

    def _usable(self, average: nn.Module, name: str = "clip") -> ClipModel:
        file = ClipFile(
            format=1,
            name=name,
            text_encoder=self.tokenizer or self.config.text_encoder,
            text_fingerprint=self.text_fingerprint,
            sha256="",
            clip=self.config.clip,
        )
        return ClipModel(file, cast(Clip, average), self.text)


def _number(text: str) -> int:
    """Equal for equal texts, and for no others that anybody will meet; 63 bits."""
    digest = hashlib.blake2b(text.strip().lower().encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 1


def new_clip(config: ClipTraining, *, device: str) -> Clip:
    """Towers with initial weights, which depend on the seed alone."""
    seed_networks(config.seed, config.resolution, part=-1)
    return Clip(config.clip).to(device).train()
