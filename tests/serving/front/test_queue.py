"""Turns: nobody waits for another's hundred, whatever comes and goes."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from calotype.serving.front.queue import FairQueue

CLIENTS = "abcd"
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(CLIENTS)),
        st.tuples(st.just("pop"), st.just("")),
        st.tuples(st.just("remove"), st.integers(0, 30).map(str)),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(STEPS)
def test_each_client_has_its_turn(steps) -> None:
    queue, waiting = FairQueue(), defaultdict(list)
    served_since = {}  # by client that waits: whom was served since it came or was served itself
    for number, (step, what) in enumerate(steps):
        if step == "push":
            queue.push(what, number)
            waiting[what].append(number)
            served_since.setdefault(what, defaultdict(int))
        elif step == "remove" and any(waiting.values()):
            items = [(c, item) for c in CLIENTS for item in waiting[c]]
            client, item = items[int(what) % len(items)]
            assert queue.remove(client, item) and not queue.remove(client, item)
            waiting[client].remove(item)
            if not waiting[client]:
                del served_since[client]
        elif step == "pop":
            order = list(queue.in_order())
            item = queue.pop()
            assert order[:1] == ([] if item is None else [item])
            if item is None:
                assert not any(waiting.values())
                continue
            client = next(c for c in CLIENTS if item in waiting[c])
            assert waiting[client].pop(0) == item  # a client's own come in order
            del served_since[client]
            for counts in served_since.values():
                counts[client] += 1
                assert counts[client] <= 1  # twice, while somebody else waited: never
            if waiting[client]:
                served_since[client] = defaultdict(int)
        assert len(queue) == sum(map(len, waiting.values()))
        assert sorted(queue.in_order()) == sorted(
            item for line in waiting.values() for item in line
        )


@settings(deadline=None)
@given(st.lists(st.sampled_from(CLIENTS), max_size=40))
def test_positions_are_the_order_of_service(clients) -> None:
    queue = FairQueue()
    for number, client in enumerate(clients):
        queue.push(client, number)
    order = list(queue.in_order())
    assert order == [queue.pop() for _ in clients] and queue.pop() is None


def test_clients_that_have_enough_wait_for_others() -> None:
    queue = FairQueue()
    for item in ("a1", "a2", "b1"):
        queue.push(item[0], item)
    assert [queue.pop(unless={"a"}), queue.pop(unless={"a"}), queue.pop()] == ["b1", None, "a1"]
