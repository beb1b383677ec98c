"""What the guard lets through, and what it does not: hosts, origins, keys, headers."""

from __future__ import annotations

import asyncio
import base64
import re
import time

import pytest

from calotype.serving.front.keys import delete_key

OTHERS = ("http://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:8000.evil.a",
          "https://127.0.0.1:8000", "http://127.0.0.1:8001", "http://evil.a, http://127.0.0.1:8000",
          "file://", "http://127.0.0.1:8000/")  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "PUT"])
@pytest.mark.parametrize("origin", OTHERS)
def test_other_sites_are_refused_by_every_method(guard, method, origin):
    assert guard().request(method, "/v1/models", headers={"origin": origin}).status_code == 403


def test_own_pages_and_programs_are_let_in(guard):
    client = guard()
    for origin in ("http://127.0.0.1:8000", "http://localhost:8000", "http://[::1]:8000"):
        assert client.delete("/x", headers={"origin": origin}).status_code == 200
    assert client.delete("/x").status_code == 200
    assert client.put("/x").status_code == 405


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1:8000.evil.a", "", "evil.a:8000",
     "2130706433:8000", "127.0.0.1:8000@evil.a", "0.0.0.0:8000"],
)  # fmt: skip
def test_rebound_names_are_refused(guard, host):
    """DNS rebinding: the page's own name, at our address."""
    client = guard()
    answer = client.get("/v1/models", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 421
    assert client.get("/healthz", headers={"host": host}).status_code == 200  # probes have no name


def test_two_hosts_are_none(guard):
    headers = [("host", "127.0.0.1:8000"), ("host", "evil.example")]
    assert guard().get("/", headers=headers).status_code == 421


def test_cors_is_off_and_then_exact(guard):
    site = "https://app.example.org"
    asked = {
        "origin": site,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, x-stainless-os",
    }
    assert guard().options("/v1/models", headers=asked).status_code == 403
    client = guard(cors_origins=(site,))
    preflight = client.options("/v1/models", headers=asked)
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == site
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-stainless-os"
    found = client.get("/v1/models", headers={"origin": site})
    assert found.status_code == 200 and found.headers["vary"] == "origin"
    assert found.headers["access-control-allow-origin"] == site
    assert "access-control-allow-credentials" not in found.headers
    for other in OTHERS:
        refused = client.options("/v1/models", headers={**asked, "origin": other})
        assert refused.status_code == 403
        assert "access-control-allow-origin" not in refused.headers
    assert "access-control-allow-origin" not in client.get("/v1/models").headers


def test_another_sites_pages_need_a_key_too(guard, key, quick):
    site = "https://app.example.org"
    client = guard(cors_origins=(site,))
    refused = client.get("/v1/models", headers={"origin": site})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == site
    headers = {"origin": site, "authorization": f"Bearer {key}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_without_a_key_any_is_fine(guard):
    for value in ("", "Bearer -", "Basic Og==", "Bearer"):
        assert guard().get("/v1/models", headers={"authorization": value}).status_code == 200


def _basic(text):
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_key_by_any_header(guard, key):
    client = guard()
    for headers in (
        {"authorization": f"Bearer {key}"},
        {"authorization": f"bearer  {key}"},
        {"authorization": _basic(f"anybody:{key}")},
        {"authorization": _basic(f":{key}")},
        {"api-key": key},
        {"x-api-key": key},
        {"x-api-key": key, "authorization": "Bearer other"},
    ):
        found = client.get("/v1/models", headers=headers)
        assert found.status_code == 200 and found.json()["key"] == "laptop"


@pytest.mark.parametrize(
    "path",
    ["/", "/v1/models", "/sdapi/v1/options", "/api/v1/jobs", "/metrics", "/healthz/", "/healthz/..",
     "//healthz", "/readyzz", "/links/a.png", "/HEALTHZ", "/login/", "/static/healthz"],
)  # fmt: skip
def test_without_it_nothing_answers(guard, key, quick, path):
    client = guard()
    for headers in (
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": key},
        {"authorization": f"Bearer {key}x"},
        {"authorization": f"Bearer {key.upper()}"},
        {"authorization": _basic(key)},
        {"authorization": _basic(f"{key}:")},
        {"authorization": "Basic !!!"},
        {"authorization": "Basic " + "=" * 100},
        {"x-api-key": key[:-1]},
        {"x-api-key": "é".encode()},
        {"cookie": f"calotype={key}; session={key}"},
    ):
        for method in ("GET", "POST", "DELETE"):
            found = client.request(method, path, headers=headers)
            assert found.status_code == 401 or (found.status_code == 404 and ".." in path)
            if found.status_code == 401:
                assert found.headers["www-authenticate"].startswith("Bearer")


def test_a_wrong_key_waits_and_a_right_one_does_not(guard, key, monkeypatch):
    from calotype.serving.front import authentication

    monkeypatch.setattr(authentication, "WRONG_KEY_SECONDS", 0.2)
    client = guard()
    for headers, least, most in (
        ({"x-api-key": "wrong"}, 0.2, 10),
        ({"x-api-key": key}, 0.0, 0.2),
        ({}, 0.0, 0.2),
    ):
        began = time.monotonic()
        client.get("/", headers=headers)
        assert least <= time.monotonic() - began < most


def test_only_so_many_wrong_keys_wait(guard, key, monkeypatch):
    import httpx

    from calotype.serving.front import authentication

    monkeypatch.setattr(authentication, "WRONG_KEY_SECONDS", 0.3)
    monkeypatch.setattr(authentication, "MOST_WRONG_KEYS", 3)
    app = guard().app

    async def ask():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as one:
            wrong = [one.get("/v1/x", headers={"x-api-key": "wrong"}) for _ in range(5)]
            right = one.get("/v1/x", headers={"x-api-key": key})
            return [answer async for answer in _each(*wrong, right)]

    async def _each(*requests):
        for answer in await asyncio.gather(*requests):
            yield answer

    answers = asyncio.run(ask())
    assert [one.status_code for one in answers] == [401, 401, 401, 429, 429, 200]
    assert answers[3].headers["retry-after"] == "5"
    assert answers[3].json()["error"]["type"] == "rate_limit_error"


def _log_in(client, key, **headers):
    form = {"key": (None, key)}
    return client.post("/login", files=form, headers={"origin": "http://127.0.0.1:8000", **headers})


def test_the_page_logs_in_and_out(guard, key, quick):
    client = guard()
    page = client.get("/", headers={"accept": "text/html"})
    assert page.status_code == 401 and '<label for="key">' in page.text
    assert "style-src 'sha256-" in page.headers["content-security-policy"]
    assert client.get("/login").status_code == 200
    wrong = _log_in(client, "wrong")
    assert wrong.status_code == 401 and 'role="alert"' in wrong.text and not client.cookies
    entered = _log_in(client, key)
    assert entered.status_code == 303 and entered.headers["location"] == "/"
    cookie = entered.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "path=/" in cookie
    assert "secure" not in cookie and key.lower() not in cookie
    assert client.get("/").json()["key"] == "laptop"
    (name,) = client.cookies
    session = client.cookies[name]
    left = client.post("/logout")
    assert left.status_code == 303 and not client.cookies
    assert left.headers["clear-site-data"] == '"storage"'
    again = client.get("/", headers={"cookie": f"{name}={session}"})
    assert again.status_code == 401


def test_the_cookie_of_an_https_server_stays_there(guard, key):
    client = guard(public_url="https://images.example.org", allowed_hosts=("images.example.org",))
    entered = _log_in(client, key, host="images.example.org", origin="https://images.example.org")
    cookie = entered.headers["set-cookie"]
    assert cookie.startswith("__Host-calotype_") and "; secure" in cookie.lower()


@pytest.mark.parametrize("forge", ["", "x", "0" * 32, "../../etc", "hash", "é", "a" * 20_000])
def test_forged_cookies_are_nobodys(guard, key, tmp_path, forge):
    client = guard()
    _log_in(client, key)
    (name,) = client.cookies
    session = client.cookies[name]
    client.cookies.clear()
    if forge == "hash":
        from calotype.web.tokens import token_hash

        forge = token_hash(session)
    for value in (forge, session[:-1], session + "x", key):
        headers = {"cookie": f"{name}={value}".encode()}
        assert client.get("/", headers=headers).status_code == 401
    assert client.get("/", headers={"cookie": f"{name}={session}"}).status_code == 200
    delete_key(tmp_path, "laptop")
    assert client.get("/", headers={"cookie": f"{name}={session}"}).status_code == 401


def test_a_cookie_does_not_work_for_another_sites_page(guard, key):
    """Another port of this machine is the same site for a SameSite cookie."""
    site = "http://127.0.0.1:3000"
    client = guard(cors_origins=(site,))
    _log_in(client, key)
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"origin": site}).status_code == 401
    own = {"origin": "http://127.0.0.1:8000"}
    assert client.post("/x", headers=own).status_code == 200


def test_another_site_cannot_log_anybody_in_or_out(guard, key):
    client = guard()
    for origin in OTHERS:
        assert _log_in(client, key, origin=origin).status_code == 403
        assert client.post("/logout", headers={"origin": origin}).status_code == 403


def test_an_open_page_logs_in_by_json(guard, key, quick):
    client = guard()
    wrong = client.post("/api/v1/login", json={"key": "wrong"})
    assert wrong.status_code == 401 and wrong.json()["error"]["code"] == "invalid_api_key"
    for bad in (b"", b"[]", b'{"key": 1}', b"{", b"\xff", b"9" * 4090):
        headers = {"content-type": "application/json"}
        refused = client.post("/api/v1/login", content=bad, headers=headers)
        assert refused.status_code == 400 and not client.cookies
    assert client.get("/api/v1/login").status_code == 405
    entered = client.post("/api/v1/login", json={"key": key})
    assert entered.status_code == 200 and entered.json() == {}
    assert client.get("/api/v1/jobs").json()["key"] == "laptop"


@pytest.mark.parametrize(
    ("data", "type_", "status"),
    [
        (b"key=x", "application/x-www-form-urlencoded", 415),
        (b"x" * 4097, "multipart/form-data; boundary=a", 413),
        (b"x", "multipart/form-data", 400),
        (b"--a\r\nx", "multipart/form-data; boundary=a", 401),
        (b"--a\r\nx: y\r\n\r\n\r\n--a--", "multipart/form-data; boundary=a", 400),
        (b"", "", 401),
        (b"{}", "application/json", 401),
    ],
)
def test_odd_logins_are_refused(guard, key, quick, data, type_, status):
    found = guard().post("/login", content=data, headers={"content-type": type_})
    if not data:
        assert found.status_code == 415
    else:
        assert found.status_code == status


def test_without_keys_there_is_nothing_to_log_in_to(guard):
    found = guard().get("/login")
    assert found.status_code == 303 and found.headers["location"] == "/"


def test_headers_of_every_answer(guard, key, quick):
    client = guard()
    answers = [
        client.get("/healthz"),
        client.get("/x"),
        client.get("/x", headers={"x-api-key": key}),
        client.get("/x", headers={"host": "evil.example"}),
        client.get("/x?fail=1", headers={"x-api-key": key}),
        client.get("/login"),
    ]
    assert [one.status_code for one in answers] == [200, 401, 200, 421, 500, 200]
    for one in answers:
        policy = one.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "*" not in policy
        assert "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert one.headers["x-content-type-options"] == "nosniff"
        assert one.headers["cross-origin-opener-policy"] == "same-origin"
        assert one.headers["cross-origin-resource-policy"] == "same-origin"
        assert one.headers["referrer-policy"] == "same-origin"
        assert "camera=()" in one.headers["permissions-policy"]
        assert re.fullmatch(r"[\w-]{16}", one.headers["x-request-id"])
        assert len(one.headers.get_list("content-security-policy")) == 1
    assert len({one.headers["x-request-id"] for one in answers}) == len(answers)


def test_a_request_id_is_taken_over_if_it_is_one(guard):
    client = guard()
    found = client.get("/x", headers={"x-request-id": "trace-1.2_3"})
    assert found.headers["x-request-id"] == found.json()["id"] == "trace-1.2_3"
    for bad in ("a b", "x" * 101, 'a"b', "<a>", ""):
        found = client.get("/x", headers={"x-request-id": bad})
        assert re.fullmatch(r"[\w-]{16}", found.headers["x-request-id"])


@pytest.mark.parametrize(
    "path",
    ["/a/../b", "/images/../../etc/passwd", "/./x", "/a\0b", "/a/..\\..\\x", "/images/..", "/..",
     "/C:\\x", "\\\\host\\x"],
)  # fmt: skip
def test_traversal_comes_to_no_route(guard, path):
    """However it was escaped: servers put the path here without its escapes."""
    sent = []

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"127.0.0.1:8000")]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    asyncio.run(guard().app({**scope, "query_string": b"", "scheme": "http"}, None, send))
    assert sent[0]["status"] == 404


def test_errors_say_nothing_of_the_machine(guard):
    found = guard().get("/v1/x?fail=1")
    assert found.status_code == 500
    assert not re.search("secret|Machinery|Traceback|Error\\b|/", found.json()["error"]["message"])


def test_there_are_no_web_sockets(guard):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), guard().websocket_connect("/"):
        pass
