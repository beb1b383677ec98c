"""Links: one image each, for an hour, without a key, and nothing else."""

from __future__ import annotations

import re

import pytest

from calotype.serving.front import links as module
from calotype.serving.front.jobs import Job, JobImage, Owner, Submission
from calotype.serving.front.links import Links
from calotype.serving.job import JobRequest


def _job(data=b"file", *, kept=False):
    owner = Owner("laptop", "10.0.0.1")
    submission = Submission(request=JobRequest(seed=1), owner=owner, api="openai")
    image = JobImage("i" * 32, 0, 1, "png", state="done", data=data, kept=kept)
    return Job("j" * 32, submission, [image]), image


@pytest.fixture
def linked(small_app):
    """The small application with the route of links before its own."""
    small_app.router.routes.insert(0, module.router.routes[0])
    return small_app


def test_a_link_opens_without_a_key_and_only_by_reading(linked, guard, key):
    client = guard()
    path = linked.state.links.add(*_job())
    found = client.get(path)
    assert found.status_code == 200 and found.content == b"file"
    assert found.headers["content-type"] == "image/png"
    assert found.headers["content-disposition"].startswith("inline; filename=")
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert found.headers["cross-origin-resource-policy"] == "cross-origin"
    assert client.get(path, headers={"host": "evil.example"}).status_code == 421
    assert client.get(path, headers={"origin": "null"}).status_code == 403


def test_others_need_a_key(linked, guard, key, quick):
    client = guard()
    path = linked.state.links.add(*_job())
    others = [path[:-4], path[:-3] + "webp", path + "/", path[:-5], path.upper(), "/x" + path]
    for other in (*others, "/links/", f"/links/{'0' * 32}.png", f"/links/{'i' * 32}.png"):
        assert client.get(other).status_code == 401, other
    forged = "/links/" + "0" * 32 + ".png"
    assert client.get(forged, headers={"x-api-key": key}).status_code == 404


def test_tokens_are_random_and_not_kept():
    links = Links()
    paths = {links.add(*_job()) for _ in range(100)}
    assert len(paths) == 100 and all(re.fullmatch(r"/links/[0-9a-f]{32}\.png", p) for p in paths)
    kept = repr(vars(links))
    assert not any(path[7:39] in kept for path in paths)


def test_an_hour(monkeypatch):
    links = Links()
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    path = links.add(*_job())
    for after, is_there in ((3599, True), (3601, False), (10**6, False)):
        now[0] = 1000.0 + after
        assert links.is_link(path) is is_there


def test_only_so_many_links_and_bytes(monkeypatch):
    monkeypatch.setattr(module, "MOST_LINKS", 3)
    links = Links()
    paths = [links.add(*_job()) for _ in range(4)]
    assert [links.is_link(path) for path in paths] == [False, True, True, True]
    monkeypatch.setattr(module, "MOST_LINKED", 10)
    path = links.add(*_job(b"x" * 7))
    assert [links.is_link(one) for one in (*paths, path)] == [False] * 4 + [True]
    kept = [links.add(*_job(b"x" * 7, kept=True)) for _ in range(2)]  # the disk has them
    assert links.is_link(path) and all(map(links.is_link, kept))
