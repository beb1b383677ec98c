"""Loading and converting folders of other programs: which family a folder is of."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from calotype.cascade import Cascade
from calotype.errors import UsageError
from calotype.interop import deepfloyd, karlo
from calotype.interop.glide.load import convert_glide, is_glide
from calotype.interop.pickles import unpickled
from calotype.interop.safety import open_weights, read_json

_INDEX = "model_index.json"
_STEM = "diffusion_pytorch_model"
_LATENT = (
    "works in the space of an autoencoder, not of pixels; this library runs pixel-space models: "
    "DeepFloyd IF, GLIDE and Karlo"
)


def load(*folders: Path | str, text_encoder: str | None = None) -> Cascade:
    """A cascade with the weights of a published model.

    Pickles are refused: `convert` alone reads them, and so GLIDE's files, which are nothing else.

    Args:
        folders: one of Karlo; or the stages of DeepFloyd IF, from coarse to fine.
        text_encoder: specification of the encoder; None takes the one beside the weights.

    Raises:
        UsageError: a folder holds something else, or pickles.
        CalotypeError: files are missing or damaged.
    """
    places = [Path(folder) for folder in folders]
    return _load(places, _pipelines(places), places, text_encoder)


def convert(
    folders: Sequence[Path | str],
    out: Path | str,
    *,
    dtype: torch.dtype = torch.float32,
    text_encoder: str | None = None,
    tokenizer: Path | None = None,
) -> None:
    """Write a published model as a cascade folder that `Cascade.load` reads.

    Pickled weights are read in a process of their own, with `weights_only=True` and a limit on
    memory. The text encoder stays where it is; the cascade names its folder.

    Args:
        folders: as for `load`; or one of GLIDE, or its base and up-sampler.
        out: the new folder.
        dtype: number type of the weights written.
        text_encoder: as for `load`.
        tokenizer: folder of GLIDE's tokenizer.

    Raises:
        CalotypeError: as for `load`.
    """
    places = [Path(folder) for folder in folders]
    if tokenizer is not None or (places and all(is_glide(place) for place in places)):
        if not places or not all(is_glide(place) for place in places):
            raise UsageError("got a tokenizer; expected one for GLIDE alone")
        if text_encoder is not None:
            raise UsageError("got a text encoder for GLIDE, which has its own; leave it out")
        source = places[0] if len(places) == 1 else places
        convert_glide(source, Path(out), tokenizer=tokenizer, dtype=dtype)
        return
    kinds = _pipelines(places)
    with tempfile.TemporaryDirectory(prefix="calotype-") as name:
        readable = [_readable(place, Path(name) / str(k)) for k, place in enumerate(places)]
        _load(readable, kinds, places, text_encoder).save(out, dtype=dtype)


def _pipelines(places: Sequence[Path]) -> list[str]:
    if not places:
        raise UsageError("got no folder; expected that of a published model")
    return [_pipeline(place) for place in places]


def _pipeline(folder: Path) -> str:
    """The class its `model_index.json` names, if this library knows it."""
    if not folder.exists():
        raise UsageError(f"{str(folder)!r:.200} does not exist; name a published model's folder")
    if is_glide(folder):
        raise UsageError(
            f"{folder} holds pickles of GLIDE; convert them first: "
            f"calotype convert {folder} --tokenizer FOLDER"
        )
    if not (folder / _INDEX).is_file():
        raise UsageError(f"{str(folder)!r:.200} has no {_INDEX}; name a published model's folder")
    kind = read_json(folder / _INDEX).get("_class_name")
    if kind in deepfloyd.PIPELINES or kind in karlo.PIPELINES:
        return str(kind)
    if isinstance(kind, str) and ("StableDiffusion" in kind or "Latent" in kind):
        raise UsageError(f"{folder} is a {kind:.80}, which {_LATENT}")
    known = [*deepfloyd.PIPELINES, *karlo.PIPELINES]
    raise UsageError(f"{folder} is a {kind!r:.80}; known: {known}")


def _load(
    places: Sequence[Path], kinds: Sequence[str], originals: Sequence[Path], encoder: str | None
) -> Cascade:
    if kinds[0] in karlo.PIPELINES:
        if len(places) > 1:
            raise UsageError("got several folders of Karlo; expected one, which holds everything")
        _check_encoder(originals[0])
        spec = f"clip_pooled:{originals[0].resolve()}" if encoder is None else encoder
        prior = karlo.load_prior(places[0])
        return Cascade(spec, karlo.load_stages(places[0]), name="karlo", prior=prior)
    if any(kind not in deepfloyd.PIPELINES for kind in kinds):
        raise UsageError("got folders of different models; expected the stages of one")
    if encoder is None:
        encoder = deepfloyd.find_text_encoder(list(originals))
        _check_encoder(Path(encoder.partition(":")[2]))
    stages = sorted(map(deepfloyd.load_stage, places), key=lambda s: s.config.resolution)
    return Cascade(encoder, stages, name="deepfloyd-if")


def _check_encoder(folder: Path) -> None:
    """Look at the encoder's headers: transformers would follow an index anywhere."""
    open_weights(folder / "text_encoder", "model")


def _readable(folder: Path, copy: Path) -> Path:
    """The folder, or a copy of its settings with safetensors in the place of pickles."""
    components = [component for component in sorted(folder.iterdir()) if component.is_dir()]
    if not any(map(_holds_pickles_only, components)):
        return folder
    for component in components:
        place = copy / component.name
        place.mkdir(parents=True)
        for file in component.iterdir():
            if file.suffix == ".json" and file.is_file():
                shutil.copy(file, place / file.name)
            elif file.suffix == ".safetensors":
                (place / file.name).symlink_to(file.resolve())
        if _holds_pickles_only(component):
            found = [component / f"{_STEM}.bin", component / f"{_STEM}.fp16.bin"]
            with unpickled(next((f for f in found if f.is_file()), found[0])) as weights:
                for path in {entry.path for entry in weights.weights.values()}:
                    shutil.move(path, place / f"{_STEM}.safetensors")
    return copy


def _holds_pickles_only(folder: Path) -> bool:
    return any(folder.glob(f"{_STEM}*.bin")) and not any(folder.glob(f"{_STEM}*.safetensors"))
