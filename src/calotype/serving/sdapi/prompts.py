"""Their syntax within prompts: weights and LoRAs, which captions here do not have."""

from __future__ import annotations

import re

_NETWORK = re.compile(r"<(?:lora|lyco|hypernet):[^<>]{0,500}>")
_WEIGHT = re.compile(r"\(([^()]*):[ ]?[0-9]{0,4}\.?[0-9]{1,8}[ ]?\)")
_DEEPEST = 10


def plain(prompt: str) -> tuple[str, list[str]]:
    """The caption that a prompt means, and what of it has no effect.

    `(words:1.2)` becomes `words`, `<lora:name:1>` goes; other parentheses may be meant and stay.
    """
    found, ignored = _NETWORK.sub("", prompt), []
    if found != prompt:
        ignored.append("prompt.lora")
        found = re.sub(r" {2,}", " ", found).strip()
    without = found
    for _ in range(_DEEPEST):
        without, count = _WEIGHT.subn(r"\1", without)
        if not count:
            break
    if without != found:
        ignored.append("prompt.weights")
    return without, ignored
