"""GLIDE's noised CLIP: its files, and guidance of the base by its gradient.

`load_guide(FOLDER, tokenizer=...).guidance(captions)` is the transform of a `StageEdit` of the
stage that samples 64 pixels.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from calotype.config.schedule import DiscreteScheduleConfig
from calotype.config.typed_json import load_config, to_dict
from calotype.diffusion import DiscreteSchedule
from calotype.diffusion.gradient_guidance import GradientGuidance
from calotype.diffusion.named import build_discrete
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.glide.stages import check_names
from calotype.interop.safety import ForeignWeights, Shapes, read_header
from calotype.networks.noised_clip import NoisedCLIP, NoisedCLIPConfig, TowerConfig
from calotype.storage.files import write_file, write_with
from calotype.text.byte_pair import ClipBPE, load_clip_bpe

FOLDER = "noised_clip"  # in a converted cascade
CONFIG_FILE, WEIGHTS_FILE = "config.json", "weights.safetensors"
_KINDS = {"g": "weight", "b": "bias", "w": "weight"}
_PLACES = {
    "blocks.input.w_voc": "tokens.weight",
    "blocks.input.w_t": "timesteps.weight",
    "blocks.input.w_pos": "positions",
    "blocks.input.patch_proj": "patches.weight",
}
_LAYERS = {
    "blocks.input.ln": "norm_in",
    "blocks.output.ln": "norm",
    "blocks.output.f": "out",
    "f_attn.ln": "norm_attention",
    "f_attn.f_q": "query",
    "f_attn.f_k": "key",
    "f_attn.f_v": "value",
    "f_attn.f_c": "attention_out",
    "f_mlp.ln": "norm_hidden",
    "f_mlp.f_1": "hidden",
    "f_mlp.f_2": "hidden_out",
}
# Files keep queries, keys and values apart, keys without bias, and have other names for layers.
_FILE_LAYERS = {
    "norm1": ("norm_attention",),
    "qkv": ("query", "key", "value"),
    "out": ("attention_out",),
    "norm2": ("norm_hidden",),
    "widen": ("hidden",),
    "narrow": ("hidden_out",),
}
_BLOCK = re.compile(r"(.*blocks\.\d+\.)(\w+)\.(weight|bias)")
# CLIP was trained on noise of this table.
_SCHEDULE = DiscreteScheduleConfig(betas="squaredcos_cap_v2", precision="float64")


@dataclass(frozen=True)
class CaptionLikelihood:
    """How well noisy images fit captions, embedded (B, E), as CLIP sees it: a `LogLikelihood`."""

    clip: NoisedCLIP
    schedule: DiscreteSchedule
    captions: Tensor

    def __call__(self, z: Tensor, logsnr: Tensor) -> Tensor:
        """(B, 3, R, R), (B,) -> (B,): similarity times the logit scale."""
        side = self.clip.config.resolution
        if tuple(z.shape[2:]) != (side, side):
            raise UsageError(
                f"got images of {z.shape[3]}x{z.shape[2]} for a CLIP of {side}x{side}; guide the "
                f"stage that samples {side} pixels"
            )
        timestep = self.schedule.timestep(logsnr).round().long().to(z.device)
        images = self.clip.embed_image(z.float(), timestep)
        similarity = (self.captions.to(images) * images).sum(1)
        return self.clip.config.logit_scale * similarity

    def rows(self, rows: slice) -> CaptionLikelihood:
        """The same for some of the captions."""
        return replace(self, captions=self.captions[rows])


class NoisedClipGuide:
    """A noised CLIP with its tokenizer."""

    def __init__(self, clip: NoisedCLIP, tokenizer: ClipBPE) -> None:
        self.clip = clip.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._schedule = build_discrete(replace(_SCHEDULE, steps=clip.config.timesteps))

    @torch.no_grad()
    def embed(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors of captions, (B, E)."""
        return self.clip.embed_text(self._tokenizer.tokens(captions, self.clip.config.context))

    def guidance(self, captions: Sequence[str], scale: float = 3.0) -> GradientGuidance:
        """The transform that pulls images towards their captions; for `StageEdit`."""
        likelihood = CaptionLikelihood(self.clip, self._schedule, self.embed(captions))
        return GradientGuidance(likelihood, scale)


def clip_config(text: Shapes, image: Shapes, *, head_dim: int = 64) -> NoisedCLIPConfig:
    """The settings of a noised CLIP, from the shapes of both files' tensors."""
    try:
        patch = image["blocks.input.patch_proj"][2]
        side = math.isqrt(image["blocks.input.w_pos"][0] - 1)
        return NoisedCLIPConfig(
            text=_tower(text, head_dim),
            image=_tower(image, head_dim),
            vocabulary=text["blocks.input.w_voc"][0],
            context=text["blocks.input.w_pos"][0],
            resolution=side * patch,
            patch=patch,
            timesteps=image["blocks.input.w_t"][0],
            embed_dim=image["blocks.output.f.w"][0],
        )
    except (KeyError, IndexError) as error:
        raise ConfigError(
            f"got no tensor {error} of a noised CLIP; expected clip_text_enc.pt and "
            "clip_image_enc.pt"
        ) from error


def clip_names(shapes: Shapes) -> dict[str, str]:
    """The name here, within its tower, of each tensor of a file; unknown ones are left out."""
    names = {}
    for name in shapes:
        stem, _, kind = name.rpartition(".")
        block = re.fullmatch(r"blocks\.block_(\d{1,4})\.(.+)", stem)
        layer = _LAYERS.get(stem if block is None else block[2])
        if name in _PLACES:
            names[name] = _PLACES[name]
        elif layer is not None and kind in _KINDS:
            prefix = "" if block is None else f"blocks.{block[1]}."
            names[name] = f"{prefix}{layer}.{_KINDS[kind]}"
    return names


def noised_clip(
    config: NoisedCLIPConfig, towers: Mapping[str, tuple[Shapes, Callable[[str], Tensor]]]
) -> NoisedCLIP:
    """A CLIP with the weights of the files of its "text" and "image" towers; all must fit."""
    with torch.device("meta"):
        clip = NoisedCLIP(config)
    for part, (shapes, read) in towers.items():
        _fill(clip.get_submodule(part), clip_names(shapes), shapes, read)
    return clip.eval()


def _fill(
    module: nn.Module, names: Mapping[str, str], shapes: Shapes, read: Callable[[str], Tensor]
) -> None:
    """Give a module the tensors of a file, whose names are `names` in files of this library."""
    expected = module.state_dict()
    check_names(shapes, names, file_tensors(expected))
    state = {here: read(name).to(torch.float32) for name, here in names.items()}
    module.load_state_dict(network_tensors(state, expected), assign=True)


def save_clip(clip: NoisedCLIP, folder: Path) -> None:
    """Write settings and weights into `folder`, made if missing."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {k: tensor.contiguous() for k, tensor in file_tensors(clip.state_dict()).items()}
    write_with(folder / WEIGHTS_FILE, lambda path: save_file(tensors, path))
    write_file(folder / CONFIG_FILE, json.dumps(to_dict(clip.config), indent=1).encode())


def load_guide(folder: Path | str, *, tokenizer: Path | str) -> NoisedClipGuide:
    """Read the noised CLIP of a converted GLIDE cascade; `tokenizer` has CLIP's vocabulary.

    Raises:
        CalotypeError: files are missing or damaged.
    """
    place = Path(folder) / FOLDER
    if not (place / CONFIG_FILE).is_file():
        raise CalotypeError(
            f"{folder} has no {FOLDER}; convert a folder that has clip_text_enc.pt and "
            "clip_image_enc.pt beside GLIDE's networks"
        )
    config = load_config(place / CONFIG_FILE, NoisedCLIPConfig)
    with torch.device("meta"):
        clip = NoisedCLIP(config)
    weights = ForeignWeights(read_header(place / WEIGHTS_FILE))
    names = {name: name for name in file_tensors(clip.state_dict())}
    _fill(clip, names, weights.shapes, weights.reader())
    return NoisedClipGuide(clip, load_clip_bpe(Path(tokenizer)))


def _tower(shapes: Shapes, head_dim: int) -> TowerConfig:
    inner, width = shapes["blocks.block_0.f_attn.f_q.w"]
    layers = sum(1 for name in shapes if name.endswith(".f_attn.f_q.w"))
    return TowerConfig(width=width, layers=layers, heads=inner // head_dim, head_dim=head_dim)


def file_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors as files hold them."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = _file_names(name)
        found |= zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True)
    return {name: tensor for name, tensor in found.items() if not name.endswith(".key.bias")}


def network_tensors(file: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """The inverse of `file_tensors`, for the network's `names`."""
    state = {}
    for name in names:
        parts = _file_names(name)
        first = file[parts[0]]
        rest = [file.get(part, torch.zeros_like(first)) for part in parts[1:]]
        state[name] = torch.cat([first, *rest]) if rest else first
    return state


def _file_names(name: str) -> list[str]:
    block = _BLOCK.fullmatch(name)
    if block is None:
        return [name]
    return [f"{block[1]}{layer}.{block[3]}" for layer in _FILE_LAYERS[block[2]]]
