"""A trained CLIP, ready to use: its folder, its embeddings, and how well images fit captions.

A folder holds `clip.json` and the weights of both towers; the frozen text encoder, whose states
the text tower reads, is named in it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from calotype.conditioning import Text
from calotype.config.clip import ClipConfig
from calotype.config.ranges import require
from calotype.config.typed_json import load_settings, to_dict
from calotype.errors import CalotypeError, UsageError
from calotype.networks.clip import Clip
from calotype.storage.files import new_folder, write_file
from calotype.storage.places import check_holds_only
from calotype.storage.weights import load_module, save_weights
from calotype.text import build_text_encoder
from calotype.text.tokenizer_folder import (
    COPY_NAMES,
    OWN_SPEC,
    TOKENIZER_FOLDER,
    copied_spec,
    copy_tokenizer,
)
from calotype.vision.noise_level import told_level
from calotype.vision.transformers_clip import (
    CONFIG_FILE,
    is_transformers_clip,
    read_transformers_clip,
    towers,
    weights_sha256,
)

CLIP_FILE, WEIGHTS_FILE, CARD_FILE = "clip.json", "weights.safetensors", "README.md"
CLIP_FOLDER = "clip"
"""Holds the CLIP in a checkpoint."""
_ASSETS = Path(__file__).parent.parent / "assets"
EMBEDDED_CLIP = _ASSETS / "clip-emoji"
"""The one that scores and ranks where none is named."""
EMBEDDED_GUIDE = _ASSETS / "clip-emoji-noised"
"""The one that guides, by noisy images."""
EMBEDDED_JUDGE = _ASSETS / "clip-emoji-judge"
"""The one that judges what another guided."""
SCALE = 100.0
"""Scores are cosines times this, as CLIP scores are reported."""
_CHUNK = 64
Encode = Callable[[Sequence[str]], Text]


@dataclass(frozen=True, kw_only=True)
class ClipFile:
    """What `clip.json` holds.

    Args:
        format: of the file.
        name: of the model, said beside every score.
        text_encoder: as `build_text_encoder` reads it.
        text_fingerprint: of that encoder when the model was trained.
        sha256: of the weights file.
        clip: the towers.
        tokenizer_sha256: of the byte-pair tokenizer that came along, or None; `text_encoder` is
            then where it stands now.
    """

    format: int
    name: str
    text_encoder: str
    text_fingerprint: str
    sha256: str
    clip: ClipConfig
    tokenizer_sha256: str | None = None

    ADDED = ("tokenizer_sha256",)

    def __post_init__(self) -> None:
        require(self.format == 1, f"got format={self.format}; expected 1: get a newer calotype")


class ClipModel:
    """Embeds images and captions in one space.

    Args:
        file: what the folder says of it.
        network: both towers.
        encoder: captions to what the text tower reads; None = the encoder that `file` names, loaded
            when first needed.
    """

    def __init__(self, file: ClipFile, network: Clip, encoder: Encode | None = None) -> None:
        self.file = file
        self.network = network.requires_grad_(False).eval()
        self._encoder = encoder
        self.name, self.fingerprint = file.name, file.sha256  # said beside every score
        self.embed_dim = file.clip.embed_dim  # E, of the common space

    def embed_image(self, z: Tensor, logsnr: Tensor | None = None) -> Tensor:
        """Noisy images, (B, 3, R, R), at levels (B,) -> unit vectors (B, E), float32.

        It is differentiable in `z`. A level that the network was not trained at is the nearest that
        it was; None = clean images.
        """
        side = self.file.clip.image.resolution
        if tuple(z.shape[2:]) != (side, side):
            raise UsageError(
                f"got images of {z.shape[3]}x{z.shape[2]} for a CLIP of {side}x{side}; expected "
                f"its size: guide the stage that samples {side} pixels"
            )
        level = told_level(self.file.clip.noise, logsnr, z)
        return self.network.embed_image(z, level)

    @torch.no_grad()
    def embed_images(self, images: Tensor, logsnr: Tensor | None = None) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1], of any size -> unit vectors (B, E), float32, CPU.

        Noisy ones have the network's size, and levels (B,).
        """
        side, device = self.file.clip.image.resolution, self.network.log_scale.device
        squares = (square(part.float(), side).to(device) for part in torch.split(images, _CHUNK))
        levels = repeat(None) if logsnr is None else torch.split(logsnr, _CHUNK)
        return torch.cat([found.cpu() for found in map(self.embed_image, squares, levels)])

    @torch.no_grad()
    def embed_texts(self, captions: Sequence[str]) -> Tensor:
        """Captions -> unit vectors (B, E), float32, CPU."""
        places = {caption: place for place, caption in enumerate(dict.fromkeys(captions))}
        unique, device = list(places), self.network.log_scale.device  # each is embedded once
        texts = (self.encoder(unique[i : i + _CHUNK]) for i in range(0, len(unique), _CHUNK))
        found = torch.cat([self.network.embed_text(text.to(device)).cpu() for text in texts])
        return found[[places[caption] for caption in captions]]

    def scores(self, images: Tensor, captions: Sequence[str]) -> Tensor:
        """How well each image, (B, 3, H, W) in [-1, 1], fits its caption: 100 x cosine, (B,)."""
        if len(images) != len(captions):
            raise ValueError(f"got {len(images)} images and {len(captions)} captions; expected B")
        return SCALE * (self.embed_images(images) * self.embed_texts(captions)).sum(1)

    @cached_property
    def encoder(self) -> Encode:
        """The text encoder.

        Raises:
            CalotypeError: it is another one than the model was trained with.
        """
        if self._encoder is not None:
            return self._encoder
        tower = self.file.clip.text
        most = None if tower.vocabulary is None else tower.context  # as in training
        encoder = build_text_encoder(self.file.text_encoder, max_tokens=most)
        if encoder is None or encoder.fingerprint != self.file.text_fingerprint:
            raise CalotypeError(
                f"got the text encoder {self.file.text_encoder!r} with other weights than "
                f"{self.name!r} was trained with; expected the same: get its files again"
            )
        return encoder


def square(images: Tensor, side: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, side, side): the shorter side resized (bicubic), the centre cut."""
    height, width = (int(n) for n in images.shape[2:])
    if (height, width) == (side, side):
        return images
    scale = side / min(height, width)
    size = [max(side, round(height * scale)), max(side, round(width * scale))]
    images = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    return images[:, :, top : top + side, left : left + side].clamp(-1, 1)


def save_clip(folder: Path, model: ClipModel, *, dtype: torch.dtype = torch.float32) -> None:
    """Write a model into `folder`; an older one there is replaced all at once.

    Raises:
        UsageError: `folder` holds something else.
        CalotypeError: the disk is full or `folder` cannot be written to.
    """
    folder = folder.resolve()
    own = {CLIP_FILE, WEIGHTS_FILE, CARD_FILE, *COPY_NAMES}
    check_holds_only(folder, own, what="CLIP", marker=CLIP_FILE)
    with new_folder(folder) as temporary:
        digest = save_weights(model.network, temporary / WEIGHTS_FILE, dtype=dtype)
        data = {**to_dict(model.file), "sha256": digest}
        tokenizer = copy_tokenizer(model.file.text_encoder, temporary)
        if tokenizer is not None:
            data |= {"text_encoder": OWN_SPEC, "tokenizer_sha256": tokenizer}
        write_file(temporary / CLIP_FILE, json.dumps(data, indent=1).encode())


def load_clip(path_or_name: str | Path | None = None) -> ClipModel:
    """Read a CLIP.

    Args:
        path_or_name: None for the embedded one; else its folder, which may be one of transformers,
            a checkpoint, or a training run, whose newest checkpoint is taken.

    Raises:
        UsageError: no CLIP is there.
        CalotypeError: files are missing or damaged.
    """
    folder = find_clip(path_or_name)
    if not (folder / CLIP_FILE).is_file():
        network, tokens = read_transformers_clip(folder)
        return ClipModel(_foreign(folder, network.config, tokens.fingerprint), network, tokens)
    file = read_clip_file(folder)
    network = load_module(folder / WEIGHTS_FILE, lambda: Clip(file.clip), sha256=file.sha256)
    return ClipModel(file, network)


def read_clip_file(folder: Path) -> ClipFile:
    """What a folder from `find_clip` says of its CLIP; no weights are loaded."""
    if (folder / CLIP_FILE).is_file():
        file = load_settings(folder / CLIP_FILE, ClipFile)
        if file.tokenizer_sha256 is None:
            return file
        return replace(file, text_encoder=copied_spec(folder, file.tokenizer_sha256))
    settings = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    return _foreign(folder, towers(settings), "")


def _foreign(folder: Path, config: ClipConfig, fingerprint: str) -> ClipFile:
    return ClipFile(
        format=1,
        name=folder.name,
        text_encoder=f"clip_ids:{folder}",
        text_fingerprint=fingerprint,
        sha256=weights_sha256(folder),
        clip=config,
    )


def find_clip(path_or_name: str | Path | None) -> Path:
    """The folder that `load_clip` reads."""
    if path_or_name is None:
        if not (EMBEDDED_CLIP / CLIP_FILE).is_file():
            raise CalotypeError("this installation has no embedded CLIP; name one: --clip FOLDER")
        return EMBEDDED_CLIP
    path = Path(path_or_name)
    found = clip_in(path)
    if found is not None:
        return found
    if (path / "recipe.json").is_file():
        raise CalotypeError(f"the run {path} has no CLIP in a checkpoint; train one: clip-emoji")
    raise UsageError(
        f"got CLIP {str(path)!r:.200}; expected a folder with {CLIP_FILE}, one of transformers, or "
        "the run of a recipe such as clip-emoji"
    )


def clip_tokenizer(folder: Path) -> Path | None:
    """Where the byte-pair tokenizer is that came with a CLIP; None if none did."""
    has = (folder / CLIP_FILE).is_file() and read_clip_file(folder).tokenizer_sha256 is not None
    return folder / TOKENIZER_FOLDER if has else None


def clip_in(path: Path) -> Path | None:
    """The folder of the CLIP that a folder is, or that is in the newest checkpoint of a run."""
    for folder in (path, path / "checkpoints" / "latest" / CLIP_FOLDER, path / CLIP_FOLDER):
        if (folder / CLIP_FILE).is_file():
            return folder.resolve()
    return path.resolve() if is_transformers_clip(path) else None
