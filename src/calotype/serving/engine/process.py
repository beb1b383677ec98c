"""The engine as a process: frames on stdin and stdout, one thread that computes, few beside it.

It ends at once when its stdin does: the front has gone. What libraries print goes to stderr.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import torch

from calotype.errors import CalotypeError, UsageError
from calotype.runtime import Runtime
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.loop import Loop
from calotype.serving.engine.open import plan_request
from calotype.serving.engine.orders import read_order
from calotype.serving.engine.outgoing import Outgoing
from calotype.serving.engine.refusal import refusal
from calotype.serving.engine.shelf import Entry, Shelf, open_model
from calotype.serving.engine.signing import Signer
from calotype.serving.engine.tasks import Given
from calotype.serving.job import JobRequest
from calotype.serving.wire import Message, read

_STATS_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How an engine runs.

    Args:
        models: the first is the default.
        runtime: how networks are computed.
        max_batch: images of a network call; None = as many as hold.
        memory: bytes of all weights; None = all stay loaded.
        idle_unload: seconds after which unused weights are let go; None = never.
        metadata: whether files say how they were made.
        c2pa_cert: chain of the certificate that files are signed with; None = they are not.
        c2pa_key: its private key.
    """

    models: tuple[Entry, ...]
    runtime: Runtime
    max_batch: int | None = None
    memory: int | None = None
    idle_unload: float | None = None
    metadata: bool = True
    c2pa_cert: Path | None = None
    c2pa_key: Path | None = None

    def signer(self) -> Signer | None:
        """Who signs files.

        Raises:
            UsageError: one of the two files is missing, or they do not sign.
        """
        if self.c2pa_cert is None and self.c2pa_key is None:
            return None
        if self.c2pa_cert is None or self.c2pa_key is None:
            raise UsageError("got one of certificate and key; expected both, or none")
        return Signer(self.c2pa_cert, self.c2pa_key)


def taken_streams() -> tuple[BinaryIO, BinaryIO]:
    """The frames' streams, stdin and stdout; what else is printed goes to stderr from now on."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", 2**16)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return incoming, outgoing


def die_first() -> None:
    """Where memory runs out the kernel kills this process before others: it is started again."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


class Engine:
    """An engine on two streams.

    Args:
        settings: how it runs.
        incoming: frames of the front.
        outgoing: frames to it.

    Raises:
        CalotypeError: a model's settings cannot be read.
    """

    def __init__(self, settings: EngineSettings, incoming: BinaryIO, outgoing: BinaryIO) -> None:
        self.incoming = incoming
        runtime = settings.runtime
        self.threads = runtime.threads
        models = [open_model(entry, runtime) for entry in settings.models]
        self.shelf = Shelf(models, settings.memory, settings.idle_unload)
        self.out = Outgoing(outgoing, metadata=settings.metadata, signer=settings.signer())
        self.loop = Loop(self.shelf, Limits(settings.max_batch, runtime.device), self.out)
        self._checks: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._ready = {
            "op": "ready",
            "pid": os.getpid(),
            "models": [model.told() for model in models],
            "device": runtime.device,
            "dtype": runtime.dtype,
        }

    def run(self) -> None:
        """Work until the front says `stop`, or has gone, which ends the process."""
        torch.set_num_threads(self.threads)  # for this thread; where models are loaded has its own
        self.out.tell(self._ready)
        for work in (self._read, self._check, self._tell_stats):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        self.loop.run()
        self.out.close()

    def _read(self) -> NoReturn:
        code = 1  # whatever it was: without a front there is nothing to do
        try:
            while (message := read(self.incoming)) is not None:
                self._take(message)
            code = 0
        except CalotypeError as error:
            print(f"calotype: {error}", file=sys.stderr)
        finally:
            os._exit(code)

    def _take(self, message: Message) -> None:
        head, loop = message.head, self.loop
        match message.op:
            case "check":
                self._checks.put(message)
            case "start":
                self._start(message)
            case "cancel":
                loop.post(partial(loop.cancel, head["id"]))
            case "interrupt":
                loop.post(partial(loop.interrupt, head["id"]))
            case "unload":
                loop.post(partial(loop.unload_named, head.get("model")))
            case "stop":
                loop.post(loop.stop)
            case other:
                print(f"calotype: the engine knows no {other!r:.80}", file=sys.stderr)

    def _start(self, message: Message) -> None:
        try:
            order = read_order(message)
        except (ValueError, TypeError, KeyError, CalotypeError) as error:
            told = {"op": "failed", "id": message.head.get("id"), "kind": "usage"}
            self.out.tell({**told, "message": str(error)})
            return
        self.loop.post(partial(self.loop.start, order))

    def _check(self) -> NoReturn:
        while True:
            self.out.tell(checked(self.shelf, self._checks.get()))

    def _tell_stats(self) -> NoReturn:
        while True:
            time.sleep(_STATS_SECONDS)
            active, waiting = len(self.loop.active), len(self.loop.waiting)
            told = {"op": "stats", "rss": resident_bytes(), "active": active, "waiting": waiting}
            self.out.tell(told)


def checked(shelf: Shelf, message: Message) -> dict[str, Any]:
    """The answer to a `check`: a plan, or why there is none."""
    head = message.head
    told = {"op": "refused", "id": head.get("id"), "param": None}
    try:
        request = JobRequest.model_validate(head["request"])
        given, size = None, head.get("source")
        if size is not None:
            given = Given((int(size[1]), int(size[0])), masked=bool(head.get("mask")))
        try:
            plan = plan_request(shelf, request, given)
        except CalotypeError as error:
            return {**told, **refusal(shelf, request, given, error)}
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return {**told, "message": f"got a request that is none: {error}"}
    except Exception as error:  # the front waits for an answer, whatever it is
        traceback.print_exc(file=sys.stderr)
        return {**told, "message": f"the engine cannot plan it: {type(error).__name__}"}
    return {"op": "checked", "id": head.get("id"), "plan": plan.to_dict()}


def resident_bytes() -> int:
    """Memory of this process that is its own and not a file's; 0 where nobody knows."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    sizes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "VmSwap:"))]
    return sum(sizes) * 1024
