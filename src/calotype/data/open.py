"""Open data by what lies there: Parquet shards, shards by size, or a folder of pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from calotype.config import DataConfig
from calotype.data.folder import FolderSource
from calotype.data.parquet import ParquetSource, Selection
from calotype.data.source import EveryNth, ExampleSource
from calotype.errors import UsageError

VALIDATION_SPLIT = "unseen_pair"
VALIDATION_STEP = 50


def open_source(path: Path, *, resolution: int, data: DataConfig) -> ExampleSource:
    """The examples to train on.

    Args:
        path: a folder of Parquet shards, of shards by size (`256/*.parquet`, `1024/*.parquet`),
            of pictures; or one Parquet file.
        resolution: side in pixels of the stage; decides among shards by size: the smallest that
            is large enough, or else the largest.
        data: styles and caption variants; where there is a column `split`, only "train" is taken.

    Raises:
        UsageError: there is nothing to train on.
    """
    source = _open(path, resolution, Selection("train", data.styles, data.caption_variants))
    if len(source) == 0:
        styles = "" if data.styles is None else f" of styles {list(data.styles)}"
        raise UsageError(f"got no examples{styles} to train on in {path}; check --data")
    return source


def validation_source(path: Path, *, resolution: int, data: DataConfig) -> ExampleSource:
    """The examples to validate on.

    Rows of the split "unseen_pair" where there are any. Other data have no part that was set
    aside: every 50th example, which is trained on as well, so that its loss says how training
    goes but not how well unseen captions fare.
    """
    selection = Selection(VALIDATION_SPLIT, data.styles, data.caption_variants)
    source = _open(path, resolution, selection)
    if isinstance(source, ParquetSource) and source.has_splits and len(source) > 0:
        return source
    return EveryNth(_open(path, resolution, replace(selection, split="train")), VALIDATION_STEP)


def _open(path: Path, resolution: int, selection: Selection) -> ExampleSource:
    if not path.exists():
        raise UsageError(f"got data {path}, which does not exist; expected a folder of pictures")
    files = parquet_files(path, resolution)
    if files:
        root = path if path.is_dir() else path.parent
        return ParquetSource(root, files, selection)
    if not path.is_dir():
        raise UsageError(f"got the file {path}; expected a folder, or a .parquet file")
    folder = FolderSource(path)
    if len(folder) == 0:
        raise UsageError(f"got no pictures and no Parquet shards in {path}; check --data")
    return folder


def parquet_files(path: Path, resolution: int) -> list[Path]:
    """The Parquet shards at `path` for a resolution; empty where there are none."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    sizes = sorted(
        int(folder.name)
        for folder in path.iterdir()
        if folder.name.isdigit() and folder.is_dir() and any(folder.glob("*.parquet"))
    )
    if sizes:
        size = next((size for size in sizes if size >= resolution), sizes[-1])
        return sorted((path / str(size)).glob("*.parquet"))
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
