"""What a request may have at most, in one table; `serving.job` has the limits of jobs.

Each has a test at, just above and far above it: `tests/serving/front/test_limits.py`.
"""

from __future__ import annotations

from typing import Any

MIB = 2**20

MOST_BODY = 48 * MIB  # two images of 20 MiB, or one as base64, and all else
MOST_BODIES = 8 * MOST_BODY
"""Bytes of all bodies that are read, or whose requests are not answered yet."""
MOST_DECODED = 512 * MIB
"""Bytes of all decoded images of requests and jobs that are not over; two more always have room."""
BODY_SECONDS = 30.0
MOST_LOGIN = 4096  # bytes

MOST_DEPTH = 32  # of JSON
MOST_VALUES = 20_000  # of JSON: a value takes up to thirty times its bytes once it is parsed
MOST_ESCAPED = 100_000  # quotes within a string of JSON
MOST_BACKSLASHES = 1000  # in a row, within a string of JSON

MOST_FILES = 2  # an image and a mask
MOST_FIELDS = 64
FORM_PIECE = 2**18  # bytes that are parsed at once
MOST_FIELD = MIB  # bytes; a prompt of 32,000 characters has at most 128 KB

MOST_HEADERS = 100
MOST_HEADER_BYTES = 32 * 1024  # of all together, with the address
HEAD_SECONDS = 10.0  # from a connection, or a request's first byte, to the end of its headers
MOST_OPEN_FILES = 65_536  # each connection is one; as far as the system has as many

WRONG_KEY_SECONDS = 1.0
MOST_WRONG_KEYS = 32  # that wait for their answer at the same time; the next is told to come back
MOST_SESSIONS = 1000
SESSION_SECONDS = 30 * 24 * 3600

LINK_SECONDS = 3600.0
MOST_LINKS = 10_000
MOST_LINKED = 256 * MIB  # bytes of images behind links that are not kept on the disk

FORM_LIMITS: dict[str, Any] = {
    "max_files": MOST_FILES,
    "max_fields": MOST_FIELDS,
    "max_part_size": MOST_FIELD,
}
"""Of `request.form(**FORM_LIMITS)`; python-multipart bounds the headers of a part."""
