"""The recorded numbers of the reference, and the formula its weights follow."""

import gzip
import json
from functools import cache
from pathlib import Path

import torch
from safetensors.torch import load_file

from calotype.conditioning import Conditioning, TokenIds

DATA = Path(__file__).parent / "data"
MODELS = ("base", "upsample", "base_inpaint", "upsample_inpaint")
HEAD_DIM, RESOLUTION = 16, 16


@cache
def settings():
    return json.loads((DATA / "glide_reduced.json").read_text("utf-8"))


@cache
def released():
    return json.loads(gzip.decompress((DATA / "glide_released.json.gz").read_bytes()))


@cache
def recorded():
    return load_file(DATA / "glide_reduced.safetensors")


@cache
def shapes(model, vocabulary=None):
    """Shapes of the reduced model's tensors; fewer tokens make small files."""
    found = {name: tuple(shape) for name, shape in settings()["tensors"][model].items()}
    if vocabulary is not None:
        found["token_embedding.weight"] = (vocabulary, found["token_embedding.weight"][1])
    return found


@cache
def weights(model, vocabulary=None):
    tensors = {}
    for index, (name, shape) in enumerate(sorted(shapes(model, vocabulary).items())):
        generator = torch.Generator().manual_seed(1000 + index)
        tensor = 0.05 * torch.randn(shape, generator=generator)
        tensors[name] = tensor + 1 if name.endswith("weight") and tensor.ndim == 1 else tensor
    return tensors


def clip_tokens():
    """What the reference's noised CLIP was told."""
    data = recorded()
    ids = data["clip.tokens"].long()
    return TokenIds(ids, torch.arange(ids.shape[1]) < data["clip.lens"][:, None])


def conditioning(model, dtype=torch.float32):
    """What the reference's networks were told."""
    data = recorded()
    text = TokenIds(data["tokens"].long(), data["mask"])
    lowres = extra = None
    if model.startswith("upsample"):
        enlarged = torch.nn.functional.interpolate(data["low_res"], (16, 16), mode="bilinear")
        lowres = enlarged.to(dtype)
    if model.endswith("inpaint"):
        mask = data["inpaint_mask"]
        extra = torch.cat((data["inpaint_image"] * mask, mask), dim=1).to(dtype)
    return Conditioning(text, lowres, None, extra)
