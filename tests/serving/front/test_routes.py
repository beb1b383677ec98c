"""Every route that there is: closed without a key, and silent about the machine when it fails."""

from __future__ import annotations

import re

import pytest
from starlette.routing import Mount
from starlette.testclient import TestClient

from calotype.serving.front import links
from calotype.serving.front.app import build_app
from calotype.serving.front.guard import OPEN
from calotype.serving.front.guarded import guarded
from calotype.serving.front.keys import Keys, Sessions, new_key
from calotype.serving.front.limits import MOST_DEPTH
from calotype.serving.front.observer import Observer

ORIGIN = "http://127.0.0.1:8000"
ODD = ("..", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "..\\..\\x", "C:\\x", "a%00",
       "~root", "*", "%", "x" * 3000, "é", "-1", "' OR 1=1 --", "$(id)", "{}")  # fmt: skip
"""In the place of ids."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def app(data, fake):
    return build_app(fake(data=data))


@pytest.fixture(scope="module")
def key(data):
    return new_key(data, "laptop")


@pytest.fixture(scope="module")
def client(app, data, key, fake):
    """Of the whole application with the fake engine, behind its guard."""
    whole = guarded(app, fake(data=data), Observer(), folder=data)
    with TestClient(whole, base_url=ORIGIN, raise_server_exceptions=False) as found:
        found.follow_redirects = False
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    from calotype.serving.front import authentication

    monkeypatch.setattr(authentication, "WRONG_KEY_SECONDS", 0.001)


def routes_of(routes, prefix=""):
    """Every path and method, with those of what is mounted."""
    for route in routes:
        if hasattr(route, "original_router"):  # how newer versions of FastAPI include routers
            included = prefix + route.include_context.prefix
            yield from routes_of(route.original_router.routes, included)
        elif isinstance(route, Mount):
            yield prefix + route.path + "/index.html", "GET"
            yield from routes_of(route.routes or (), prefix + route.path)
        else:
            for method in route.methods:
                yield prefix + route.path, method


def filled(path, value):
    return re.sub(r"\{[^}]*\}", lambda _: value, path)


def test_nothing_but_health_answers_without_a_key(app, client):
    found = sorted(set(routes_of(app.routes)))
    assert {*OPEN, "/api/v1/jobs/{job_id}", "/v1/models"} < {path for path, _ in found}
    found += [(path, "GET") for path in ("/", "/page/index.html", "/page/app/main.js", "/nothing")]
    for path, method in found:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"x-api-key": "wrong"}):
            answer = client.request(method, filled(path, "a"), headers=headers)
            if path in OPEN:
                assert answer.status_code in (200, 503)
            else:
                assert answer.status_code == 401, (path, method)
                assert method == "HEAD" or "invalid_api_key" in answer.text


def test_there_are_no_pages_of_the_framework(client, key):
    for path in ("/docs", "/redoc", "/openapi.json", "/docs/oauth2-redirect"):
        assert client.get(path, headers={"x-api-key": key}).status_code == 404


MACHINE = re.compile(
    r"Traceback|File \"|\.py\b|/(?:root|home|tmp|usr|opt|work|var)/|site-packages|sqlite"
    r"|uvicorn|starlette|fastapi|pydantic|asyncio|calotype\.|[A-Z]\w+(?:Error|Exception)\b|0x[0-9a-f]{6}"
)


def _silent(answer, data):
    assert answer.status_code != 500, answer.text
    assert not MACHINE.search(answer.text), answer.text
    assert str(data) not in answer.text
    if answer.status_code >= 400 and "json" in answer.headers["content-type"]:
        assert "\n" not in answer.text.strip()


def test_odd_ids_find_nothing_and_learn_nothing(app, client, key, data):
    paths = [(path, method) for path, method in routes_of(app.routes) if "{" in path]
    assert paths
    for path, method in paths:
        for odd in ODD:
            answer = client.request(method, filled(path, odd), headers={"x-api-key": key})
            if answer.request.url.path == "/":  # the client resolved ".." itself: that is the page
                continue
            assert answer.status_code in (303, 307, 400, 404, 405, 415, 422), (path, method, odd)
            _silent(answer, data)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"x"', b'{"prompt": 1}', b'{"prompt": {"a": [1]}}', b"\xff\xfe",
     b'{"prompt": "\\ud800"}', b'{"n": 1e999}', b'{"n": NaN}', b'{"n": 1' + b"0" * 5000 + b"}",
     b'{"model": "/etc/passwd"}', b'{"model": "../../x"}', b'{"model": "http://127.0.0.1:1/x"}',
     b'{"image": "http://169.254.169.254/"}', b'{"source": "file:///etc/passwd"}',
     b'{"prompt": "\\u0000"}', b'{"__class__": "os.system", "prompt": "x"}'],
)  # fmt: skip
def test_odd_bodies_are_refused_without_a_word_about_the_machine(
    app, client, key, data, body, monkeypatch
):
    asked = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *names, **_: asked.append(names))
    monkeypatch.setattr("socket.socket.connect", lambda _, address: asked.append(address))
    for path, method in sorted(set(routes_of(app.routes))):
        if method in ("POST", "PATCH"):
            for kind in ("application/json", "multipart/form-data; boundary=x"):
                headers = {"x-api-key": key, "content-type": kind}
                _silent(
                    client.request(method, filled(path, "a"), content=body, headers=headers), data
                )


def test_json_in_a_form_is_bounded_too(client, key):
    for depth in (MOST_DEPTH, 5000):
        text = '{"stages": ' + "[" * depth + "]" * depth + "}"
        form = {"request": (None, text)}
        answer = client.post("/api/v1/jobs", files=form, headers={"x-api-key": key})
        assert answer.status_code == 400 and "deep" in answer.json()["error"]["message"]


def test_a_defect_is_told_to_the_log_alone(client, key, data, monkeypatch):
    def fail(*_):
        raise RuntimeError(f"{data}/secret of SomeClass")

    monkeypatch.setattr(links, "not_found", fail)
    answer = client.get("/links/a.png", headers={"x-api-key": key})
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the server failed; its log says why"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_session_of_another_server_is_nobodys(client, tmp_path):
    new_key(tmp_path, "laptop")
    session = Sessions(tmp_path, Keys(tmp_path)).begin("laptop")
    name = "calotype_00000000"
    assert client.get("/links/a.png", cookies={name: session}).status_code == 401
