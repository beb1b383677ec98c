"""A plain folder of images, with captions beside them.

Images are found in all subfolders. A caption is the text file of the same name (`fox.png`,
`fox.txt`), or a row of `metadata.jsonl` or `metadata.csv` in the image's folder or one above,
with `file_name` relative to that folder and `text` or `caption` (in JSON a list is several
captions). An image without a caption trains as unconditional.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from calotype.data.example import Caption
from calotype.data.fingerprint import files_fingerprint
from calotype.data.images import MAX_FILE_BYTES, BrokenImage
from calotype.data.labels import FOLDER, label_text
from calotype.data.listing import CAPTION_SUFFIX, Listing, list_folder
from calotype.data.metadata import read_metadata
from calotype.data.source import EncodedSource, SourceReport
from calotype.data.text import MAX_CAPTION_BYTES, DecodedText, decode_caption, encodable
from calotype.storage.reading import read_regular


class FolderSource(EncodedSource):
    """Images of a folder in the order of their names."""

    def __init__(
        self, root: Path, listing: Listing | None = None, *, labels: str | None = None
    ) -> None:
        """Read the metadata.

        Args:
            root: the folder.
            listing: what lies in it, if that is known.
            labels: as in `DataConfig`.
        """
        listing = list_folder(root) if listing is None else listing
        self.root = root
        self.report = SourceReport(ignored=listing.ignored)
        for name in listing.tars:
            listing.ignore("tar", name)
        self._names = listing.images
        self._captions = listing.captions
        self._metadata_files = listing.metadata
        self._labels_of = labels
        self._texts: dict[str, tuple[str, ...]] = {}
        self._labels: dict[str, str] = {}
        images = frozenset(listing.images) if listing.metadata else frozenset[str]()
        for file in self._metadata_files:
            self._read_metadata(file, images)
        # Images that metadata name and that are not there are counted as broken, not forgotten.
        self._names.extend(sorted({*self._texts, *self._labels} - images))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and sizes of images, text files and metadata."""
        images = [self.root / name for name in self._names]
        texts = [t for name in self._names if os.path.exists(t := self._caption_file(name))]
        return files_fingerprint(self.root, {*images, *texts, *self._metadata_files})

    def __len__(self) -> int:
        return len(self._names)

    def key(self, index: int) -> str:
        """Path of the image in the folder, with forward slashes; see `encodable`."""
        return encodable(self._names[index])

    def image_bytes(self, index: int) -> bytes:
        """The encoded image; raises `BrokenImage`."""
        try:
            return read_regular(self.root / self._names[index], most_bytes=MAX_FILE_BYTES)
        except OSError as error:
            raise BrokenImage(f"cannot be read: {error.strerror}") from error

    def captions(self, index: int) -> tuple[Caption, ...]:
        """From metadata where it names the image, else from the text file beside it."""
        name = self._names[index]
        texts = self._texts.get(name)
        if texts is None:
            texts = self._text_file(name)
        captions = tuple(Caption(text) for text in texts if text)
        if not captions:
            self.report.empty_captions.add(encodable(name))
        return captions

    def label(self, index: int) -> str | None:
        """Name of the folder that the image lies in, or what the metadata say."""
        name = self._names[index]
        if self._labels_of == FOLDER:
            return label_text(os.path.basename(os.path.dirname(name)))
        return self._labels.get(name)

    def _caption_file(self, name: str) -> Path:
        """Where the caption of an image is looked for."""
        return self.root / self._captions.get(name, os.path.splitext(name)[0] + CAPTION_SUFFIX)

    def _text_file(self, name: str) -> tuple[str, ...]:
        try:
            data = read_regular(self._caption_file(name), most_bytes=MAX_CAPTION_BYTES)
            text = decode_caption(data)
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError:  # a FIFO, too large, or not ours to read
            text = DecodedText("", True)
        if text.replaced:
            self.report.replaced_captions.add(encodable(name))
        return (text.text.strip(),)

    def _read_metadata(self, file: Path, images: frozenset[str]) -> None:
        folder = file.parent.relative_to(self.root)
        for row in read_metadata(file, labels=self._labels_of):
            key = os.path.normpath((folder / row.name).as_posix()).replace(os.sep, "/")
            reason = row.reason
            if reason is None and key not in images:
                reason = self._fault_of_name(key)
            if reason is not None:
                place = f"{file.relative_to(self.root).as_posix()}:{row.line}"
                self.report.bad_metadata[encodable(place)] = reason
                continue
            if row.texts is not None:
                self._texts[key] = row.texts
            if row.label is not None:
                self._labels[key] = row.label
            if row.replaced:
                self.report.replaced_captions.add(encodable(key))

    def _fault_of_name(self, key: str) -> str | None:
        """Why no image can have this name; None = one could, if it were there."""
        if key.startswith("../") or os.path.isabs(key):
            return f"names {key!r:.200}, outside the folder"
        try:
            key.encode()  # JSON can say surrogates, which no file system here can
            (self.root / key).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            return f"names {key!r:.200}: {reason}"
        return None
