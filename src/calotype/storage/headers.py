"""The headers of safetensors files: names, shapes and notes, read without a single tensor."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calotype.errors import CalotypeError
from calotype.storage.reading import AGAIN, open_regular

NOTES = "calotype"
"""Under this name this library's own files keep notes, as JSON, in the header's metadata."""
_LONGEST = 100_000_000  # as safetensors itself


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself; nothing of it is believed yet.

    Args:
        tensors: entries by name.
        metadata: whatever stands under "__metadata__".
        start: where the tensors begin, in bytes.
        data_bytes: how many bytes follow the header.
    """

    tensors: dict[str, Any]
    metadata: Any
    start: int
    data_bytes: int


def read_header(path: Path) -> Header:
    """Read the header of a safetensors file.

    Raises:
        CalotypeError: missing, truncated or damaged.
    """
    try:
        with open_regular(path) as file:
            total = os.fstat(file.fileno()).st_size
            begin = file.read(8)
            length = struct.unpack("<Q", begin)[0] if len(begin) == 8 else total
            if length > min(_LONGEST, total - 8):
                raise CalotypeError(f"{path} is truncated or no safetensors file; {AGAIN}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise CalotypeError(f"cannot read {path}: {error.strerror}; {AGAIN}") from error
    except (ValueError, RecursionError) as error:
        raise CalotypeError(f"{path} has a damaged header; {AGAIN}") from error
    if not isinstance(header, dict):
        raise CalotypeError(f"{path} has a damaged header; {AGAIN}")
    metadata = header.pop("__metadata__", None)
    return Header(header, metadata, 8 + length, total - 8 - length)
