"""Which calls are joined, whose turn it is, how many rows a call has, and who waits at a gate."""

import io
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import calotype.serving.engine.batching as module
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.serving.engine import outgoing
from calotype.serving.engine.ahead import Ahead
from calotype.serving.engine.batching import Batcher, Waiting
from calotype.serving.engine.gates import Gates
from calotype.serving.engine.image import Look
from calotype.serving.engine.limits import STEP_SECONDS, Limits
from calotype.serving.engine.strand import Call

pytestmark = pytest.mark.slow


@pytest.fixture
def stage(cascade):
    return cascade.stages[0]


def call(stage, *, rows=1, side=8, length=2, level=0.0, dtype=torch.float32, **parts):
    text = TextEmbedding(torch.randn(rows, length, 16), torch.ones(rows, length, dtype=torch.bool))
    z = torch.randn(rows, 3, side, side, dtype=dtype)
    return Call(stage, Conditioning(text, **parts), z, torch.full((rows,), level))


@pytest.fixture
def many():
    """Limits under which calls are as large as they can be."""
    limits = Limits()
    limits.rows = lambda kind: 64
    return limits


def test_calls_of_one_kind_are_joined_in_the_order_of_their_age(stage, many):
    batcher = Batcher(many)
    calls = {age: call(stage, length=1 + age % 3, rows=1 + age % 2) for age in (5, 2, 9)}
    for age, one in calls.items():
        batcher.add(Waiting(one, age))
    chosen = batcher.next()
    assert [one.age for one in chosen] == [2, 5, 9] and len(batcher) == 0
    with torch.no_grad():
        outputs = batcher.compute(chosen)
        for one, output in zip(chosen, outputs, strict=True):
            (alone,) = Batcher(many).compute([one])
            torch.testing.assert_close(output.prediction, alone.prediction, atol=1e-5, rtol=0)
            assert len(output.prediction) == len(one.call.z)


def test_an_image_that_has_shown_nothing_yet_is_in_the_next_call(stage, many):
    many.rows = lambda kind: 2
    batcher = Batcher(many)
    for age in (1, 2, 3):
        batcher.add(Waiting(call(stage), age))
    batcher.add(Waiting(call(stage), 9, is_new=True))
    assert [one.age for one in batcher.next()] == [9, 1]
    assert [one.age for one in batcher.next()] == [2, 3]


@pytest.mark.parametrize(
    "other",
    [{"side": 16}, {"dtype": torch.float64}, {"lowres": torch.zeros(1, 3, 8, 8)}, {"stage": 1}],
)
def test_calls_of_other_kinds_are_not(cascade, stage, many, other):
    batcher = Batcher(many)
    batcher.add(Waiting(call(stage), 1))
    options = {"stage": stage, **other}
    options["stage"] = cascade.stages[1] if other.get("stage") == 1 else stage
    batcher.add(Waiting(call(**options), 2))
    assert [one.age for one in batcher.next()] == [1]
    assert [one.age for one in batcher.next()] == [2]


def test_those_that_want_to_be_alone_are(stage, many):
    batcher = Batcher(many)
    for age, alone in ((1, True), (2, False), (3, True), (4, False)):
        batcher.add(Waiting(call(stage), age, alone))
    assert sorted([one.age for one in batcher.next()] for _ in range(3)) == [[1], [2, 4], [3]]


def test_conditioning_is_bound_anew_only_when_rows_come_or_go(stage, many, monkeypatch):
    bound = []
    bind = module.bound_network
    monkeypatch.setattr(
        module, "bound_network", lambda stage, cond: bound.append(cond) or bind(stage, cond)
    )
    batcher, calls = Batcher(many), {age: call(stage) for age in (1, 2, 3)}

    def step(*ages):
        for age in ages:
            batcher.add(Waiting(calls[age], age))
        with torch.no_grad():
            chosen = batcher.next()
            batcher.compute(chosen)
        for one in chosen:  # as images do: they wait again before the next call is chosen
            batcher.add(one)
        return len(bound)

    assert [step(1, 2), step(), step()] == [1, 1, 1]
    assert [step(3), step()] == [2, 2]
    batcher.remove(1)
    assert [step(), step()] == [3, 3]


def test_what_is_quick_has_more_turns(cascade, stage, many, monkeypatch):
    batcher, turns = Batcher(many), []
    quick, slow = call(stage), call(cascade.stages[1], side=16, lowres=torch.zeros(1, 3, 16, 16))
    clock = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])

    def bind(stage, cond):
        def answer(z, logsnr):
            clock[0] += 1.0 if stage is quick.stage else 5.0
            return module.NetworkOutput(z, None)

        return answer

    monkeypatch.setattr(module, "bound_network", bind)
    for _ in range(24):
        if len(batcher) == 0:
            batcher.add(Waiting(quick, 2))
            batcher.add(Waiting(slow, 1))
        (one,) = batcher.next()
        turns.append("quick" if one.call is quick else "slow")
        batcher.compute([one])
        batcher.add(one)
    assert 3 <= turns.count("slow") <= 5 and "slow" not in turns[1:5]


def test_rows_are_as_many_as_a_step_and_memory_hold(stage):
    limits, one = Limits(), call(stage, side=64)
    kind = limits.kind(one)
    assert limits.rows(kind) == 1, "nothing is known yet"
    limits.learn(kind, 1, 10.0, images=1)
    assert limits.rows(kind) == 1
    for _ in range(20):
        limits.learn(kind, 4, 4 * STEP_SECONDS / 10, images=1)
    assert limits.rows(kind) == 10 or limits.rows(kind) == 9
    for _ in range(20):
        limits.learn(kind, 100, 1e-6, images=1)
    assert limits.rows(kind) == 256
    limits.halve(kind, 100)
    assert limits.rows(kind) == 50
    for _ in range(200):
        limits.learn(kind, 50, 1e-6, images=1)
    assert limits.rows(kind) == 256, "it recovers"
    limits.forget({kind[0]})
    assert limits.rows(kind) == 1


def _images(cascade, count, sides, limits):
    model = SimpleNamespace(loaded=SimpleNamespace(cascade=cascade))
    for age in range(count):
        side = sides[age % len(sides)]
        ahead = [Ahead(32, (side, side), 2, 2, 1)]
        yield SimpleNamespace(age=age, model=model, ahead=ahead)


def test_images_wait_before_large_stages_the_oldest_enter_first(cascade):
    limits = Limits()
    gates = Gates(limits)
    images = list(_images(cascade, 4, [1024], limits))
    for image in reversed(images):
        gates.wait(image, 0)
    assert gates.next() is images[0] and gates.next() is None
    gates.remove(images[0])
    limits.rows = lambda kind: 2
    assert gates.next() is images[1] and gates.next() is images[2] and gates.next() is None
    gates.remove(images[1])
    assert gates.next() is images[3] and len(gates) == 0


def test_small_stages_are_open_and_a_very_large_image_is_not_passed_for_ever(cascade):
    limits = Limits()
    limits.rows = lambda kind: 9
    gates = Gates(limits)
    for image in _images(cascade, 6, [256, 512], limits):
        gates.wait(image, 0)
    assert [gates.next().age for _ in range(6)] == list(range(6))
    first, huge, third = _images(cascade, 3, [1024, 4096, 1024], limits)
    for image in (first, huge, third):
        image.age += 10
        gates.wait(image, 0)
    assert gates.next() is first
    assert gates.next() is None, "the third could enter, but then the second never would"
    gates.remove(first)
    assert gates.next() is huge


def test_calls_have_one_image_where_several_take_longer(stage) -> None:
    limits, one = Limits(), call(stage, side=64)
    kind = limits.kind(one)
    together = []
    for _ in range(100):
        rows = min(4, limits.rows(kind))
        together.append(rows > 1)
        limits.learn(kind, rows, 0.01 * rows * (1.2 if rows > 1 else 1.0), images=rows)
    assert sum(together[2:3]) == 1 and sum(together[3:]) <= 4, "tried, then now and then"
    for _ in range(100):
        rows = min(4, limits.rows(kind))
        together.append(rows > 1)
        limits.learn(kind, rows, 0.01 * rows * (0.5 if rows > 1 else 1.0), images=rows)
    assert sum(together[-40:]) >= 38, "and again where they do not"


def test_a_group_with_a_new_image_comes_before_those_whose_turn_it_is(stage, many) -> None:
    batcher = Batcher(many)
    batcher.add(Waiting(call(stage), 1))
    batcher.add(Waiting(call(stage, side=16), 2))
    with torch.no_grad():
        batcher.compute(batcher.next())  # the oldest: the other group has had less since
    batcher.add(Waiting(call(stage), 3, is_new=True))
    assert [one.age for one in batcher.next()] == [3]
    assert [one.age for one in batcher.next()] == [2]


def test_the_last_word_on_an_image_waits_for_no_others_previews(monkeypatch) -> None:
    going, sent = threading.Event(), []
    monkeypatch.setattr(outgoing, "encode_preview", lambda *_: going.wait(30) and b"")
    monkeypatch.setattr(outgoing.wire, "encode", lambda head, _: sent.append(head["op"]) or [b""])
    looks = SimpleNamespace(when="steps", format="png")
    images = [SimpleNamespace(age=age, order=SimpleNamespace(looks=looks)) for age in range(3)]
    sink = outgoing.Outgoing(io.BytesIO())
    for image in images[:2]:
        sink.show(image, Look(np.zeros((1, 1, 3), np.uint8), {"op": "preview"}))
    for image in images[1:]:  # the one before is being encoded
        sink.end(image, {"op": "cancelled"})
    sink.end(images[0], {"op": "failed"})
    assert sent == ["cancelled", "cancelled"]
    going.set()
    sink.close()
    assert sent == ["cancelled", "cancelled", "preview", "failed"]
