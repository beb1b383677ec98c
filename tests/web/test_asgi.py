"""Headers and answers without a framework."""

import asyncio

from calotype.web.asgi import answer, header, replayed, with_headers


def sent(act):
    messages = []

    async def send(message):
        messages.append(message)

    asyncio.run(act(send))
    return messages


def test_a_header_that_comes_twice_equals_neither():
    scope = {"headers": [(b"Host", b"a.example"), (b"host", b"b.example"), (b"origin", b"")]}
    assert header(scope, "host") == "a.example, b.example"
    assert header(scope, "origin") == ""
    assert header(scope, "cookie") is None


def test_headers_are_added_but_for_those_of_the_answer():
    async def act(send):
        send = with_headers(send, {"x-one": "guard", "x-two": "guard"})
        await answer(send, 404, b"no", {"X-One": "route"})

    start, body = sent(act)
    assert start["status"] == 404 and body["body"] == b"no"
    assert start["headers"] == [
        (b"X-One", b"route"),
        (b"content-length", b"2"),
        (b"x-two", b"guard"),
    ]


def test_a_replayed_body_comes_once_and_then_what_else_comes():
    async def gone():
        return {"type": "http.disconnect"}

    async def act():
        receive = replayed(b"body", gone)
        return [await receive(), await receive()]

    first, second = asyncio.run(act())
    assert first == {"type": "http.request", "body": b"body", "more_body": False}
    assert second == {"type": "http.disconnect"}


def test_a_body_in_pieces_is_the_same():
    async def gone():
        return {"type": "http.disconnect"}

    async def act():
        receive = replayed(b"0123456789", gone, piece=4)
        return [await receive() for _ in range(4)]

    *parts, last = asyncio.run(act())
    assert [one["body"] for one in parts] == [b"0123", b"4567", b"89"]
    assert [one["more_body"] for one in parts] == [True, True, False]
    assert last == {"type": "http.disconnect"}
