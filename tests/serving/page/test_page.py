"""What can be said of the page without a browser."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from calotype.serving.page import FOLDER, mount

MODULES = sorted((FOLDER / "app").glob("*.js"))
STYLES = sorted((FOLDER / "style").glob("*.css"))
VENDORED = json.loads((FOLDER / "vendor" / "vendored.json").read_text())


@pytest.fixture(scope="module")
def client():
    app = Starlette()
    mount(app)
    return TestClient(app)


@pytest.mark.parametrize("name", VENDORED)
def test_vendored_modules_are_what_npm_has(name):
    said = VENDORED[name]
    text = (FOLDER / "vendor" / name).read_text()
    for theirs, ours in said["changed"].items():
        assert text.count(ours) == 1
        text = text.replace(ours, theirs)
    assert hashlib.sha256(text.encode()).hexdigest() == said["sha256"]
    licence = said["licence"].split()[0]
    assert len((FOLDER / "vendor" / licence).read_text()) > 1000


def test_nothing_is_vendored_without_a_hash():
    assert {path.name for path in (FOLDER / "vendor").glob("*.js")} == set(VENDORED)


@pytest.mark.parametrize(
    "path", [*MODULES, *STYLES, FOLDER / "index.html"], ids=lambda one: one.name
)
def test_files_are_small_and_name_no_other_host(path):
    text = path.read_text()
    assert text.count("\n") < 300
    foreign = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", text, re.I))
    assert foreign == set()
    assert "eval(" not in text and "innerHTML" not in text


def test_every_import_is_there():
    for path in MODULES:
        for name in re.findall(r"from \"(\.[^\"]+)\"", path.read_text()):
            assert (path.parent / name).is_file(), f"{path.name} imports {name}"


class _Inline(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.files = [], []

    def handle_starttag(self, tag, attributes):
        names = dict(attributes)
        self.found += [name for name in names if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.files += [names[key] for key in ("src", "href") if key in names]


def test_the_page_holds_under_a_strict_policy():
    parser = _Inline()
    parser.feed((FOLDER / "index.html").read_text())
    assert parser.found == []
    assert len(parser.files) > 4 and all(
        (FOLDER / name.removeprefix("page/")).is_file() for name in parser.files
    )


@pytest.mark.parametrize(
    "path, kind",
    [("/", "text/html"), ("/page/app/main.js", "javascript"), ("/page/icon.svg", "image/svg"),
     ("/page/vendor/preact.js", "javascript"), ("/page/style/base.css", "text/css")],
)  # fmt: skip
def test_files_are_served_and_asked_for_anew(client, path, kind):
    answer = client.get(path)
    assert answer.status_code == 200 and kind in answer.headers["content-type"]
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize(
    "path",
    [
        "/page/__init__.py",
        "/page/vendor/vendored.json",
        "/page/../__init__.py",
        "/page/app",
        "/page/%2e%2e/job.py",
    ],
)
def test_nothing_else_is_served(client, path):
    assert client.get(path).status_code == 404
