"""Faults on request, for tests of what survives them: only where the environment asks for them."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

VARIABLE = "CALOTYPE_ENGINE_FAULTS"
"""Set where prompts are obeyed; to a folder, where engines are to remember what has been."""
_FAULT = re.compile(r"fault:(die|hang|memory|error)@([0-9]+|load|file)(?:x([0-9]+))?(!)?")


def inject(prompt: str, place: int | str, images: int = 1) -> None:
    """Do what a prompt such as "fault:die@64" says before a network call of that stage.

    "fault:memory@64x1" only where more than one image is in the call; "fault:die@64!" once, and not
    in the engines that follow, either; "@load" while weights are read, "@file" when the file is
    ready to be sent.

    Raises:
        MemoryError: it says so.
        RuntimeError: so does it.
    """
    if VARIABLE not in os.environ:
        return
    for kind, where, alone, once in _FAULT.findall(prompt):
        if where != str(place) or (alone and images <= int(alone)):
            continue
        if once and not _is_first(f"{kind}@{where}"):
            continue
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(3600)
        raise MemoryError("as asked for") if kind == "memory" else RuntimeError("as asked for")


def _is_first(fault: str) -> bool:
    try:
        Path(os.environ[VARIABLE], fault).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
