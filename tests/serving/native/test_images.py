"""The library of the native API, on a real store, with the fake engine."""

from __future__ import annotations

import io
import json
import random
import sqlite3
import time
import uuid
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

IMAGES, JOBS = "/api/v1/images", "/api/v1/jobs"
ODD_IDS = ("nothing", "%2e%2e%2fserve.sqlite", "..%2f..%2fetc%2fpasswd", "%00", "a" * 3000, "ü")
PARTS = ("", "/file", "/thumbnail", "/recipe")


def image(client, prompt="a fox", *, headers=None, **request):
    """Make one image; what its job says of it."""
    answer = client.post(JOBS, json={"prompt": prompt, **request}, headers=headers)
    assert answer.status_code == 202, answer.text
    path = f"{JOBS}/{answer.json()['id']}"
    client.get(f"{path}/events", headers=headers)
    return client.get(path, headers=headers).json()["images"][0]


def listed(client, headers=None, **query):
    answer = client.get(IMAGES, params=query, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def ids(found):
    return [one["id"] for one in found["images"]]


def add_rows(folder, rows):
    """Images of which the store is only told, as (id, created, prompt)."""
    db = sqlite3.connect(folder / "serve.sqlite", timeout=20)
    with db:
        db.executemany(
            "INSERT INTO images (id, created, prompt, place, state, seed, format, bytes) "
            "VALUES (?, ?, ?, 0, 'done', 1, 'png', 9)",
            rows,
        )
    db.close()


@pytest.fixture
def library(keeping):
    """A client of a server that keeps images, and its folder; the library is empty."""
    client, folder = keeping
    db = sqlite3.connect(folder / "serve.sqlite", timeout=20)
    with db:
        db.execute("DELETE FROM images")
    db.close()
    return client, folder


def test_an_image_is_listed_with_all_that_the_page_shows(library) -> None:
    client, _ = library
    made = image(client, "a red fox", seed=2**53 + 1, size=[256, 128])
    (found,) = listed(client)["images"]
    assert found["id"] == made["id"] and found["prompt"] == "a red fox"
    assert found["seed_text"] == str(2**53 + 1) and found["seed"] == 2**53 + 1
    assert (found["width"], found["height"], found["format"]) == (256, 128, "png")
    assert found["kind"] == "sample" and found["model"] == "default"
    assert found["favourite"] is False and found["created"].endswith("+00:00")
    alone = client.get(f"{IMAGES}/{made['id']}").json()
    assert alone.items() >= found.items()
    assert alone["request"]["seed_text"] == str(2**53 + 1)


def test_files_thumbnails_and_recipes(library) -> None:
    client, _ = library
    made = image(client, "A fox, on a hill!", seed=7, size=[1024, 512])
    file = client.get(made["url"])
    assert file.headers["content-type"] == "image/png"
    assert file.headers["content-disposition"].startswith('inline; filename="a-fox-on-a-hill-7-')
    assert "sandbox" in file.headers["content-security-policy"]
    assert Image.open(io.BytesIO(file.content)).size == (1024, 512)
    saved = client.get(made["url"], params={"download": 1})
    assert saved.headers["content-disposition"].startswith("attachment")
    small = client.get(made["thumbnail"])
    assert small.headers["content-type"] == "image/webp"
    shown = Image.open(io.BytesIO(small.content))
    assert shown.format == "WEBP" and shown.size == (256, 128)
    assert client.get(made["thumbnail"]).content == small.content
    assert client.get(made["recipe_url"]).json()["seed"] == 7


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_other_formats(library, kind) -> None:
    client, _ = library
    made = image(client, format=kind)
    file = client.get(made["url"])
    assert file.headers["content-type"] == f"image/{kind}"
    assert Image.open(io.BytesIO(file.content)).format == kind.upper()
    assert Image.open(io.BytesIO(client.get(made["thumbnail"]).content)).size == (64, 64)


def test_favourites_and_search(library) -> None:
    client, folder = library
    prompts = ("a red fox", "a red boat", "100% fox_y", "ein Fuchs")
    add_rows(folder, [(f"image{k}", 100.0 + k, text) for k, text in enumerate(prompts)])
    assert client.patch(f"{IMAGES}/image1", json={"favourite": True}).json()["favourite"] is True
    assert ids(listed(client, favourite=1)) == ["image1"]
    assert client.patch(f"{IMAGES}/image1", json={"favourite": False}).status_code == 200
    assert ids(listed(client, favourite=1)) == []
    for search, expected in {
        "RED": ["image1", "image0"],
        "fox a": ["image0"],
        "fox red": ["image0"],
        "%": ["image2"],
        "x_y": ["image2"],
        "\\": [],
        "' OR 1=1 --": [],
        "  ": ["image3", "image2", "image1", "image0"],
    }.items():
        assert ids(listed(client, search=search)) == expected, search


@pytest.mark.parametrize("body", [{}, {"favourite": 1}, {"favourite": True, "id": "x"}, [], "x"])
def test_only_favourites_are_changed(library, body) -> None:
    client, _ = library
    made = image(client)
    answer = client.patch(f"{IMAGES}/{made['id']}", json=body)
    assert answer.status_code == 400 and "error" in answer.json()


def test_a_deleted_image_is_gone_and_comes_back(library) -> None:
    client, _ = library
    made = image(client)
    path = f"{IMAGES}/{made['id']}"
    assert client.post(f"{path}/restore").status_code == 404  # it is there
    assert client.delete(path).status_code == 200
    assert listed(client)["images"] == []
    for part in PARTS:
        assert client.get(path + part).status_code == 404
    assert client.delete(path).status_code == 404
    assert client.post(f"{IMAGES}/zip", json={"ids": [made["id"]]}).status_code == 404
    assert client.post(f"{path}/restore").json()["id"] == made["id"]
    assert ids(listed(client)) == [made["id"]]
    assert client.get(f"{path}/file").status_code == 200


def test_a_zip_holds_the_files_once_each(library) -> None:
    client, _ = library
    made = [image(client, f"a fox, {k}", seed=k) for k in range(3)]
    wanted = [one["id"] for one in made]
    answer = client.post(f"{IMAGES}/zip", json={"ids": [*wanted, wanted[0]]})
    assert answer.headers["content-type"] == "application/zip"
    assert "calotype-3-images.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None and len(archive.namelist()) == 3
        for name, one in zip(archive.namelist(), made, strict=True):
            assert "/" not in name and archive.read(name) == client.get(one["url"]).content


@pytest.mark.parametrize(
    "body", [{}, {"ids": []}, {"ids": ["x"] * 1001}, {"ids": "x"}, {"ids": [1]}, {"ids": [["x"]]}]
)
def test_wrong_lists_for_a_zip(keeping, body) -> None:
    assert keeping[0].post(f"{IMAGES}/zip", json=body).status_code == 400


@given(st.lists(st.integers(0, 3), min_size=1, max_size=25), st.integers(1, 6))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_pages_hold_each_image_once_while_others_come(library, times, limit) -> None:
    """Whatever is added while somebody pages, what was there is seen once, in its order."""
    client, folder = library
    run = uuid.uuid4().hex
    first = [(f"{run}-{k}", 1000.0 + at, run) for k, at in enumerate(times)]
    add_rows(folder, first)
    expected = [one for one, at, _ in sorted(first, key=lambda row: (row[1], row[0]), reverse=True)]
    seen, cursor, added = [], None, 0
    while True:
        page = listed(client, limit=limit, search=run, **({"cursor": cursor} if cursor else {}))
        seen += ids(page)
        cursor = page["next"]
        if cursor is None:
            break
        assert len(page["images"]) == limit
        add_rows(folder, [(f"{run}-new{added}", 2000.0 + added, run)])
        added += 1
    assert seen == expected


def test_the_last_page_has_no_next(library) -> None:
    client, folder = library
    add_rows(folder, [(f"image{k}", 1.0, "") for k in range(4)])
    page = listed(client, limit=2)
    last = listed(client, limit=2, cursor=page["next"])
    assert last["next"] is None and ids(page) + ids(last) == [f"image{k}" for k in (3, 2, 1, 0)]


@pytest.mark.parametrize(
    "query",
    [
        {"cursor": "x"},
        {"cursor": "W10"},
        {"cursor": "WzEsICJcdWQ4MDAiXQ"},  # [1, "\ud800"]
        {"cursor": "W" * 4000},
        {"limit": 0},
        {"limit": 201},
        {"limit": "many"},
        {"search": "x" * 1001},
        {"favourite": "perhaps"},
    ],
)
def test_wrong_questions(keeping, query) -> None:
    answer = keeping[0].get(IMAGES, params=query)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == next(iter(query))


def test_ten_thousand_images_are_listed_at_once(library) -> None:
    client, folder = library
    words = ("red", "blue", "fox", "boat", "owl", "hill")
    dice = random.Random(0)
    add_rows(
        folder, [(f"i{k:05}", float(k), " ".join(dice.choices(words, k=4))) for k in range(10_000)]
    )
    places, cursor = [], None
    for _ in range(20):
        began = time.perf_counter()
        page = listed(client, limit=200, **({"cursor": cursor} if cursor else {}))
        places.append(time.perf_counter() - began)
        cursor = page["next"]
    began = time.perf_counter()
    assert listed(client, search="zebra")["images"] == []
    places.append(time.perf_counter() - began)
    assert sorted(places)[len(places) // 2] < 0.25 and max(places) < 2, places


@pytest.mark.parametrize("image_id", ODD_IDS)
def test_odd_ids_are_nobodys(keeping, image_id) -> None:
    client, _ = keeping
    for part in PARTS:
        assert client.get(f"{IMAGES}/{image_id}{part}").status_code == 404
    assert client.patch(f"{IMAGES}/{image_id}", json={"favourite": True}).status_code == 404
    assert client.delete(f"{IMAGES}/{image_id}").status_code == 404
    assert client.post(f"{IMAGES}/{image_id}/restore").status_code == 404


def test_dots_lead_nowhere(keeping) -> None:
    for path in ("/../serve.sqlite", "/..%2fserve.sqlite/file", "/images/../../serve.sqlite"):
        answer = keeping[0].get(IMAGES + path)
        assert answer.status_code == 404 and b"SQLite" not in answer.content


def test_images_in_memory_are_shown_until_they_are_forgotten(client) -> None:
    while client.get("/readyz").status_code != 200:
        time.sleep(0.01)
    made = image(client, "a fox", seed=3)
    assert listed(client) == {"images": [], "next": None}
    found = client.get(f"{IMAGES}/{made['id']}").json()
    assert found["prompt"] == "a fox" and found["seed"] == 3
    for part in ("file", "thumbnail", "recipe"):
        assert client.get(f"{IMAGES}/{made['id']}/{part}").status_code == 200
    assert client.delete(f"{IMAGES}/{made['id']}").status_code == 404
    assert client.post(f"{IMAGES}/zip", json={"ids": [made["id"]]}).status_code == 200


def test_other_keys_see_nothing(by_key) -> None:
    mine, other = {"x-test-key": "ann"}, {"x-test-key": "bob"}
    made = image(by_key, headers=mine)
    job = by_key.post(JOBS, json={"prompt": "wait"}, headers=mine).json()["id"]
    path = f"{IMAGES}/{made['id']}"
    asks = [("GET", path + part, None) for part in PARTS]
    asks += [
        ("PATCH", path, {"favourite": True}),
        ("DELETE", path, None),
        ("POST", f"{path}/restore", None),
        ("POST", f"{IMAGES}/zip", {"ids": [made["id"]]}),
        ("GET", f"{JOBS}/{job}", None),
        ("GET", f"{JOBS}/{job}/events", None),
        ("DELETE", f"{JOBS}/{job}", None),
        ("POST", f"{JOBS}/{job}/interrupt", None),
    ]
    for headers in (other, {}):
        assert listed(by_key, headers)["images"] == []
        assert by_key.get(JOBS, headers=headers).json()["jobs"] == []
        for method, where, body in asks:
            answer = by_key.request(method, where, json=body, headers=headers)
            nothing = by_key.request(method, where.replace(made["id"], "none"), json=body)
            assert answer.status_code == 404, (method, where)
            if made["id"] in where:
                assert answer.json() == nothing.json()
    assert by_key.get(path, headers=mine).status_code == 200
    assert by_key.get(f"{JOBS}/{job}", headers=mine).json()["state"] in ("queued", "running")
    by_key.delete(f"{JOBS}/{job}", headers=mine)
    by_key.delete(path, headers=mine)
    assert by_key.post(f"{path}/restore", headers=other).status_code == 404
    assert by_key.post(f"{path}/restore", headers=mine).status_code == 200


def test_an_interrupted_image_says_so(library) -> None:
    client, _ = library
    job = client.post(JOBS, json={"prompt": "wait"}).json()
    path = f"{JOBS}/{job['id']}"
    while not client.get(path).json()["images"][0]["progress"]:
        time.sleep(0.005)
    client.post(f"{path}/interrupt")
    client.get(f"{path}/events")
    made = client.get(path).json()["images"][0]
    assert client.get(made["recipe_url"]).json()["interrupted"] is True


def test_an_image_is_as_its_file_says(library) -> None:
    client, _ = library
    made = image(client, "a fox")
    text = Image.open(io.BytesIO(client.get(made["url"]).content)).text["calotype"]
    assert json.loads(text) == client.get(made["recipe_url"]).json()
