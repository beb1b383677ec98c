"""Which folder a model's name or path means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from calotype.cascade.io import CASCADE_FILE, STAGE_FILE, CascadeFile, read_cascade_file
from calotype.config.stage import CascadeConfig, StageConfig
from calotype.config.typed_json import load_settings
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.vision.classifier import classifier_in
from calotype.vision.clip import clip_in

CASCADE_FOLDER = "cascade"
"""Holds the cascade in a checkpoint, and beside runs of one stage each."""
_PICKLES = (".pt", ".pth", ".ckpt", ".bin")


class NoCascade(UsageError):
    """A path that nothing is known about: neither a cascade nor anything like one."""


@dataclass(frozen=True)
class CascadeFolder:
    """A cascade on disk, its settings read and its weights not; `path` is absolute."""

    path: Path
    file: CascadeFile
    config: CascadeConfig

    @property
    def weights(self) -> dict[int, str]:
        """SHA-256 of each stage's weights file, by resolution."""
        pairs = zip(self.config.stages, self.file.stages, strict=True)
        return {stage.resolution: entry.sha256 for stage, entry in pairs}

    def repeated(self, largest: int) -> CascadeFolder:
        """The cascade with its last stage again and again, up to images of so many pixels a side.

        A base, or a stage with a draft of the whole image, is not repeated.
        """
        opened, last = self, self.config.stages[-1]
        if last.lowres_resolution is None or last.draft is not None:
            return self
        while (last := last.again()).resolution <= largest:
            stages, entries = opened.config.stages, opened.file.stages
            config = replace(opened.config, stages=(*stages, last))
            file = replace(opened.file, stages=(*entries, entries[-1]))
            opened = replace(opened, file=file, config=config)
        return opened


def open_cascade(path_or_name: str | Path | None) -> CascadeFolder:
    """Find a cascade and read its settings; arguments and errors as of `find_cascade`."""
    folder = find_cascade(path_or_name).resolve()
    file = read_cascade_file(folder)
    stages = tuple(load_settings(folder / s.folder / STAGE_FILE, StageConfig) for s in file.stages)
    try:
        config = CascadeConfig(stages=stages, text_encoder=file.text_encoder, name=file.name)
    except ConfigError as error:
        raise ConfigError(f"{folder / CASCADE_FILE}: {error}") from error
    return CascadeFolder(folder, file, config)


def find_cascade(path_or_name: str | Path | None) -> Path:
    """The cascade folder that a name or path means.

    Args:
        path_or_name: None or "default" for the embedded cascade; else a cascade folder, a
            checkpoint, or a training run, whose newest checkpoint is taken.

    Raises:
        UsageError: nothing usable is there; `NoCascade` where nothing at all is recognised.
        CalotypeError: the embedded weights are not installed, or the run has no checkpoint.
    """
    if path_or_name is None or str(path_or_name) == "default":
        folder = Path(__file__).parent.parent / "assets" / "default"
        if not (folder / CASCADE_FILE).is_file():
            raise CalotypeError(
                "this installation has no embedded weights; give a cascade with --model FOLDER, or "
                "train one with: calotype train"
            )
        return folder
    path = Path(path_or_name)
    try:
        return _find_in(path)
    except (OSError, ValueError) as error:
        if isinstance(error, CalotypeError):
            raise
        raise NoCascade(f"got model {str(path)!r:.200}: {error}; name a cascade folder") from error


def _find_in(path: Path) -> Path:
    for folder in (path, path / "checkpoints" / "latest" / CASCADE_FOLDER, path / CASCADE_FOLDER):
        if (folder / CASCADE_FILE).is_file():
            return folder.resolve()
    if (path / "model_index.json").is_file():
        raise UsageError(f"{path} is a diffusers folder; convert it first: calotype convert {path}")
    if (path / "imagen.json").is_file():
        raise UsageError(
            f"got {path}, a cascade of imagen-pytorch; expected one of calotype's own: of this one "
            "sample with calotype sample, measure with calotype evaluate, or load it with "
            "calotype.interop.imagen_pytorch.load"
        )
    if clip_in(path) is not None:
        raise UsageError(f"{path} is a CLIP, which scores images; expected a cascade")
    if classifier_in(path) is not None:
        raise UsageError(
            f"{path} is a classifier, which guides a cascade with --classifier; expected a cascade"
        )
    if (path / STAGE_FILE).is_file():
        raise UsageError(f"{path} is one stage; join stages first: calotype assemble")
    if (path / "recipe.json").is_file():
        raise CalotypeError(f"the run {path} has no checkpoint yet; let it train for longer")
    files = (path, *path.iterdir()) if path.is_dir() else (path,)
    if any(file.suffix in _PICKLES and file.is_file() for file in files):
        raise UsageError(f"{path} holds pickled weights; convert it first: calotype convert {path}")
    raise NoCascade(
        f"got model {str(path)!r:.200}; expected 'default', a cascade folder (with {CASCADE_FILE}) "
        "or the folder of a training run"
    )
