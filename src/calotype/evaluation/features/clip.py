"""A CLIP's embeddings of images and captions, as features.

Reference: Radford et al. 2021, arXiv:2103.00020; Jayasumana et al. 2024, arXiv:2401.09603 (CMMD).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.config.clip import ClipConfig
from calotype.config.typed_json import to_dict
from calotype.evaluation.features.batches import in_batches
from calotype.text.encoder import digest
from calotype.vision.clip import CLIP_FILE, ClipModel, find_clip, load_clip, square

_LETTERS = {768: "b", 1024: "l", 1280: "h"}
_OF_CMMD = "l-14-336"


class ClipFeatures:
    """Unit vectors of a CLIP: an `Extractor`, which embeds captions as well.

    Its name is "clip" for ViT-L/14 at 336 pixels, "clip-b-32" and the like for other towers in a
    folder of transformers, and the model's own name for one of ours.

    Args:
        model: the CLIP.
        architecture: e.g. "b-32"; None = one of ours.
        squashed: resize as CMMD does, instead of as CLIP was trained.
        device: where it runs.
    """

    def __init__(
        self,
        model: ClipModel,
        *,
        architecture: str | None,
        squashed: bool = False,
        device: str | torch.device = "cpu",
    ) -> None:
        self.device = torch.device(device)
        model.network.to(self.device)
        self._model, self._side = model, model.file.clip.image.resolution
        self._resize: Callable[[Tensor, int], Tensor] = squash if squashed else square
        self.name = _name(model, architecture) + ("-cmmd" if squashed else "")
        how = (
            "squashed (bicubic, no antialiasing, as CMMD's code)"
            if squashed
            else "shorter side resized (bicubic, antialiased), centre cut"
        )
        what = model.name if architecture is None else f"CLIP ViT {architecture} ({model.name})"
        self.description = f"{what}, {self._side} x {self._side}: {how}"
        self.dimension = model.embed_dim
        weights = [model.fingerprint, json.dumps(to_dict(model.file.clip), sort_keys=True)]
        self.fingerprint = digest(["clip", *weights, "cmmd 1" if squashed else "square 1"])
        # Of captions: apart from the images', for another text encoder may stand behind them.
        self.captions_fingerprint = digest(["captions", *weights, model.file.text_fingerprint])

    def __call__(self, images: Tensor) -> Tensor:
        """Unit vectors, (N, E), of uint8 images, (N, 3, H, W)."""
        return in_batches(images, self._embed, self.device)

    def _embed(self, x: Tensor) -> Tensor:
        return self._model.embed_image(self._resize(x / 127.5 - 1, self._side))

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors, (N, E), float32, on the CPU; what is too long is cut, the end mark stays.

        Raises:
            CalotypeError: the text encoder is another one than the model was trained with.
        """
        return self._model.embed_texts(captions)


def load_clip_features(
    folder: Path | None, *, squashed: bool = False, device: str | torch.device = "cpu"
) -> ClipFeatures:
    """A CLIP from a folder of transformers or of ours; None = the embedded one.

    Raises:
        UsageError: no CLIP is there.
        MissingExtra: transformers is not installed.
        CalotypeError: files are missing or damaged.
    """
    model = load_clip(folder)
    ours = (find_clip(folder) / CLIP_FILE).is_file()
    architecture = None if ours else architecture_name(model.file.clip)
    return ClipFeatures(model, architecture=architecture, squashed=squashed, device=device)


def squash(x: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, side, side), both sides by themselves, as CMMD's published code."""
    return F.interpolate(x, (side, side), mode="bicubic", align_corners=False)


def architecture_name(config: ClipConfig) -> str:
    """What an image tower is called: "b-32", "l-14-336"."""
    image = config.image
    assert image.kind == "vit"
    size = _LETTERS.get(image.width, f"w{image.width}")
    resolution = "" if image.resolution == 224 else f"-{image.resolution}"
    return f"{size}-{image.patch}{resolution}"


def _name(model: ClipModel, architecture: str | None) -> str:
    if architecture is None:
        return model.name
    return "clip" if architecture == _OF_CMMD else f"clip-{architecture}"
