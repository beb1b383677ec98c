"""Faults on request, for tests of what survives them: only where the environment asks for them."""

from __future__ import annotations

import os
import re
import signal
import time

VARIABLE = "CALOTYPE_ENGINE_FAULTS"
_FAULT = re.compile(r"fault:(die|hang|memory|error)@([0-9]+)(?:x([0-9]+))?")


def inject(prompt: str, resolution: int, images: int) -> None:
    """Do what a prompt such as "fault:die@64" says before a network call of that stage.

    "fault:memory@64x1" only where more than one image is in the call.

    Raises:
        MemoryError: it says so.
        RuntimeError: so does it.
    """
    if VARIABLE not in os.environ:
        return
    for kind, stage, alone in _FAULT.findall(prompt):
        if int(stage) != resolution or (alone and images <= int(alone)):
            continue
        if kind == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(3600)
        raise MemoryError("as asked for") if kind == "memory" else RuntimeError("as asked for")
