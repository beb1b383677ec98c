"""Open data by what lies there: shards (Parquet, tar), a saved data set, a folder of images."""

from __future__ import annotations

from pathlib import Path

from calotype.config.data import DataConfig
from calotype.data.account import findings
from calotype.data.arrow_disk import SavedDatasetSource, saved_dataset_folder
from calotype.data.columns import Selection
from calotype.data.folder import FolderSource
from calotype.data.images import SUFFIXES
from calotype.data.listing import list_folder
from calotype.data.parquet import ParquetSource
from calotype.data.source import (
    EncodedSource,
    EveryNth,
    ExampleSource,
    Found,
    SourceReport,
    WithoutEveryNth,
)
from calotype.data.tar import TarSource
from calotype.errors import ConfigError, UsageError

VALIDATION_SPLIT = "unseen_pair"
HELD_OUT_SPLITS = (VALIDATION_SPLIT, "unseen_concept")
VALIDATION_STEP = 50
VALIDATION_MINIMUM = 200
"""Sets that are no larger are trained on whole: a few images less would be felt."""


def open_source(path: Path, *, resolution: int, data: DataConfig) -> ExampleSource:
    """The examples to train on.

    What `validation_source` validates on is left out: rows of another split than "train", or,
    where no rows were set aside, every 50th example of a set of more than 200. In a smaller set
    those are trained on as well.

    Args:
        path: a folder of Parquet shards, of shards by size (`256/*.parquet`, `1024/*.parquet`),
            of WebDataset tars, of a Hugging Face data set saved to disk, or of images; or one
            Parquet or tar file.
        resolution: side in pixels of the stage; decides among shards by size: the smallest that
            is large enough, or else the largest.
        data: styles and caption variants; where there is a column `split`, only "train" is taken.

    Raises:
        UsageError: there is nothing to train on.
        ConfigError: styles are asked for, and the data says none.
    """
    source = _open(path, resolution, Selection("train", data.styles, data.caption_variants))
    if data.styles is not None and not _has_styles(source):
        raise ConfigError(
            f"got data.styles={list(data.styles)} for {path}, which has no styles to choose from; "
            "expected Parquet or a saved data set with a column `style` or `set`: leave it out"
        )
    if len(source) == 0:
        styles = "" if data.styles is None else f" of styles {list(data.styles)}"
        raise UsageError(f"got no examples{styles} to train on in {path}; check --data")
    if len(source) > VALIDATION_MINIMUM and _set_aside(source, path, resolution, data) is None:
        return WithoutEveryNth(source, VALIDATION_STEP)
    return source


def validation_source(path: Path, *, resolution: int, data: DataConfig) -> ExampleSource:
    """The examples to validate on, for the same arguments as `open_source`.

    Rows of the split "unseen_pair" where there are any. Otherwise every 50th example, which
    `open_source` leaves out of training if there are more than 200; in a smaller set they are
    trained on, so that their loss says how training goes but not how well unseen captions fare.
    """
    source = _open(path, resolution, Selection("train", data.styles, data.caption_variants))
    aside = _set_aside(source, path, resolution, data)
    return EveryNth(source, VALIDATION_STEP) if aside is None else aside


def held_out_sources(path: Path, *, resolution: int, data: DataConfig) -> dict[str, ExampleSource]:
    """All that `open_source` leaves out, by name of the split; "validation" where there are none.

    Rows of the splits "unseen_pair" and "unseen_concept", or else what `validation_source` gives.
    """
    found = dict[str, ExampleSource]()
    for split in HELD_OUT_SPLITS:
        part = _open(path, resolution, Selection(split, data.styles, data.caption_variants))
        if isinstance(part, ParquetSource | SavedDatasetSource) and part.has_splits and len(part):
            found[split] = part
    return found or {"validation": validation_source(path, resolution=resolution, data=data)}


def _has_styles(source: EncodedSource) -> bool:
    return isinstance(source, ParquetSource | SavedDatasetSource) and source.has_styles


def _set_aside(
    source: EncodedSource, path: Path, resolution: int, data: DataConfig
) -> EncodedSource | None:
    """Rows of the split for validation, if there are any beside those of `source`."""
    if not isinstance(source, ParquetSource | SavedDatasetSource) or not source.has_splits:
        return None
    selection = Selection(VALIDATION_SPLIT, data.styles, data.caption_variants)
    aside = _open(path, resolution, selection)
    return aside if len(aside) > 0 else None


def _open(path: Path, resolution: int, selection: Selection) -> EncodedSource:
    if not path.exists():
        raise UsageError(f"got data {path}, which does not exist; expected a folder of images")
    files = parquet_files(path, resolution)
    if files:
        source = ParquetSource(path if path.is_dir() else path.parent, files, selection)
        _tell_images(path, source.report)
        return source
    if path.suffix == ".tar" and not path.is_dir():
        return TarSource(path.parent, [path])
    if not path.is_dir():
        raise UsageError(f"got the file {path}; expected a folder, a .parquet or a .tar file")
    saved = saved_dataset_folder(path)
    if saved is not None:
        return SavedDatasetSource(saved, selection)
    listing = list_folder(path)
    # A backup among images is no data, nor is a preview among shards.
    if len(listing.tars) > len(listing.images):
        return TarSource(path, [path / name for name in listing.tars], listing)
    folder = FolderSource(path, listing)
    if len(folder) == 0:
        found = ", ".join(findings(folder.report)) or "nothing"
        raise UsageError(f"got no images and no Parquet shards in {path}: {found}; check --data")
    return folder


def _tell_images(path: Path, report: SourceReport) -> None:
    """Note the images that lie beside Parquet shards, which are the data."""
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix.lower() in SUFFIXES:
                report.ignored.setdefault("image", Found()).add(file.name)


def parts(path: Path) -> tuple[str, ...]:
    """Names of what lies at `path`, for work over everything: sizes of shards, or one name, ""."""
    if path.is_dir() and parquet_files(path, 1):
        return tuple(str(size) for size in _sizes(path)) or ("",)
    return ("",)


def open_part(
    path: Path, part: str = "", *, split: str | None = None, variants: int = 16
) -> EncodedSource:
    """All examples of a part, of one split or (None) of whatever split."""
    return _open(path / part, 1, Selection(split, variants=variants))


def parquet_files(path: Path, resolution: int) -> list[Path]:
    """The Parquet shards at `path` for a resolution; empty where there are none."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    if sizes := _sizes(path):
        size = next((size for size in sizes if size >= resolution), sizes[-1])
        return sorted((path / str(size)).glob("*.parquet"))
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def _sizes(path: Path) -> list[int]:
    """Resolutions of shards in folders named by them."""
    return sorted(
        int(folder.name)
        for folder in path.iterdir()
        if folder.name.isdigit() and folder.is_dir() and any(folder.glob("*.parquet"))
    )
