"""GLIDE's published files as a cascade: `base.pt` samples 64 pixels, `upsample.pt` enlarges to 256.

The in-painting models, `base_inpaint.pt` and `upsample_inpaint.pt`, make a cascade of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from calotype.cascade.cascade import Cascade
from calotype.cascade.stage import Stage
from calotype.errors import UsageError
from calotype.interop.glide.noised_clip import FOLDER, clip_config, clip_model, noised_clip
from calotype.interop.glide.stages import glide_stage
from calotype.interop.pickles import unpickled
from calotype.networks.clip import Clip
from calotype.text.byte_pair import load_caption_bpe
from calotype.vision.clip import save_clip

PLAIN = ("base.pt", "upsample.pt")
INPAINT = ("base_inpaint.pt", "upsample_inpaint.pt")
CLIP = ("clip_text_enc.pt", "clip_image_enc.pt")


def is_glide(source: Path) -> bool:
    """Whether a folder holds GLIDE's networks, or a path is one of their files."""
    names = (*PLAIN, *INPAINT)
    if source.is_dir():
        return any((source / name).is_file() for name in names)
    return source.is_file() and source.name in names


def convert_glide(
    source: Path | Sequence[Path],
    out: Path,
    *,
    tokenizer: Path | None,
    inpaint: bool | None = None,
    head_dim: int = 64,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a cascade of GLIDE's files into `out`; the noised CLIP in their folder comes along.

    Args:
        source: folder with the published files; or one of them, or two: base and up-sampler.
        out: cascade folder to write, and what is returned.
        tokenizer: folder with the vocabulary files; it is copied into `out`.
        inpaint: take the in-painting models; None = where there are no others.
        head_dim: channels of one attention head.
        dtype: number type of the networks' weights written.

    Raises:
        UsageError: no tokenizer is given, or there is nothing to convert.
        CalotypeError: a file is damaged or holds something else.
    """
    cascade = load_glide(source, tokenizer=tokenizer, inpaint=inpaint, head_dim=head_dim)
    clip = _load_clip(source, head_dim) if isinstance(source, Path) else None
    # Reads its vocabulary: nothing is written until all of it could be read.
    model = None if clip is None or tokenizer is None else clip_model(clip, tokenizer.resolve())
    cascade.save(out, dtype=dtype)
    if model is not None:
        save_clip(out / FOLDER, model)
    return out


def _load_clip(folder: Path, head_dim: int) -> Clip | None:
    """The noised CLIP, where a folder has both of its towers."""
    text, image = (folder / name for name in CLIP)
    if not (text.is_file() and image.is_file()):
        return None
    with unpickled(text) as t, unpickled(image) as i:
        config = clip_config(t.weights.shapes, i.weights.shapes, head_dim=head_dim)
        files = {"text": t.weights, "image": i.weights}
        return noised_clip(config, {k: (file.shapes, file.reader()) for k, file in files.items()})


def load_glide(
    source: Path | Sequence[Path],
    *,
    tokenizer: Path | None,
    inpaint: bool | None = None,
    head_dim: int = 64,
) -> Cascade:
    """GLIDE's files as a cascade in memory; arguments and errors as in `convert_glide`."""
    if tokenizer is None:
        raise UsageError(
            "got no tokenizer for GLIDE; give the folder with encoder.json and vocab.bpe of "
            "glide-text2im: --tokenizer FOLDER"
        )
    load_caption_bpe(tokenizer)  # before gigabytes are read
    paths = _chosen(source, inpaint)
    stages = [_load_stage(path, head_dim) for path in paths]
    kind = "-inpaint" if paths[0].name in INPAINT else ""
    return Cascade(f"glide:{tokenizer.resolve()}", stages, name=f"glide{kind}")


def _load_stage(path: Path, head_dim: int) -> Stage:
    """One of the four networks, read in a process of its own."""
    with unpickled(path) as found:
        return glide_stage(found.weights.shapes, found.weights.reader(), head_dim=head_dim)


def _chosen(source: Path | Sequence[Path], inpaint: bool | None) -> Sequence[Path]:
    if not isinstance(source, Path):
        if len(source) == 1:
            return _chosen(source[0], inpaint)
        for pair in (PLAIN, INPAINT):
            ordered = [path for name in pair for path in source if path.name == name]
            if len(ordered) == len(source) == len(pair):
                return ordered
        raise UsageError(
            f"got {', '.join(path.name for path in source)}; expected one folder, or "
            f"{' and '.join(PLAIN)}, or {' and '.join(INPAINT)}"
        )
    if source.is_file():
        return [source]
    found = {
        names: [source / name for name in names if (source / name).is_file()]
        for names in (PLAIN, INPAINT)
    }
    names = INPAINT if inpaint or (inpaint is None and not found[PLAIN]) else PLAIN
    if not found[names]:
        expected = ", ".join(INPAINT if inpaint else PLAIN)
        raise UsageError(f"{source} has none of {expected}; name the folder of GLIDE's files")
    return found[names]
