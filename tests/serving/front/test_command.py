"""`calotype serve` itself, with a tiny cascade: told to end amid streams, and killed."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from calotype.serving.front.adopt import file_of

pytestmark = pytest.mark.slow

LONG = {"steps": 256, "stages": {"16": {"steps": 64}}}  # a second's work, and more


@pytest.fixture
def serving(model, tmp_path):
    """Start the command on one folder: `with serving() as (process, client)`."""

    @contextmanager
    def start():
        words = ["--model", f"tiny={model}", "--data", str(tmp_path), "--dtype", "float32"]
        words += ["--threads", "1", "--port", "0", "--drain", "120"]
        command = [sys.executable, "-m", "calotype", "serve", *words]
        with open(tmp_path / "log", "ab") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            address = process.stdout.readline().removeprefix("serving on ").strip()
            with httpx.Client(base_url=address, timeout=120) as client:
                yield process, client
        finally:
            process.kill()
            process.communicate()

    return start


def add(client, prompt, **request):
    answer = client.post("/api/v1/jobs", json={"prompt": prompt, "seed": 1, **request})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def jobs(client):
    return {job["id"]: job for job in client.get("/api/v1/jobs").json()["jobs"]}


class Listener(threading.Thread):
    """Reads a stream of events to its end."""

    def __init__(self, client, method, path, **request):
        super().__init__()
        self.told, self.is_cut = [], False
        self._ask = lambda: client.stream(method, path, **request)
        self.start()

    def run(self):
        try:
            with self._ask() as stream:
                for line in stream.iter_lines():
                    if line.startswith("data: "):
                        self.told.append(line.removeprefix("data: "))
        except httpx.HTTPError:
            self.is_cut = True

    def data(self):
        return [json.loads(line) for line in self.told if line != "[DONE]"]


def openai(client, n):
    body = {"prompt": "blue right", "n": n, "stream": True, "partial_images": 1, "seed": 7}
    body |= {"num_inference_steps": LONG["steps"], "stages": LONG["stages"]}
    return Listener(client, "POST", "/v1/images/generations", json=body)


def test_streams_end_whole_when_the_command_is_told_to_end(serving, until) -> None:
    with serving() as (process, client):
        job = add(client, "red left", n=2, **LONG)
        native = Listener(client, "GET", f"/api/v1/jobs/{job}/events?previews=0")
        theirs = openai(client, 2)
        until(lambda: any("resolution" in line for line in native.told))
        until(lambda: {one["state"] for one in jobs(client).values()} == {"running"})
        until(lambda: len(jobs(client)) == 2)
        process.send_signal(signal.SIGTERM)
        refused = [
            client.post("/api/v1/jobs", json={"prompt": "a dog"}),
            client.post("/v1/images/generations", json={"prompt": "a dog"}),
        ]
        were_over = "[DONE]" in theirs.told or "images" in native.told[-1]
        native.join(120)
        theirs.join(120)
        assert process.wait(60) == 0
    assert [answer.status_code for answer in refused] == [503, 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert not were_over and not native.is_cut and not theirs.is_cut
    assert sum("thumbnail" in data for data in native.data()) == 2
    assert theirs.told[-1] == "[DONE]" and not any("error" in data for data in theirs.data())
    done = [data for data in theirs.data() if data["type"] == "image_generation.completed"]
    assert len(done) == 2
    for data in done:
        Image.open(io.BytesIO(base64.b64decode(data["b64_json"]))).load()


def listed(client):
    return {one["id"]: one for one in client.get("/api/v1/images?limit=200").json()["images"]}


def test_nothing_is_lost_when_the_command_is_killed(serving, until, tmp_path) -> None:
    with serving() as (process, client):
        finished = add(client, "green left", n=3)
        until(lambda: jobs(client)[finished]["state"] == "done")
        kept = {one: client.get(f"/api/v1/images/{one}/file").content for one in listed(client)}
        gone = openai(client, 1)
        until(lambda: len(jobs(client)) == 2)
        running = add(client, "red left", n=14, **LONG)  # a client has 12 places
        until(lambda: jobs(client)[running]["state"] == "running")
        queued = add(client, "blue left", n=2)
        before = jobs(client)
        engine = client.get("/api/v1/status").json()["engine"]["pid"]
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
        gone.join(60)
    (theirs,) = before.keys() - {finished, running, queued}
    states = {name: job["state"] for name, job in before.items()}
    assert states == {finished: "done", theirs: "running", running: "running", queued: "queued"}
    assert len(kept) == 3 and gone.is_cut
    until(lambda: not Path(f"/proc/{engine}").exists())

    orphan = "orphan".ljust(22, "0")
    path = file_of(tmp_path, orphan, "png")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(next(iter(kept.values())))
    with serving() as (_, client):
        again = jobs(client)
        assert again.keys() == before.keys() and again[theirs]["state"] == "interrupted"
        until(lambda: all(jobs(client)[one]["state"] == "done" for one in (running, queued)), 120)
        images = client.get("/api/v1/images?limit=200").json()["images"]
        for name, data in {**kept, orphan: next(iter(kept.values()))}.items():
            assert client.get(f"/api/v1/images/{name}/file").content == data
            Image.open(io.BytesIO(data)).load()
        after = jobs(client)
    assert after[finished] == {**before[finished], "eta_seconds": None}
    assert after[theirs]["state"] == "interrupted"
    made = {image["id"] for one in (finished, running, queued) for image in after[one]["images"]}
    assert len(images) == len(made) + 1 == 20
    assert {image["id"] for image in images} == made | {orphan}
    (adopted,) = [image for image in images if image["id"] == orphan]
    assert adopted["prompt"] == "green left" and adopted["job"] is None
    files = {path.stem for path in tmp_path.glob("images/*/*")}
    assert files == made | {orphan}
