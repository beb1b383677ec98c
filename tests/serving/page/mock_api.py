"""The native API with images made by Pillow, timed events, and faults on request.

`python tests/serving/page/mock_api.py --port 8000` serves the page with it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import functools
import io
import json
import random
import zipfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from PIL import Image, ImageDraw, ImageFilter
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from calotype.serving.page import mount

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SAMPLING = {
    "steps": 24, "sampler": "dpmpp_2m", "grid": "karras", "start": "draft", "variety": 0.0,
    "sigma_max": 1.0, "sigma_min": 0.02, "rho": 5.0, "guidance_weight": 2.0,
    "guidance_interval": None, "guidance_rescale": 0.0, "oscillating_guidance": False,
    "threshold_percentile": 0.995, "static_clip": True, "threshold_ceiling": None,
    "timesteps": None, "aug_level": 0.0, "ddpm_interpolation": 0.3,
}  # fmt: skip
SAMPLERS = ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde", "heun"]
CAPTIONS = (
    "a red fox", "a small blue boat, flat fluent style", "an owl, noto style, on a red background",
    "a green cactus in a pot", "hot air balloon, 3d render style", "a cup of tea",
    "a lighthouse, on a light blue background", "a slice of watermelon, flat twemoji style",
)  # fmt: skip


def stage(resolution, steps):
    settings = {**SAMPLING, "steps": steps, "start": "draft" if resolution == 64 else "noise"}
    if resolution > 64:
        settings |= {"guidance_weight": 1.0, "grid": "schedule", "sampler": "ddim"}
    named = ("steps", "sampler", "guidance_weight")
    return {"resolution": resolution, "settings": settings} | {k: settings[k] for k in named}


MODELS = [
    {
        "name": name, "stages": [stage(64, 24), stage(256, 8), stage(1024, 4)],
        "tunable": sorted(SAMPLING), "samplers": SAMPLERS, "edits": True, "unconditional": True,
        "largest_side": 2048,
    }
    for name in ("default", "sketches", "styles")
]  # fmt: skip
for model, need in ((MODELS[1], "optional"), (MODELS[2], "required")):
    model["classes"] = ["fluent", "noto"]
    model["stages"][0]["class"] = need  # its other stages take none
BACKGROUNDS = {
    "light blue": [173, 216, 240], "dark blue": [20, 40, 110], "turquoise": [64, 210, 200],
    "light green": [170, 235, 170], "dark green": [10, 85, 45], "yellow": [255, 225, 70],
    "orange": [255, 155, 50], "red": [215, 45, 45], "pink": [255, 175, 205],
    "purple": [130, 70, 180], "brown": [120, 75, 40], "black": [25, 25, 25],
}  # fmt: skip
CAPABILITIES = {
    "models": MODELS,
    "styles": ["3d render style", "flat fluent style", "flat twemoji style", "noto style",
               "glossy gradient style"],
    "backgrounds": [{"name": name, "rgb": rgb} for name, rgb in BACKGROUNDS.items()],
    "sizes": [64, 256, 512, 1024],
    "samplers": SAMPLERS,
    "limits": {"prompt": 32000, "n": 32, "steps": 256, "side": [16, 2048],
               "upload_bytes": 20 * 2**20, "upload_pixels": 16_000_000},
    "keys": False,
}  # fmt: skip


@functools.lru_cache(maxsize=400)
def painted(seed, side):
    """A round thing on a soft ground, other for each seed."""
    dice = random.Random(seed)
    hue = dice.randrange(360)
    ground, thing = (
        f"hsl({hue}, 45%, 86%)",
        f"hsl({(hue + dice.randrange(90, 200)) % 360}, 60%, 52%)",
    )
    image = Image.new("RGB", (256, 256), ground)
    painter = ImageDraw.Draw(image)
    x, y, r = dice.randrange(96, 160), dice.randrange(104, 156), dice.randrange(52, 84)
    painter.ellipse((x - r, y + r - 14, x + r, y + r + 16), fill=f"hsl({hue}, 35%, 76%)")
    image = image.filter(ImageFilter.GaussianBlur(5))
    painter = ImageDraw.Draw(image)
    if dice.random() < 0.5:
        for sign in (-1, 1):
            tip = (x + sign * r * 0.8, y - r * 1.25)
            painter.polygon([tip, (x + sign * r * 0.1, y - r * 0.8), (x + sign * r, y)], fill=thing)
    painter.ellipse((x - r, y - r, x + r, y + r), fill=thing)
    painter.ellipse(
        (x - r * 0.6, y - r * 0.7, x - r * 0.1, y - r * 0.35), fill=f"hsl({hue}, 80%, 93%)"
    )
    for sign in (-1, 1):
        painter.ellipse(
            (x + sign * r * 0.36 - 7, y - 8, x + sign * r * 0.36 + 7, y + 10), fill="#222"
        )
    return image.resize((side, side), Image.Resampling.LANCZOS)


def encoded(image, kind="PNG"):
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def canned(seed, width, height, kind="PNG"):
    """An image file; the same for many seeds, as painting takes its time."""
    return _canned(int(seed) % 97, width, height, kind)


@functools.lru_cache(maxsize=3000)
def _canned(seed, width, height, kind):
    image = painted(seed, min(max(width, height), 1024))
    return encoded(image.resize((width, height)) if image.size != (width, height) else image, kind)


@dataclass
class Job:
    id: str
    request: dict
    seed: int
    size: tuple
    state: str = "queued"
    events: list = field(default_factory=list)
    images: list = field(default_factory=list)
    position: int | None = None
    eta: float | None = None
    error: str | None = None
    warning: str | None = None


@dataclass
class Mock:
    """Everything the API says; tests set the faults."""

    step_seconds: float = 0.05
    steps: int = 8
    faults: set = field(default_factory=set)  # full, disk, restarting, draining, failing, held, key
    images: list = field(default_factory=list)
    jobs: list = field(default_factory=list)
    requests: list = field(default_factory=list)  # of POST jobs: what came
    sources: list = field(default_factory=list)  # (source, mask) of POST jobs
    keys: dict = field(default_factory=dict)
    restarts: int = 0
    kept: str = "page"
    store: str = "open"
    recipe: dict | None = None
    warning: str | None = None

    def fill(self, count):
        start = datetime(2026, 11, 1, tzinfo=UTC)
        for number in range(count):
            seed = number + 1
            self.add(
                CAPTIONS[number % len(CAPTIONS)], seed, 256, 256, start + timedelta(minutes=number)
            )

    def add(self, prompt, seed, width, height, created=None, **more):
        id_ = f"im{len(self.images):06d}"
        base = f"/api/v1/images/{id_}"
        created = created or datetime.now(UTC)
        one = {
            "id": id_, "created": created.isoformat(), "prompt": prompt, "seed": seed,
            "seed_text": str(seed), "width": width, "height": height, "model": "default",
            "kind": "sample", "favourite": False, "url": f"{base}/file",
            "thumbnail": f"{base}/thumbnail", "recipe_url": f"{base}/recipe", "job": None,
            "deleted": False, "request": {"kind": "sample", "prompt": prompt, "seed": str(seed),
                                          "size": [width, height], "n": 1}, **more,
        }  # fmt: skip
        self.images.append(one)
        return one

    def image(self, id_):
        return next((one for one in self.images if one["id"] == id_ and not one["deleted"]), None)

    def job(self, id_):
        return next((one for one in self.jobs if one.id == id_), None)


def refused(status, message, *, code=None, param=None, retry_after=None):
    headers = {"x-should-retry": "false"} if status < 429 else {}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)


def shown(job):
    return {
        "id": job.id, "state": job.state, "position": job.position, "eta_seconds": job.eta,
        "warning": job.warning, "images": job.images,
        "request": {**job.request, "seed": job.seed, "seed_text": str(job.seed)},
    }  # fmt: skip


def happened(job, event, /, **data):
    job.events.append((len(job.events) + 1, event, data))


async def work(mock, job):
    """A job from the queue to its images."""
    while "held" in mock.faults or any(
        one.state in ("queued", "running") for one in mock.jobs[: mock.jobs.index(job)]
    ):
        ahead = [one for one in mock.jobs if one.state in ("queued", "running")]
        job.position, job.eta = ahead.index(job), 4.0 * (1 + ahead.index(job))
        if not job.events or job.events[-1][2].get("position") != job.position:
            happened(job, "queued", position=job.position, eta_seconds=job.eta)
        await asyncio.sleep(0.03)
        if job.state == "cancelled":
            return
    job.state, job.position, job.eta = "running", None, mock.steps * mock.step_seconds
    happened(job, "started")
    width, height = job.size
    for step in range(1, mock.steps + 1):
        await asyncio.sleep(mock.step_seconds)
        while "paused" in mock.faults and job.state == "running":
            await asyncio.sleep(0.02)
        if job.state == "cancelled":
            return
        if "failing" in mock.faults and step == 3:
            job.state, job.error = "failed", "the image did not fit into memory; try a smaller size"
            for one in job.images:
                one |= {"state": "failed", "error": {"message": job.error, "kind": "memory"}}
            happened(job, "failed", message=job.error, kind="memory")
            return
        side = max(8, round(min(256, max(width, height)) * step / mock.steps))
        for one in job.images:
            data = {
                "image": one["index"],
                "stage": 0,
                "resolution": 64,
                "step": step,
                "steps": mock.steps,
            }
            happened(job, "step", **data, done=step, calls=mock.steps)
            size = (
                max(1, side * width // max(width, height)),
                max(1, side * height // max(width, height)),
            )
            src = base64.b64encode(canned(one["seed_text"], *size, "WEBP")).decode()
            happened(job, "preview", **data, width=size[0], height=size[1],
                     src=f"data:image/webp;base64,{src}")  # fmt: skip
    told = ("id", "width", "height", "url", "thumbnail", "recipe_url")
    for one in job.images:
        again = {**job.request, "n": 1, "seed": one["seed_text"], "size": [width, height]}
        more = {"job": job.id, "kind": job.request.get("kind", "sample"), "request": again}
        prompt = job.request.get("prompt", "")
        kept = mock.add(prompt, int(one["seed_text"]), width, height, **more)
        one |= {key: kept[key] for key in told} | {"state": "done"}
        seeds = {key: one[key] for key in ("seed", "seed_text")}
        happened(job, "image", image=one["index"], **seeds, **{key: one[key] for key in told})
    job.state = "done"
    happened(job, "done")


def build(mock):
    running = set()

    async def post_job(request):
        if "key" in mock.faults and request.cookies.get("key") != "right":
            return refused(401, "got no key; log in with one", code="invalid_api_key")
        form = None
        if request.headers["content-type"].startswith("multipart/"):
            form = await request.form(max_part_size=2**24)
            asked = json.loads(form["request"])
        else:
            asked = await request.json()
        key = request.headers.get("idempotency-key")
        if key in mock.keys:
            return JSONResponse(shown(mock.keys[key]), 202)
        if "full" in mock.faults:
            return refused(429, "the queue holds 64 images", code="queue_full", retry_after=3)
        if "draining" in mock.faults:
            return refused(503, "the server is stopping", code="draining", retry_after=5)
        if asked.get("steps", 1) > 256:
            return refused(400, "got 999 steps; expected 1 to 256", param="steps")
        mock.requests.append(asked)
        source = mask = None
        if form is not None and "source" in form:
            source = await form["source"].read()
            mask = await form["mask"].read() if "mask" in form else None
        mock.sources.append((source, mask))
        seed = asked.get("seed")
        seed = random.randrange(2**32) if seed is None else int(seed)
        side = asked.get("size") or [1024, 1024]
        if source is not None:
            side = Image.open(io.BytesIO(source)).size
        job = Job(f"job{len(mock.jobs):04d}", asked, seed, tuple(side), warning=mock.warning)
        job.images = [
            {"index": k, "seed": seed + k, "seed_text": str(seed + k), "state": "queued"}
            for k in range(asked.get("n", 1))
        ]
        mock.jobs.append(job)
        if key:
            mock.keys[key] = job
        task = asyncio.create_task(work(mock, job))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(0)
        return JSONResponse(shown(job), 202, {"Location": f"/api/v1/jobs/{job.id}"})

    async def jobs(_):
        return JSONResponse({"jobs": [shown(job) for job in reversed(mock.jobs)]})

    async def one_job(request):
        job = mock.job(request.path_params["id"])
        if job is None:
            return refused(404, "there is no such job")
        if request.method == "DELETE" and job.state in ("queued", "running"):
            job.state = "cancelled"
            for one in job.images:
                one["state"] = "cancelled"
            happened(job, "cancelled")
        return JSONResponse(shown(job))

    async def events(request):
        job = mock.job(request.path_params["id"])
        if job is None:
            return refused(404, "there is no such job")

        assert request.query_params["side"] == "384"

        async def lines():
            at = int(request.headers.get("last-event-id") or 0)
            while True:
                while at < len(job.events):
                    number, kind, data = job.events[at]
                    at += 1
                    yield f"event: {kind}\nid: {number}\ndata: {json.dumps(data)}\n\n"
                    if kind in ("done", "failed", "cancelled"):
                        return
                await asyncio.sleep(0.02)

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def images(request):
        query = request.query_params
        words, only = query.get("search", "").lower().split(), query.get("favourite") == "1"
        found = [one for one in reversed(mock.images) if not one["deleted"]
                 and (one["favourite"] or not only)
                 and all(word in one["prompt"].lower() for word in words)]  # fmt: skip
        start, limit = int(query.get("cursor") or 0), int(query.get("limit") or 50)
        following = str(start + limit) if start + limit < len(found) else None
        return JSONResponse({"images": found[start : start + limit], "next": following})

    async def one_image(request):
        one = mock.image(request.path_params["id"])
        if one is None:
            return refused(404, "there is no such image")
        if request.method == "PATCH":
            one["favourite"] = (await request.json())["favourite"]
        if request.method == "DELETE":
            one["deleted"] = True
        return JSONResponse(one)

    async def part(request):
        one, what = mock.image(request.path_params["id"]), request.path_params["what"]
        if what == "restore":
            for kept in mock.images:
                if kept["id"] == request.path_params["id"]:
                    kept["deleted"] = False
                    return JSONResponse(kept)
        if one is None:
            return refused(404, "there is no such image")
        if what == "recipe":
            return JSONResponse({"caption": one["prompt"], "seed": one["seed"]})
        if what == "thumbnail":
            return Response(canned(one["seed"], 256, 256, "WEBP"), media_type="image/webp",
                            headers={"Cache-Control": "max-age=86400"})  # fmt: skip
        name = (
            f'attachment; filename="{one["id"]}.png"'
            if "download" in request.query_params
            else "inline"
        )
        return Response(canned(one["seed"], one["width"], one["height"]), media_type="image/png",
                        headers={"Content-Disposition": name})  # fmt: skip

    async def zipped(request):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for id_ in (await request.json())["ids"]:
                archive.writestr(f"{id_}.png", canned(mock.image(id_)["seed"], 64, 64))
        return Response(out.getvalue(), media_type="application/zip")

    async def recipe(request):
        form = await request.form(max_part_size=2**24)
        data = await form["image"].read()
        try:
            width, height = Image.open(io.BytesIO(data)).size
        except OSError:
            return refused(400, "got a file that is no PNG, JPEG or WebP image", param="image")
        asked = mock.recipe
        return JSONResponse({"recipe": asked, "parameters": None, "request": asked, "ignored": [],
                             "width": width, "height": height})  # fmt: skip

    async def capabilities(_):
        if "key" in mock.faults and _.cookies.get("key") != "right":
            return refused(401, "got no key; log in with one", code="invalid_api_key")
        return JSONResponse(CAPABILITIES)

    async def status(_):
        state = "restarting" if "restarting" in mock.faults else "ready"
        active = [one for one in mock.jobs if one.state == "running"]
        waiting = [one for one in mock.jobs if one.state == "queued"]
        return JSONResponse({
            "engine": {"pid": 12345, "state": state, "restarts": mock.restarts, "device": "cpu"},
            "queue": {"waiting": len(waiting), "active": len(active), "capacity": 64},
            "kept": mock.kept, "keeping": "disk" not in mock.faults, "store": mock.store,
            "version": "0.1.0",
        })  # fmt: skip

    async def login(request):
        if (await request.json()).get("key") != "right":
            return refused(401, "got a key that this server does not know", code="invalid_api_key")
        answer = JSONResponse({})
        answer.set_cookie("key", "right", httponly=True, samesite="strict")
        return answer

    api = "/api/v1"
    app = Starlette(routes=[
        Route(f"{api}/jobs", post_job, methods=["POST"]), Route(f"{api}/jobs", jobs),
        Route(f"{api}/jobs/{{id}}", one_job, methods=["GET", "DELETE"]),
        Route(f"{api}/jobs/{{id}}/events", events),
        Route(f"{api}/images", images), Route(f"{api}/images/zip", zipped, methods=["POST"]),
        Route(f"{api}/images/{{id}}", one_image, methods=["GET", "PATCH", "DELETE"]),
        Route(f"{api}/images/{{id}}/{{what}}", part, methods=["GET", "POST"]),
        Route(f"{api}/recipe", recipe, methods=["POST"]),
        Route(f"{api}/capabilities", capabilities), Route(f"{api}/status", status),
        Route(f"{api}/login", login, methods=["POST"]),
    ])  # fmt: skip
    mount(app)

    async def guarded(scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"],
                           (b"content-security-policy", CSP.encode())]}  # fmt: skip
            await send(message)

        await app(scope, receive, with_policy)

    return guarded


def main():
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--step-seconds", type=float, default=0.3)
    options = parser.parse_args()
    mock = Mock(step_seconds=options.step_seconds)
    mock.fill(options.images)
    uvicorn.run(build(mock), port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
