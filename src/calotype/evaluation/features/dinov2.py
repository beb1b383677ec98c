"""DINOv2's class token, from a local folder of transformers.

Reference: Oquab et al. 2023, arXiv:2304.07193; Stein et al. 2023, arXiv:2306.04675, who measured
that distances on it follow people's judgement better than on Inception.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from calotype.errors import CalotypeError, MissingExtra, UsageError
from calotype.evaluation.features.batches import in_batches
from calotype.storage.reading import check_regular, file_sha256, read_object
from calotype.text.encoder import digest
from calotype.vision.clip import square
from calotype.vision.transformers_clip import CONFIG_FILE, weights_sha256

_SIDE = 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours


class DinoV2:
    """DINOv2, the class token after the last norm: an `Extractor`.

    Args:
        folder: of transformers, with `config.json` and `.safetensors`.
        device: where it runs.

    Raises:
        MissingExtra: transformers is not installed.
        UsageError: no DINOv2 is there, or its weights are pickles.
        CalotypeError: files are damaged.
    """

    name = "dinov2"

    def __init__(self, folder: Path, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self._network = _load(folder).to(self.device)
        config = self._network.config
        self.dimension = int(config.hidden_size)
        self._side = min(_SIDE, int(config.image_size))
        self.description = (
            f"DINOv2 ({folder.name}), {self._side} x {self._side}: shorter side resized (bicubic, "
            "antialiased), centre cut"
        )
        files = [weights_sha256(folder), file_sha256(folder / CONFIG_FILE)]
        self.fingerprint = digest(["dinov2", *files, "square 1"])
        self._mean, self._std = (
            torch.tensor(colour, device=self.device)[:, None, None] for colour in (_MEAN, _STD)
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Features, (N, D), of uint8 images, (N, 3, H, W)."""
        return in_batches(images, self._embed, self.device)

    def _embed(self, x: Tensor) -> Tensor:
        x = (square(x / 127.5 - 1, self._side) + 1) / 2
        found: Tensor = self._network(pixel_values=(x - self._mean) / self._std).pooler_output
        return found


def _load(folder: Path) -> Any:
    try:
        from transformers import Dinov2Config, Dinov2Model
    except ImportError as error:
        raise MissingExtra("interop", "transformers") from error
    settings = read_object(folder / CONFIG_FILE)
    if settings.get("model_type") != "dinov2":
        raise UsageError(
            f"got {str(folder)!r:.200} for DINOv2; expected a folder of transformers whose "
            f"{CONFIG_FILE} has the model_type 'dinov2'"
        )
    weights_sha256(folder)  # there are some, and they are no pickles
    advice = "copy the folder again"
    try:
        for path in folder.iterdir():
            if not path.is_dir():
                check_regular(path)
        model, found = Dinov2Model.from_pretrained(
            folder,
            config=Dinov2Config.from_dict(settings),
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except Exception as error:  # transformers raises many kinds
        reason = " ".join(str(error).split()).partition("http")[0]
        raise CalotypeError(f"{folder} cannot be read: {reason:.200}; {advice}") from error
    missing = sorted(found["missing_keys"]) + sorted(found["mismatched_keys"])
    if missing:  # transformers would go on with random numbers
        raise CalotypeError(
            f"got {len(missing)} weights missing or of the wrong shape in {folder} (first "
            f"{missing[0]}), expected all; {advice}"
        )
    return model.requires_grad_(False).eval()
