"""Open data by what lies there: shards (Parquet, tar), a saved data set, a folder of images."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from calotype.config.data import DataConfig
from calotype.data.account import findings
from calotype.data.arrow_disk import SavedDatasetSource, saved_dataset_folder
from calotype.data.columns import Selection
from calotype.data.folder import FolderSource
from calotype.data.grammar import CaptionGrammar
from calotype.data.images import SUFFIXES
from calotype.data.listing import list_folder
from calotype.data.parquet import IN_ORDER_CACHE_BYTES, ParquetSource
from calotype.data.source import (
    EncodedSource,
    ExampleSource,
    Found,
    SourceReport,
    Subset,
)
from calotype.data.table import TableSource
from calotype.data.tar import TarSource
from calotype.errors import ConfigError, UsageError

VALIDATION_SPLIT = "unseen_pair"
HELD_OUT_SPLITS = (VALIDATION_SPLIT, "unseen_concept")
VALIDATION_STEP = 50
VALIDATION_MINIMUM = 200
"""Sets that are no larger are trained on whole: a few images less would be felt."""


class TrainingData:
    """The examples of a path: those to train on, and those that are held out.

    Held out are rows of other splits than "train", or, where no rows were set aside, every 50th
    example of a set of more than 200. In a smaller set those are trained on as well, so that their
    loss says how training goes but not how well unseen captions fare.
    """

    def __init__(
        self,
        path: Path,
        *,
        resolution: int,
        data: DataConfig,
        grammar: CaptionGrammar | None = None,
        captioned: bool = True,
    ) -> None:
        """Open what is trained on; arguments and errors are those of `open_source`."""
        self._path, self._resolution, self._data = path, resolution, data
        self._grammar, self._captioned = grammar, captioned
        self._source = self._split("train")
        has_styles = isinstance(self._source, TableSource) and self._source.has_styles
        if data.styles is not None and not has_styles:
            raise ConfigError(
                f"got data.styles={list(data.styles)} for {path}, which has no styles to choose "
                "from; expected Parquet or a saved data set with a column `style` or `set`: leave "
                "it out"
            )
        if len(self._source) == 0:
            styles = "" if data.styles is None else f" of styles {list(data.styles)}"
            raise UsageError(f"got no examples{styles} to train on in {path}; check the path")

    @cached_property
    def training(self) -> ExampleSource:
        """The examples to train on."""
        if len(self._source) > VALIDATION_MINIMUM and self._aside is None:
            return Subset(self._source, VALIDATION_STEP, rest=True)
        return self._source

    @cached_property
    def validation(self) -> ExampleSource:
        """The examples to validate on: the split "unseen_pair", or every 50th example."""
        return Subset(self._source, VALIDATION_STEP) if self._aside is None else self._aside

    @cached_property
    def held_out(self) -> dict[str, ExampleSource]:
        """All that is held out, by name of the split; "validation" where no rows were set aside."""
        found = dict[str, ExampleSource]()
        for split in HELD_OUT_SPLITS:
            part = self._aside if split == VALIDATION_SPLIT else self._held_out_rows(split)
            if part is not None:
                found[split] = part
        return found or {"validation": self.validation}

    @cached_property
    def _aside(self) -> ExampleSource | None:
        return self._held_out_rows(VALIDATION_SPLIT)

    def _held_out_rows(self, split: str) -> ExampleSource | None:
        """Rows of a split, if there are any."""
        if not isinstance(self._source, TableSource) or not self._source.has_splits:
            return None
        rows = self._split(split)
        return rows if len(rows) > 0 else None

    def _split(self, split: str) -> EncodedSource:
        data = self._data
        selection = Selection(
            split,
            data.styles,
            data.caption_variants,
            self._grammar,
            captioned=self._captioned,
            labels=data.labels,
        )
        return _open(self._path, self._resolution, selection)


def open_source(
    path: Path,
    *,
    resolution: int,
    data: DataConfig,
    grammar: CaptionGrammar | None = None,
    captioned: bool = True,
) -> ExampleSource:
    """The examples to train on; see `TrainingData`.

    Args:
        path: a folder of Parquet shards, of shards by size (`256/*.parquet`, `1024/*.parquet`),
            of WebDataset tars, of a Hugging Face data set saved to disk, or of images; or one
            Parquet or tar file.
        resolution: side in pixels of the stage; decides among shards by size: the smallest that
            is large enough, or else the largest.
        data: styles and caption variants; where there is a column `split`, only "train" is taken.
        grammar: makes captions of rows that have none but name, keywords and style.
        captioned: whether captions are wanted; else tables may have none.

    Raises:
        UsageError: there is nothing to train on.
        ConfigError: styles are asked for, and the data says none.
    """
    return TrainingData(
        path, resolution=resolution, data=data, grammar=grammar, captioned=captioned
    ).training


def _open(path: Path, resolution: int, selection: Selection, **options: int) -> EncodedSource:
    if not path.exists():
        raise UsageError(f"got data {path}, which does not exist; expected a folder of images")
    files, labels = parquet_files(path, resolution), selection.labels
    if files:
        source = ParquetSource(path if path.is_dir() else path.parent, files, selection, **options)
        _tell_images(path, source.report)
        return source
    if path.suffix == ".tar" and not path.is_dir():
        return TarSource(path.parent, [path], labels=labels)
    if not path.is_dir():
        raise UsageError(f"got the file {path}; expected a folder, a .parquet or a .tar file")
    saved = saved_dataset_folder(path)
    if saved is not None:
        return SavedDatasetSource(saved, selection)
    listing = list_folder(path)
    # A backup among images is no data, nor is a preview among shards.
    if len(listing.tars) > len(listing.images):
        files = [path / name for name in listing.tars]
        return TarSource(path, files, listing, labels=labels)
    folder = FolderSource(path, listing, labels=labels)
    if len(folder) == 0:
        found = ", ".join(findings(folder.report)) or "nothing"
        raise UsageError(f"got no images and no Parquet shards in {path}: {found}; check the path")
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


def open_part(path: Path, part: str, selection: Selection) -> EncodedSource:
    """All examples of a part that are selected, to be read in order."""
    return _open(path / part, 1, selection, cache_bytes=IN_ORDER_CACHE_BYTES)


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
