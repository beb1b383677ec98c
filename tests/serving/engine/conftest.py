"""An engine's loop in this process: the tiny model, what it says, and what it makes as floats."""

import math
import time

import numpy as np
import pytest
import torch

import calotype.cascade.cascade as cascade_module
from calotype.cascade import Cascade
from calotype.cascade.results import drain
from calotype.generation.loaded import load
from calotype.networks import blocks
from calotype.runtime import Runtime
from calotype.serving.engine.image import Image
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.loop import Loop
from calotype.serving.engine.open import open_task
from calotype.serving.engine.orders import Looks, Order
from calotype.serving.engine.shelf import Entry, Shelf, open_model
from calotype.serving.engine.tasks import Given, Source
from calotype.serving.job import JobRequest

RUNTIME = Runtime("cpu", "float32", 1)


class Sink:
    """All that a loop says."""

    def __init__(self):
        self.heads, self.looks, self.made = [], [], {}

    def tell(self, head):
        self.heads.append(head)

    def show(self, image, look):
        self.looks.append(look)

    def finish(self, image):
        self.heads.append({"op": "image", "id": image.order.id})
        self.made[image.order.id] = image.made

    def end(self, image, head):
        self.heads.append(head)

    def said(self, op, **values):
        return [
            h for h in self.heads if h["op"] == op and all(h.get(k) == v for k, v in values.items())
        ]

    def last_word(self, id):
        last = [h for h in self.heads if h.get("id") == id][-1]
        return last["op"] if last["op"] in ("image", "failed", "cancelled") else None


class Bench:
    """A loop with one model, turned by the test; `finals` are the last states of stages."""

    def __init__(self, model, loaded):
        self.model, self.loaded = model, loaded
        self.finals = {}
        self.renew()

    def renew(self, **limits):
        self.model.loaded = self.loaded
        self.sink, self.limits = Sink(), Limits(**limits)
        self.loop = Loop(Shelf([self.model]), self.limits, self.sink)
        return self

    def start(self, id, request=None, *, seed=1, source=None, mask=None, looks=None, alone=False):
        given = dict(request or {})
        small = {"size": given.pop("size")} if "size" in given else {}
        request = JobRequest(**given).model_copy(update=small)  # which may be below 16 here
        alone = alone or request.exact
        order = Order(
            id, request, seed, source, mask, looks=looks or Looks(), alone=alone,
            source_sha256="ab" * 32, mask_sha256="" if mask is None else "cd" * 32,
        )  # fmt: skip
        self.loop.post(lambda: self.loop.start(order))
        return order

    def run(self, most=2000):
        """Turn until nothing is left to do."""
        for _ in range(most):
            self.turn()
            if not self.loop.active and not self.loop.waiting and self.loop._inbox.empty():
                return self
        raise AssertionError("the loop does not come to an end")

    def turn(self):
        self.loop.turn()

    def alone(self, order):
        """What the ordinary path makes of an order, without any engine: Made, and floats."""
        given = None
        if order.source is not None:
            size, masked = order.source.shape[:2], order.mask is not None
            digests = order.source_sha256, order.mask_sha256
            given = Given(size, order.source, order.mask, masked, *digests)
        task = open_task(Source(self.model.folder, self.loaded), order.request, order.seed, given)
        ends = []
        made = drain(task.generate(), lambda preview: ends.extend(end_of_stage(preview)))
        return made, ends

    def assert_as_alone(self, order):
        """Within the bounds of the cascade's own tests of batches; `self` is wide.

        In float64 the first stage differs by rounding alone; what others are given is float32.
        """
        made, ends = self.alone(order)
        for number, (one, other) in enumerate(zip(self.finals[order.id], ends, strict=True)):
            torch.testing.assert_close(one, other, atol=1e-4 if number else 1e-6, rtol=0)
        difference = self.sink.made[order.id].pixels.astype(int) - made.pixels
        assert np.abs(difference).max() <= 1


def end_of_stage(preview):
    return [preview.state.z.clone()] if preview.state.index == preview.steps else []


@pytest.fixture(autouse=True)
def _without_gradients():
    """As the engine's thread is: a suspended image would leave them off, or on."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(before)


@pytest.fixture
def keeps_finals(monkeypatch):
    def keep(bench):
        show = Image._show

        def showing(self, strand, preview):
            bench.finals.setdefault(self.order.id, []).extend(end_of_stage(preview))
            show(self, strand, preview)

        monkeypatch.setattr(Image, "_show", showing)
        return bench

    return keep


@pytest.fixture
def make_bench(monkeypatch):
    """Of a model, with its weights."""
    monkeypatch.setattr("calotype.serving.engine.loop._IDLE_SECONDS", 0.01)
    monkeypatch.setattr("calotype.serving.engine.limits.STEP_SECONDS", 1e9)  # on a slow machine too
    return Bench


@pytest.fixture
def bench(model, keeps_finals, make_bench):
    opened = open_model(Entry("tiny", str(model)), RUNTIME)
    return keeps_finals(make_bench(opened, load(opened.job)))


@pytest.fixture
def wide_bench(bench, monkeypatch):
    """The same in float64: what neighbours change is rounding, and that is tiny there."""
    for stage in bench.loaded.cascade.stages:
        stage.double()
    normal, embed = cascade_module.PerSampleNoise.normal, Cascade._embed
    monkeypatch.setattr(
        cascade_module.PerSampleNoise, "normal", lambda self, shape: normal(self, shape).double()
    )

    def embed_wide(self, captions):
        text = embed(self, captions)
        return type(text)(text.tokens.double(), text.mask)

    monkeypatch.setattr(Cascade, "_embed", embed_wide)
    monkeypatch.setattr(blocks, "sinusoidal_embedding", _wide_sinusoids)
    return bench


def _wide_sinusoids(values, dim):
    """In float64: in float32 their rounding depends on how many there are."""
    numbers = torch.arange(dim // 2, dtype=torch.float64)
    angles = values.double()[:, None] * torch.exp(-math.log(10_000.0) * numbers / (dim // 2))
    return torch.cat((angles.cos(), angles.sin()), dim=1)


@pytest.fixture
def photo():
    """A source of a size, (H, W, 4), and a mask with a hole in it."""

    def make(height, width, *, seed=0):
        numbers = np.random.default_rng(seed)
        source = numbers.integers(0, 256, (height, width, 4), np.uint8)
        source[..., 3] = 255
        mask = np.zeros((height, width), np.uint8)
        mask[height // 4 : height // 2, width // 4 : width // 2] = 255
        return source, mask

    return make


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)
