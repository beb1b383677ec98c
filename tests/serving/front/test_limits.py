"""Each limit at it, just above and far above; through a real server where that has a part in it."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.responses import Response
from starlette.routing import Route

from calotype.serving.front import bodies as module
from calotype.serving.front import limits
from calotype.serving.front.bodies import Bodies, check_json
from calotype.serving.front.errors import ApiError
from calotype.serving.front.guarded import guarded
from calotype.serving.front.limits import (
    MOST_BACKSLASHES,
    MOST_BODY,
    MOST_DEPTH,
    MOST_ESCAPED,
    MOST_FIELD,
    MOST_FIELDS,
    MOST_FILES,
    MOST_HEADER_BYTES,
    MOST_HEADERS,
    MOST_VALUES,
)
from calotype.serving.front.observer import Observer
from calotype.serving.front.settings import ServeSettings

JSON = {"content-type": "application/json"}


def _json_of(size):
    return b'{"a":"' + b"x" * (size - 8) + b'"}'


@pytest.mark.parametrize(
    ("size", "status"), [(MOST_BODY, 200), (MOST_BODY + 1, 413), (10 * MOST_BODY, 413)]
)
def test_body_by_its_length(guard, size, status):
    """What is said to be too large is not read at all."""
    content = _json_of(size) if status == 200 else b"{}"
    headers = {**JSON, "content-length": str(size)}
    found = guard().post("/x", content=content, headers=headers)
    assert found.status_code == status
    if status == 200:
        assert found.json()["bytes"] == size


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "1_0", "²"])
def test_lengths_that_are_none(guard, length):
    headers = {**JSON, "content-length": length.encode()}
    assert guard().post("/x", content=b"{}", headers=headers).status_code == 413


@pytest.mark.parametrize(("size", "status"), [(1000, 200), (1001, 413), (100_000, 413)])
def test_body_in_chunks_is_counted(guard, monkeypatch, size, status):
    monkeypatch.setattr(Bodies.read, "__kwdefaults__", {"most": 1000})
    whole = _json_of(size)
    chunks = (whole[i : i + 300] for i in range(0, size, 300))
    assert guard().post("/x", content=chunks, headers=JSON).status_code == status


def test_many_bodies_at_once_are_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_BODIES", 250)

    async def act():
        bodies = Bodies()
        ready = asyncio.Event()

        def slow():
            async def receive():
                if not sent:
                    sent.append(1)
                    return {"type": "http.request", "body": b"x" * 100, "more_body": True}
                await ready.wait()
                return {"type": "http.request", "body": b""}

            sent = []
            return receive

        tasks = [asyncio.create_task(bodies.read({"headers": []}, slow())) for _ in range(3)]
        await asyncio.sleep(0.01)
        ready.set()
        first = await asyncio.gather(*tasks, return_exceptions=True)
        return first, await bodies.read({"headers": []}, slow())  # all is given back

    (one, two, three), again = asyncio.run(act())
    assert one == two == again == b"x" * 100
    assert three.status == 503 and three.retry_after


@pytest.mark.parametrize(("size", "status"), [(50, 200), (51, 503), (5000, 503)])
def test_bodies_count_until_their_requests_are_answered(
    small_app, tmp_path, monkeypatch, size, status
):
    monkeypatch.setattr(module, "MOST_BODIES", 250)
    app = guarded(small_app, ServeSettings(), Observer(), folder=tmp_path)

    async def act():
        ready = asyncio.Event()

        async def wait(request):
            await request.body()
            await ready.wait()
            return Response()

        small_app.router.routes.insert(0, Route("/wait", wait, methods=["POST"]))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as one:
            ask = functools.partial(one.post, headers=JSON)
            waiting = [asyncio.create_task(ask("/wait", content=_json_of(100))) for _ in range(2)]
            await asyncio.sleep(0.05)
            found = await ask("/x", content=_json_of(size))
            ready.set()
            await asyncio.gather(*waiting)
            return found, await ask("/x", content=_json_of(250))  # all is given back

    found, after = asyncio.run(act())
    assert (found.status_code, after.status_code) == (status, 200)
    assert status == 200 or found.headers["retry-after"]


def _exchange(port, *pieces, pause=0.0):
    """Send raw bytes, and read until the server closes or the answer stops."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        try:
            for piece in pieces:
                link.sendall(piece)
                time.sleep(pause)
            answer = b""
            while b"\r\n\r\n" not in answer and (part := link.recv(65536)):
                answer += part
        except (BrokenPipeError, ConnectionResetError):  # it has heard enough
            return b"closed"
        return answer.split(b"\r\n")[0]


def _status(line):
    return line.split(b" ")[1] if b" " in line else line


def _head(port, *lines, method=b"POST"):
    host = b"host: 127.0.0.1:%d" % port
    return b"\r\n".join([method + b" /x HTTP/1.1", host, *lines, b"", b""])


@pytest.mark.parametrize(("seconds", "status"), [(0.01, b" 200 "), (0.25, b" 408 "), (1, b" 408 ")])
def test_slow_bodies_are_ended(guarded_port, monkeypatch, seconds, status):
    monkeypatch.setattr(module, "BODY_SECONDS", 0.2)
    head = _head(guarded_port, b"content-type: application/json", b"content-length: 2")
    began = time.monotonic()
    assert status in _exchange(guarded_port, head + b"{", b"}", pause=seconds)
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("said", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: x\r\n"])
def test_a_request_that_does_not_come_is_not_waited_for(guarded_port, monkeypatch, said):
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", guarded_port), timeout=5) as link:
        began = time.monotonic()
        for byte in said:  # whatever drips in meanwhile
            link.sendall(bytes([byte]))
            time.sleep(0.004)
        assert link.recv(100) == b"" and time.monotonic() - began < 2


def test_a_connection_with_a_request_is_left_alone(guarded_port, monkeypatch):
    monkeypatch.setattr(limits, "HEAD_SECONDS", 0.2)
    head = _head(guarded_port, b"content-type: application/json", b"content-length: 2")
    assert b" 200 " in _exchange(guarded_port, head, b"{}", pause=0.5)


def test_a_client_that_goes_in_the_middle_comes_to_no_route(guarded_port):
    head = _head(guarded_port, b"content-type: application/json", b"content-length: 2")
    with socket.create_connection(("127.0.0.1", guarded_port)) as link:
        link.sendall(head + b"{")
    get = _head(guarded_port, method=b"GET")
    assert b" 200 " in _exchange(guarded_port, get)


def test_a_large_body_is_heard_to_its_end_so_that_the_answer_arrives(guarded_port):
    size = MOST_BODY + 1
    head = _head(guarded_port, b"content-type: application/json", b"content-length: %d" % size)
    assert b" 413 " in _exchange(guarded_port, head, b" " * size)


@pytest.mark.parametrize(
    ("number", "status"), [(MOST_HEADERS - 1, b" 200 "), (MOST_HEADERS, b" 431 "), (3000, b" 431 ")]
)
def test_header_count(guarded_port, number, status):
    lines = [b"a: b"] * number
    assert status in _exchange(guarded_port, _head(guarded_port, *lines, method=b"GET"))


@pytest.mark.parametrize(
    ("size", "status"),
    [
        (MOST_HEADER_BYTES - 200, (b"200",)),
        (MOST_HEADER_BYTES + 1, (b"431", b"400")),  # by us, or by the HTTP server
        (10**6, (b"400", b"closed")),
    ],
)
def test_header_bytes(guarded_port, size, status):
    head = _head(guarded_port, b"a: " + b"b" * size, method=b"GET")
    assert _status(_exchange(guarded_port, head)) in status


@pytest.mark.parametrize(("ranges", "status"), [(1, b" 200 "), (2, b" 416 "), (5000, b" 416 ")])
def test_ranges(guarded_port, ranges, status):
    line = b"range: bytes=" + b",".join([b"0-1"] * ranges)
    assert status in _exchange(guarded_port, _head(guarded_port, line, method=b"GET"))


def test_ten_thousand_ranges_are_too_long_a_header(guarded_port):
    line = b"range: bytes=" + b",".join([b"0-1"] * 10_000)
    found = _exchange(guarded_port, _head(guarded_port, line, method=b"GET"))
    assert _status(found) in (b"400", b"431", b"closed")


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        ("application/problem+json", 200),
        ("image/png", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("json", 415),
        ("application/x-pickle", 415),
        ("image/svg+xml", 415),
        ("text/json", 415),
    ],
)
def test_types_of_bodies(guard, kind, status):
    for method in ("POST", "PATCH", "DELETE"):
        headers = {"content-type": kind}
        found = guard().request(method, "/x", content=b"{}", headers=headers)
        assert found.status_code == status
        assert guard().request(method, "/x").status_code == 200  # without a body


def _parts(fields, files, *, data=b"x"):
    name = b'--b\r\ncontent-disposition: form-data; name="f"'
    text = name + b"\r\n\r\n" + data + b"\r\n"
    file = name + b'; filename="x"\r\n\r\n' + data + b"\r\n"
    return text * fields + file * files + b"--b--\r\n"


FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("fields", "files", "status"),
    [
        (MOST_FIELDS, MOST_FILES, 200),
        (MOST_FIELDS + 1, 0, 400),
        (0, MOST_FILES + 1, 400),
        (0, 1000, 400),
        (200_000, 0, 400),
    ],
)
def test_parts_of_forms(guard, fields, files, status):
    began = time.monotonic()
    found = guard().post("/x", content=_parts(fields, files), headers=FORM)
    assert found.status_code == status
    assert time.monotonic() - began < 2
    if status == 200:
        assert found.json()["fields"] == fields + files


def test_a_million_fields_come_to_no_parser(guard, monkeypatch):
    from starlette import formparsers

    monkeypatch.setattr(formparsers.MultiPartParser, "parse", None)
    content = b'--b\r\ncontent-disposition: form-data; name="f"\r\n\r\n\r\n' * 900_000
    assert guard().post("/x", content=content, headers=FORM).status_code == 400


@pytest.mark.parametrize(
    ("size", "status"), [(MOST_FIELD, 200), (MOST_FIELD + 1, 400), (20 * MOST_FIELD, 400)]
)
def test_bytes_of_a_field(guard, size, status):
    content = _parts(1, 0, data=b"y" * size)
    assert guard().post("/x", content=content, headers=FORM).status_code == status


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (b"a: " + b"b" * 4000, 200),
        (b"a: " + b"b" * 5000, 400),
        (b"a: " + b"b" * 10**7, 400),
        (b"\r\n".join([b"a: b"] * 7), 200),
        (b"\r\n".join([b"a: b"] * 8), 400),
        (b"\r\n".join([b"a: b"] * 10**5), 400),
        (b"a" * 10**6, 400),
    ],
)
def test_headers_of_a_part(guard, header, status):
    start = b'--b\r\ncontent-disposition: form-data; name="f"\r\n'
    content = start + header + b"\r\n\r\nx\r\n--b--\r\n"
    assert guard().post("/x", content=content, headers=FORM).status_code == status


@pytest.mark.parametrize("kind", ["", "; boundary=", "; boundary=" + "b" * 300])
def test_odd_boundaries(guard, kind):
    headers = {"content-type": "multipart/form-data" + kind}
    assert guard().post("/x", content=_parts(1, 0), headers=headers).status_code == 400


def _nested(depth, kind="["):
    return b"[" * depth + b"]" * depth if kind == "[" else b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("kind", "[{")
def test_depth(guard, kind):
    for depth, status in ((MOST_DEPTH, 200), (MOST_DEPTH + 1, 400), (10_000, 400), (10**6, 400)):
        content = _nested(depth, kind)
        assert guard().post("/x", content=content, headers=JSON).status_code == status


def _passes(text):
    try:
        check_json(text)
    except ApiError:
        return False
    return True


def test_number_of_values():
    for number, passes in ((MOST_VALUES - 2, True), (MOST_VALUES, False), (10**6, False)):
        assert _passes(json.dumps([0] * number, separators=(",", ":")).encode()) is passes
    assert not _passes(b'["a"' + b',"a"' * 10**6 + b"]")
    assert not _passes(b" " * 16 * MOST_VALUES + b" []")


def test_escapes():
    for number, passes in ((MOST_ESCAPED - 1, True), (MOST_ESCAPED, False), (10**6, False)):
        assert _passes(b'["' + b'\\"' * number + b'"]') is passes
    runs = ((MOST_BACKSLASHES - 2, True), (MOST_BACKSLASHES, False), (10**7, False))
    for number, passes in runs:
        assert _passes(b'["' + b"\\" * number + b'"]') is passes


@pytest.mark.parametrize("coding", ["utf-16", "utf-16-le", "utf-32-be"])
def test_other_codings_hide_nothing(coding):
    deep = "[" * 1000 + "]" * 1000
    assert not _passes(json.dumps({"\u2222": 0}, ensure_ascii=False).encode(coding))
    assert not _passes(deep.encode(coding))


def _depth(value):
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


VALUES = st.recursive(
    st.none() | st.text('[]{}",\\a\n') | st.integers(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('[{"\\'), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(VALUES, st.integers(0, 40))
def test_any_json_passes_by_its_depth_alone(value, wrapped):
    for _ in range(wrapped):
        value = [value]
    assert _passes(json.dumps(value).encode()) is (_depth(value) <= MOST_DEPTH)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"[", b"]", b'"', b"\\", b"{", b"}", b":", b",", b"1", b"[" * 33]))
)
def test_what_passes_and_is_json_is_not_too_deep(pieces):
    text = b"".join(pieces)
    if _passes(text):
        try:
            value = json.loads(text)
        except ValueError:
            return
        assert _depth(value) <= MOST_DEPTH


def test_looking_at_a_large_image_takes_no_time():
    text = _json_of(MOST_BODY)
    best = min(_seconds(check_json, text) for _ in range(5))
    assert best < 0.3


def _seconds(act, value):
    began = time.process_time()
    act(value)
    return time.process_time() - began
