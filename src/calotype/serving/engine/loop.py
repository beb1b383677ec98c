"""The engine's loop: images come and go between network calls, and share those that they can.

One thread does all that computes. It takes what has come in, lets images begin, answers one joined
network call, and lets the images that waited for it go on until they wait again.
"""

from __future__ import annotations

import queue
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from calotype.cascade.stage import Stage
from calotype.errors import CalotypeError
from calotype.serving.engine.batching import Batcher, Waiting
from calotype.serving.engine.failures import explained, is_out_of_memory
from calotype.serving.engine.faults import inject
from calotype.serving.engine.gates import Gates
from calotype.serving.engine.image import Finish, Image, Sink
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.open import open_task
from calotype.serving.engine.orders import Order
from calotype.serving.engine.shelf import Model, Shelf
from calotype.serving.engine.strand import Call, Gate, Strand
from calotype.serving.engine.tasks import Given, Source, Task

_IDLE_SECONDS = 1.0


class Loop:
    """See the module; all methods but `post` are the loop's thread's own."""

    def __init__(self, shelf: Shelf, limits: Limits, sink: Sink) -> None:
        self.shelf, self.limits, self.sink = shelf, limits, sink
        self.batcher = Batcher(limits)
        self.gates = Gates(limits)
        self.waiting: list[Image] = []
        self.active: dict[int, Image] = {}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._count = 0
        self._stopped = False

    def post(self, action: Callable[[], None]) -> None:
        """Have something done between two network calls; from any thread."""
        self._inbox.put(action)

    def run(self) -> None:
        """Work until `stop`."""
        torch.set_grad_enabled(False)  # for good: see `strand`
        while not self._stopped:
            self.turn()

    def stop(self) -> None:
        """End after this turn."""
        self._stopped = True

    def turn(self) -> None:
        """What comes in, and one joined network call; waits a second at most where none is due."""
        self._take(wait=len(self.batcher) == 0 and len(self.gates) == 0)
        self._admit()
        self._open_gates()
        calls = self.batcher.next()
        if calls:
            self._compute(calls)
        for model in self.shelf.idle(self._used()):
            self.unload(model)

    def _take(self, *, wait: bool) -> None:
        try:
            if wait:
                self._inbox.get(timeout=_IDLE_SECONDS)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def start(self, order: Order) -> None:
        """An image is ordered."""
        try:
            model = self.shelf.find(order.request.model)
        except CalotypeError as error:
            kind, message = explained(error)
            self.sink.tell({"op": "failed", "id": order.id, "message": message, "kind": kind})
            return
        self._count += 1
        self.waiting.append(Image(order, model, self._count, self.sink))

    def cancel(self, id: Any) -> None:
        """An image is wanted no more: its rows are free at once."""
        for image in self._named(id):
            self._leave(image)
            self.sink.end(image, {"op": "cancelled", "id": id})

    def interrupt(self, id: Any) -> None:
        """An image is to be finished with its present estimate: now, or with its first one."""
        for image in self._named(id):
            if image in self.waiting:
                self.cancel(id)
            elif image.can_finish and not image.interrupted:
                image.interrupted = True
                self._forget_wait(image)
                assert image.strand is not None
                self._go_on(image, partial(image.strand.throw, Finish()))
            else:
                image.interrupted = True

    def unload(self, model: Model) -> None:
        """Let a model go that nothing uses."""
        if model.loaded is None or model in self._used():
            return
        self.limits.forget(model.networks)
        model.loaded, model.networks = None, set()
        self.sink.tell({"op": "unloaded", "model": model.entry.name})

    def unload_named(self, name: Any) -> None:
        """As `unload`, of a model that the front names."""
        model = self.shelf.models.get(name)
        if model is not None:
            self.unload(model)

    def _named(self, id: Any) -> list[Image]:
        return [one for one in (*self.waiting, *self.active.values()) if one.order.id == id]

    def _used(self) -> set[Model]:
        return {image.model for image in (*self.waiting, *self.active.values())}

    def _leave(self, image: Image) -> None:
        """Forget an image, wherever it is."""
        if image in self.waiting:
            self.waiting.remove(image)
            return
        self._forget_wait(image)
        if image.strand is not None:
            image.strand.leave()
        self._ended(image)

    def _forget_wait(self, image: Image) -> None:
        self.batcher.remove(image.age)
        self.gates.remove(image)

    def _admit(self) -> None:
        """Let images begin whose models are loaded; one whose model needs room holds up others."""
        in_use = {image.model for image in self.active.values()}
        for image in tuple(self.waiting):
            model = image.model
            if model.loaded is None and model.loading is None:
                going = self.shelf.crowded(model, in_use)
                if going is None:
                    break
                for other in going:
                    self._evict(other)
                self.sink.tell({"op": "loading", "model": model.entry.name})
                future = self.shelf.load(model)
                future.add_done_callback(partial(self._loaded, model))
                inject(image.order.request.prompt, "load")
            if model.loaded is not None:
                self.waiting.remove(image)
                in_use.add(model)  # from now on: those behind it may not take its room
                self._begin(image)

    def _evict(self, model: Model) -> None:
        """Let a model go that only waiting images want: they come after the one that needs room."""
        self.limits.forget(model.networks)
        model.loaded, model.networks = None, set()
        self.sink.tell({"op": "unloaded", "model": model.entry.name})

    def _loaded(self, model: Model, _: Any) -> None:
        self.post(partial(self._have, model))

    def _have(self, model: Model) -> None:
        """A model has been loaded, or could not be."""
        try:
            seconds = self.shelf.settled(model)
        except Exception as error:  # whatever it is: the images that wait for it fail, no others
            for image in [one for one in self.waiting if one.model is model]:
                self.waiting.remove(image)
                self._failed(image, error)
            return
        self.sink.tell({"op": "loaded", "model": model.entry.name, "seconds": round(seconds, 3)})

    def _begin(self, image: Image) -> None:
        self.active[image.age] = image
        image.model.used = time.monotonic()
        self.sink.tell({"op": "admitted", "id": image.order.id})
        strand = image.begin(partial(_open, image))
        self._go_on(image, strand.go)

    def _go_on(self, image: Image, go: Callable[[], Call | Gate | None]) -> None:
        """Let an image work until it waits again, and see to it."""
        try:
            waits = go()
        except Exception as error:  # an error of one image is that image's alone
            self._fail(image, error)
        else:
            if isinstance(waits, Call):
                is_new = image.done == 0
                self.batcher.add(Waiting(waits, image.age, image.order.alone, is_new))
            elif isinstance(waits, Gate):
                self.gates.wait(image, waits.place)
            else:
                self._ended(image)
                self.sink.finish(image)

    def _open_gates(self) -> None:
        while (image := self.gates.next()) is not None:
            assert image.strand is not None
            self._go_on(image, partial(image.strand.go, None))

    def _ended(self, image: Image) -> None:
        self.active.pop(image.age, None)
        self.gates.remove(image)
        image.strand = None
        image.model.used = time.monotonic()

    def _fail(self, image: Image, error: Exception) -> None:
        self._forget_wait(image)
        self._ended(image)
        self._failed(image, error)

    def _failed(self, image: Image, error: BaseException) -> None:
        kind, message = explained(error)
        if kind != "usage":
            traceback.print_exception(error, file=sys.stderr)
        head = {"op": "failed", "id": image.order.id, "message": message, "kind": kind}
        self.sink.end(image, head)

    def _compute(self, calls: Sequence[Waiting]) -> None:
        """One network call for all; after an error each on its own, so that one fails alone."""
        resolution = calls[0].call.stage.config.resolution
        rows = sum(len(one.call.z) for one in calls)
        self.sink.tell({"op": "calling", "resolution": resolution, "rows": rows})
        images = [self.active[one.age] for one in calls]
        begin = time.perf_counter()
        try:
            for image in images:
                inject(image.order.request.prompt, resolution, len(images))
            outputs = self.batcher.compute(calls)
        except Exception as error:
            self._computed_none(calls, error)
            return
        seconds = round(time.perf_counter() - begin, 4)
        model = images[0].model.entry.name
        told = {"model": model, "resolution": resolution, "rows": rows, "seconds": seconds}
        self.sink.tell({"op": "call", **told})
        calls = ()  # their inputs are needed no more
        for image in images:
            image.done += 1
            image.most_rows = max(image.most_rows, rows)
        for image, output in zip(images, outputs, strict=True):
            if image.strand is not None:  # a neighbour's end does not end it, but be careful
                self._go_on(image, partial(image.strand.go, output))

    def _computed_none(self, calls: Sequence[Waiting], error: Exception) -> None:
        memory = is_out_of_memory(error)
        if memory:
            rows = sum(len(one.call.z) for one in calls)
            self.limits.halve(self.limits.kind(calls[0].call), rows)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        if len(calls) == 1:
            self._fail(self.active[calls[0].age], error)
            return
        for one in calls:
            self._compute([one])


def _open(image: Image, strand: Strand) -> Task:
    loaded, order = image.model.loaded, image.order
    assert loaded is not None

    def answered(stage: Stage) -> Stage:
        return stage.answered(strand.answer)

    given = None
    if order.source is not None:
        height, width = order.source.shape[:2]
        masked = order.mask is not None
        digests = order.source_sha256, order.mask_sha256
        given = Given((height, width), order.source, order.mask, masked, *digests)
    source = Source(image.model.folder, loaded, answered)
    return open_task(source, order.request, order.seed, given)
