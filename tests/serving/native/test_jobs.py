"""Jobs by the server's own API, with the fake engine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

JOBS = "/api/v1/jobs"
FORM = {"kind": "image_to_image", "prompt": "a fox", "strength": 0.5}


def png(width=64, height=64, colour=(200, 30, 40)):
    out = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(out, "PNG")
    return out.getvalue()


def mask_png(width=64, height=64):
    values = np.zeros((height, width), np.uint8)
    values[:8, :16] = 255
    out = io.BytesIO()
    Image.fromarray(values).save(out, "PNG")
    return out.getvalue()


def events_of(text):
    """The events of a stream: number, kind and data."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] not in ("", ":")
        )
        if lines:
            found.append((int(lines["id"]), lines["event"], json.loads(lines["data"])))
    return found


def make(client, request, **rest):
    answer = client.post(JOBS, json=request, **rest)
    assert answer.status_code == 202, answer.text
    return answer.json()


def ids(api):
    return [one["id"] for one in api.get(JOBS).json()["jobs"]]


def finished(client, job, query=""):
    """The events of a job to its end, and the job after it."""
    events = events_of(client.get(f"{JOBS}/{job['id']}/events{query}").text)
    return events, client.get(f"{JOBS}/{job['id']}").json()


def test_a_class_goes_to_the_engine_and_comes_back_in_the_request_of_its_image(api) -> None:
    job = make(api, {"class": "noto", "size": [64, 64]})
    assert job["request"]["class"] == "noto" and "class_name" not in job["request"]
    _, job = finished(api, job)
    image = api.get(f"/api/v1/images/{job['images'][0]['id']}").json()
    assert api.get(job["images"][0]["recipe_url"]).json()["class"] == "noto"
    assert image["request"]["class"] == "noto"
    answer = api.post(JOBS, json={"class": ""})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "class"


def test_a_job_is_accepted_followed_and_over(api) -> None:
    answer = api.post(JOBS, json={"prompt": "a fox", "n": 2, "seed": 7, "size": [256, 256]})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"{JOBS}/{job['id']}"
    assert [(one["index"], one["seed"], one["seed_text"]) for one in job["images"]] == [
        (0, 7, "7"),
        (1, 8, "8"),
    ]
    assert job["request"]["prompt"] == "a fox" and job["request"]["size"] == [256, 256]
    assert job["warning"] is None
    events, over = finished(api, job)
    kinds = [kind for _, kind, _ in events]
    assert kinds[-1] == "done" and kinds.count("image") == 2 and "preview" in kinds
    numbers = [number for number, _, _ in events]
    assert numbers == sorted(set(numbers))
    assert over["state"] == "done" and over["position"] is None
    step = next(data for _, kind, data in events if kind == "step")
    assert {"image", "stage", "resolution", "step", "steps", "done", "calls"} <= step.keys()
    image = next(data for _, kind, data in events if kind == "image")
    assert image["url"] == f"/api/v1/images/{image['id']}/file"
    assert {"thumbnail", "recipe_url", "width", "height", "seed_text"} <= image.keys()


def test_previews_are_data_urls_as_small_as_asked_or_none(api) -> None:
    job = make(api, {"prompt": "slow", "size": [1024, 1024], "seed": 1, "preview_side": 1024})
    finished(api, job)
    events, _ = finished(api, job)
    sides = [data["width"] for _, kind, data in events if kind == "preview"]
    assert sides == [1024]
    events, _ = finished(api, job, "?side=32")
    previews = [data for _, kind, data in events if kind == "preview"]
    assert previews
    for data in previews:
        assert max(data["width"], data["height"]) == 32
        head, text = data["src"].split(",")
        assert head == "data:image/webp;base64"
        assert Image.open(io.BytesIO(base64.b64decode(text))).size == (32, 32)
    events, _ = finished(api, job, "?previews=0")
    assert "preview" not in [kind for _, kind, _ in events]
    silent = api.post(f"{JOBS}?previews=false", json={"prompt": "a fox"}).json()
    assert "preview" not in [kind for _, kind, _ in finished(api, silent)[0]]


def test_a_stream_goes_on_after_the_last_event_id(api) -> None:
    job = make(api, {"prompt": "a fox", "n": 3, "seed": 1})
    finished(api, job)
    events, _ = finished(api, job)  # what is kept of it, now that it is over
    for place in (0, len(events) // 2, len(events) - 2):
        number = events[place][0]
        again = api.get(f"{JOBS}/{job['id']}/events", headers={"Last-Event-ID": str(number)}).text
        assert events_of(again) == events[place + 1 :]
    for odd in ("x", "-1", "9" * 40, "²"):
        headers = {"Last-Event-ID": odd.encode()}
        again = api.get(f"{JOBS}/{job['id']}/events", headers=headers).text
        assert events_of(again) == events


@pytest.mark.parametrize("seed", [0, 2**32, 2**53 + 1, 2**63 - 2])
@pytest.mark.parametrize("as_text", [False, True])
def test_seeds_stay_exact(api, seed, as_text) -> None:
    job = make(api, {"prompt": "a fox", "n": 2, "seed": str(seed) if as_text else seed})
    assert [one["seed_text"] for one in job["images"]] == [str(seed), str(seed + 1)]
    assert job["request"]["seed_text"] == str(seed)
    again = make(api, job["request"])  # an answer's request may be sent as it is
    assert [one["seed"] for one in again["images"]] == [seed, seed + 1]


def test_random_seeds_are_small(api) -> None:
    seeds = {make(api, {"prompt": "a fox"})["images"][0]["seed"] for _ in range(8)}
    assert len(seeds) == 8 and max(seeds) < 2**32


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x" * 32_001}, "prompt"),
        ({"steps": 257}, "steps"),
        ({"stages": {"64": {"steps": 257}}}, "stages"),
        ({"n": 33}, "n"),
        ({"seed": -1}, "seed"),
        ({"seed": str(2**63)}, "seed"),
        ({"seed": "seven"}, "seed"),
        ({"size": [8, 64]}, "size.0"),
        ({"colour": "red"}, "colour"),
        ({"preview_side": 15}, "preview_side"),
        ({"preview_side": 1025}, "preview_side"),
        ({"preview_side": True}, "preview_side"),
        ({"kind": "sing"}, "kind"),
        ({"kind": "image_to_image", "strength": 0.5}, "source"),
        ({"source": "aGk="}, "source"),
        ({"source": 7}, "source"),
        ({**FORM, "source": "https://example.org/cat.png"}, "source"),
        ({**FORM, "source": base64.b64encode(png()).decode(), "mask": "aGk="}, "mask"),
        ({"kind": "inpaint", "source": base64.b64encode(png()).decode()}, "mask"),
        ({"prompt": "refuse size"}, "size"),
        ({"model": "nobody"}, "model"),
    ],
)
def test_wrong_requests_say_which_field(api, body, param) -> None:
    before = ids(api)
    answer = api.post(JOBS, json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error"
    assert answer.headers["x-should-retry"] == "false"
    assert ids(api) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b'{"n": NaN}'])
def test_bodies_that_are_no_request(api, body) -> None:
    answer = api.post(JOBS, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400


def test_sources_come_as_text_or_in_a_form(api) -> None:
    text = base64.b64encode(png()).decode()
    for source in (text, f"data:image/png;base64,{text}"):
        job = make(api, {**FORM, "source": source, "seed": 3})
        assert finished(api, job)[1]["images"][0]["width"] == 64
    files = {"source": ("s.png", png(128, 64)), "mask": ("m.png", mask_png(128, 64))}
    fields = {"kind": "inpaint", "prompt": "a hat", "seed": str(2**53 + 1)}
    answer = api.post(JOBS, data={"request": json.dumps(fields)}, files=files)
    assert answer.status_code == 202, answer.text
    _, over = finished(api, answer.json())
    image = over["images"][0]
    assert (image["width"], image["height"], image["seed_text"]) == (128, 64, str(2**53 + 1))
    recipe = api.get(image["recipe_url"]).json()
    for role, (_, data) in files.items():
        assert recipe[f"{role}_sha256"] == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({}, {"source": b"x"}, "request"),
        ({"request": "[]"}, {"source": b"x"}, "request"),
        ({"request": "{}"}, {"other": b"x"}, "other"),
        ({"request": json.dumps(FORM)}, {"source": b"GIF89a"}, "source"),
        ({"request": json.dumps(FORM)}, {"source": b""}, "source"),
    ],
)
def test_wrong_forms(api, fields, files, param) -> None:
    answer = api.post(JOBS, data=fields, files=files)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param


def test_a_key_joins_its_job(api) -> None:
    wanted, headers = {"prompt": "a fox", "seed": 1}, {"Idempotency-Key": "k1"}
    first = make(api, wanted, headers=headers)
    assert make(api, wanted, headers=headers)["id"] == first["id"]
    other = api.post(JOBS, json={**wanted, "seed": 2}, headers=headers)
    assert other.status_code == 422 and other.json()["error"]["param"] == "Idempotency-Key"


def test_jobs_are_listed_newest_first(api) -> None:
    made = [make(api, {"prompt": "a fox"})["id"] for _ in range(3)]
    assert ids(api)[:3] == made[::-1]
    assert [one["id"] for one in api.get(f"{JOBS}?limit=1").json()["jobs"]] == made[2:]


def test_delete_cancels_and_keeps_what_is_done(api) -> None:
    job = make(api, {"prompt": "wait", "n": 2})
    over = api.delete(f"{JOBS}/{job['id']}")
    assert over.status_code == 200 and over.json()["state"] == "cancelled"
    assert finished(api, job)[0][-1][1] == "cancelled"
    assert api.delete(f"{JOBS}/{job['id']}").json()["state"] == "cancelled"
    done = make(api, {"prompt": "a fox"})
    finished(api, done)
    assert api.delete(f"{JOBS}/{done['id']}").json()["state"] == "done"


def test_interrupt_finishes_what_runs(api) -> None:
    job = make(api, {"prompt": "wait", "seed": 1})
    path = f"{JOBS}/{job['id']}"
    while not api.get(path).json()["images"][0]["progress"]:
        time.sleep(0.005)
    assert api.post(f"{path}/interrupt").status_code == 200
    events, over = finished(api, job)
    assert over["state"] == "done" and events[-1][1] == "done"


def test_failures_say_why(api) -> None:
    job = make(api, {"prompt": "fail by memory"})
    events, over = finished(api, job)
    _, kind, data = events[-1]
    assert kind == "failed" and data["kind"] == "memory" and data["errors"][0]["image"] == 0
    assert over["state"] == "failed"
    assert over["images"][0]["error"] == {"message": "memory is out", "kind": "memory"}


def test_a_full_queue_says_when_to_ask_again(api) -> None:
    jobs = [make(api, {"prompt": "wait", "n": 16}) for _ in range(2)]
    answer = api.post(JOBS, json={"prompt": "wait", "n": 32})
    assert answer.status_code == 429 and 1 <= int(answer.headers["retry-after"]) <= 120
    waiting = api.get(f"{JOBS}/{jobs[1]['id']}").json()
    assert waiting["position"] is not None
    for job in jobs:
        api.delete(f"{JOBS}/{job['id']}")


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(
    "job_id",
    ["nothing", "..", "%2e%2e%2fserve.sqlite", "%00", "a" * 4000, "'; DROP TABLE jobs", "ü"],
)
def test_odd_ids_are_nobodys(api, method, job_id) -> None:
    for path in (f"{JOBS}/{job_id}", f"{JOBS}/{job_id}/events"):
        assert api.request(method, path).status_code in (404, 405)
    assert api.post(f"{JOBS}/{job_id}/interrupt").status_code in (404, 405)


def test_events_of_no_job_are_an_error_not_a_stream(api) -> None:
    answer = api.get(f"{JOBS}/nothing/events")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"


def test_a_stream_is_live_and_its_end_ends_nothing(api) -> None:
    job = make(api, {"prompt": "wait"})
    with api.stream("GET", f"{JOBS}/{job['id']}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line == "event: step":
                break
    assert api.get(f"{JOBS}/{job['id']}").json()["state"] == "running"
    api.delete(f"{JOBS}/{job['id']}")
