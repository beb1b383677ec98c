"""Text from files and other people, made safe to print: terminals obey control characters."""

from __future__ import annotations

import re

# C0 and C1 controls (escape sequences begin with one), what some programs take as a line's end, and
# what turns the direction of all text after it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text on one line, with control characters written as escapes such as \x1b."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
