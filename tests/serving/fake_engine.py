"""An engine without models: speaks `wire`, makes plain images, and fails as its prompts ask.

Prompts (anywhere in them): "die at start", "die at step 2", "die once" (not when tried alone), "die
in check", "hang forever", "hang once", "fail by memory", "fail by defect", "refuse SIZE"; any of
"die", "hang" and "fail" with "at step N" or "once at step N"; "slow" steps take 50 ms instead of
nothing; "wait" is not finished until it is cancelled or interrupted, "silent" says nothing more.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import re
import struct
import sys
import threading
import time
import zlib

from calotype.cascade.provenance import parameters_text
from calotype.serving import wire

STAGES = ((64, 4), (256, 2), (1024, 2))
MODELS = ("default", "other")


class Engine:
    """Images in turn, a step each, as the real one does."""

    def __init__(self, stream):
        self._stream = stream
        self._sending = threading.Lock()
        self._lock = threading.Lock()
        self._images = {}
        self._loaded = set()

    def send(self, head, blobs=()):
        with self._sending:
            for piece in wire.encode(head, blobs):
                self._stream.write(piece)
            self._stream.flush()

    def read(self, stream):
        while (message := wire.read(stream)) is not None:
            head = message.head
            if message.op == "stop":
                break
            if message.op == "check":
                self._check(head)
            with self._lock:
                if message.op == "start":
                    self._images[head["id"]] = {**head, "blobs": message.blobs, "at": 0}
                elif head.get("id") in self._images:
                    self._images[head["id"]]["asked"] = message.op
        os._exit(0)

    def _check(self, head):
        prompt = head["request"]["prompt"]
        if "die in check" in prompt:
            os._exit(7)
        refused = re.search(r"refuse (\w+)", prompt)
        model = head["request"]["model"]
        if model not in (None, *MODELS):
            refused = re.match("()(model)?", "")
            answer = {
                "message": f"there is no model {model!r}; expected {MODELS}",
                "param": "model",
            }
        elif refused:
            answer = {
                "message": f"got a bad {refused[1]}; expected a good one",
                "param": refused[1],
            }
        else:
            self.send({"op": "checked", "id": head["id"], "plan": plan(head)})
            return
        self.send({"op": "refused", "id": head["id"], **answer})

    def run(self):
        stages = [
            {"resolution": r, "steps": n, "sampler": "ddpm", "guidance_weight": 3.0, "settings": {}}
            for r, n in STAGES
        ]
        about = {"stages": stages, "tunable": ["steps", "guidance_weight", "sampler"]}
        about |= {"samplers": ["ddpm", "ddim", "dpmpp_2m"], "edits": True, "unconditional": True}
        models = [{"name": name, **about, "largest_side": 2048} for name in MODELS]
        self.send(
            {
                "op": "ready",
                "pid": os.getpid(),
                "models": models,
                "device": "cpu",
                "dtype": "float32",
            }
        )
        said = time.monotonic()
        while True:
            with self._lock:
                images = list(self._images.values())
            for image in images:
                self._step(image)
            if time.monotonic() - said > 1 or not said:
                said = time.monotonic()
                self.send({"op": "stats", "rss": 10**8, "active": len(images), "waiting": 0})
            if not images:
                time.sleep(0.002)

    def _step(self, image):
        asked, prompt = image.get("asked"), image["request"]["prompt"]
        who, at = {"id": image["id"]}, image["at"]
        if asked == "cancel":
            return self._last(image, {"op": "cancelled"})
        if at == 0:
            if "die at start" in prompt:
                os._exit(7)
            model = image["request"]["model"] or MODELS[0]
            if model not in self._loaded:
                self.send({"op": "loading", "model": model})
                self._loaded.add(model)
                self.send({"op": "loaded", "model": model, "seconds": 0.001})
            self.send({"op": "admitted", **who})
        if "silent" in prompt and at == 1 and asked is None:
            time.sleep(0.002)
            return None
        self._misbehave(image, prompt, at)
        if id(image) not in {id(one) for one in self._images.values()}:
            return None
        steps = [(s, r, k, n) for s, (r, n) in enumerate(stages_of(image)) for k in range(n)]
        if asked == "interrupt" or at >= len(steps):
            return self._finish(image, interrupted=asked == "interrupt")
        stage, resolution, step, count = steps[at]
        if "slow" in prompt or "wait" in prompt:
            time.sleep(0.05)
        self.send({"op": "calling", "resolution": resolution, "rows": 2})
        call = {"model": "default", "resolution": resolution, "rows": 2, "seconds": 0.001}
        self.send({"op": "call", **call})
        place = {"stage": stage, "resolution": resolution, "step": step + 1, "steps": count}
        self.send({"op": "step", **who, **place, "done": at + 1, "calls": len(steps)})
        self._preview(image, place)
        if "wait" not in prompt or at + 1 < len(steps):
            image["at"] += 1
        return None

    def _misbehave(self, image, prompt, at):
        found = re.search(r"(die|hang|fail) (once )?at step (\d+)", prompt)
        if found and at == int(found[3]) and not (found[2] and image["alone"]):
            if found[1] == "die":
                os._exit(7)
            elif found[1] == "hang":
                time.sleep(3600)
            failure = {"op": "failed", "message": "memory is out", "kind": "memory"}
            return self._last(image, failure)
        if "die once" in prompt and at == 1 and not image["alone"]:
            os._exit(7)
        if at == 1 and ("hang forever" in prompt or ("hang once" in prompt and not image["alone"])):
            time.sleep(3600)
        for word, kind in (("memory", "memory"), ("defect", "internal")):
            if f"fail by {word}" in prompt and at == 1:
                self._last(image, {"op": "failed", "message": f"{word} is out", "kind": kind})
        return None

    def _preview(self, image, place):
        if image["previews"] == "none":
            return
        index, stage = None, place["stage"]
        if image["previews"] == "partial":
            half, last = place["steps"] // 2, place["steps"]
            index = {(0, half): 0, (0, last): 1, (1, last): 2}.get((stage, place["step"]))
            if index is None:
                return
            side = image["preview_side"] or 256
            width, height = image["preview_size"] or [min(one, side) for one in size_of(image)]
        else:
            side = min(image["preview_side"] or 256, place["resolution"])
            width = height = side
        data = encode(width, height, image["seed"], image["preview_format"], None)
        head = {"op": "preview", "id": image["id"], **place, "index": index, "final": False}
        size = {"width": width, "height": height, "format": image["preview_format"]}
        self.send({**head, **size}, [data])

    def _finish(self, image, *, interrupted):
        request = image["request"]
        width, height = size_of(image)
        recipe = {
            "format": 1,
            "version": 1,
            "kind": request["kind"],
            "caption": request["prompt"],
            "negative_caption": request["negative_prompt"],
            **({"class": request["class"]} if request["class"] else {}),
            "seed": image["seed"],
            "model": {"name": request["model"] or MODELS[0]},
            "stages": [_recorded(request, *one) for one in stages_of(image)],
            "size": [width, height],
            "source_sha256": image["source_sha256"],
            "mask_sha256": image["mask_sha256"],
            "blobs": [hashlib.sha256(blob).hexdigest() for blob in image["blobs"]],
            "width": width,
            "height": height,
        }
        if interrupted:
            recipe["interrupted"] = True
        data = encode(width, height, image["seed"], request["format"], recipe)
        head = {"op": "image", "recipe": recipe, "width": width, "height": height, "seconds": 0.01}
        batch = {"most_rows": 1, "exact": image["alone"]}
        self._last(image, {**head, "format": request["format"], "batch": batch}, [data])

    def _last(self, image, head, blobs=()):
        with self._lock:
            del self._images[image["id"]]
        self.send({**head, "id": image["id"]}, blobs)


def stages_of(image):
    """Resolution and steps of the stages that reach the size."""
    side = max(size_of(image))
    wanted = [one for one in STAGES if one[0] < side] + [one for one in STAGES if one[0] >= side][
        :1
    ]
    steps = image["request"]["steps"]
    return [(r, steps if r == 64 and steps else n) for r, n in wanted]


def _recorded(request, resolution, steps):
    """A stage as recipes have it; the base's settings are the request's."""
    sampling = {"steps": steps, "sampler": "ddpm", "guidance_weight": 3.0}
    if resolution == STAGES[0][0]:
        asked = {"sampler": request["sampler"], "guidance_weight": request["guidance"]}
        sampling |= {name: value for name, value in asked.items() if value is not None}
    return {
        "resolution": resolution,
        "width": resolution,
        "height": resolution,
        "sampling": sampling,
    }


def size_of(head):
    """Width and height of the image."""
    if head["source"] is not None:
        factor = 4 if head["request"]["kind"] == "upscale" else 1
        return [factor * side for side in head["source"]]
    return head["request"]["size"] or [64, 64]


def plan(head):
    """As the real engine's."""
    width, height = size_of(head)
    stages = [{"resolution": r, "width": r, "height": r, "steps": n} for r, n in stages_of(head)]
    model = head["request"]["model"] or MODELS[0]
    calls = sum(one["steps"] for one in stages)
    return {"model": model, "size": [width, height], "stages": stages, "calls": calls}


def encode(width, height, seed, kind, recipe):
    """A file of one colour, by the seed; PNGs carry the recipe."""
    colour = bytes([seed * 37 % 256, seed * 101 % 256, 128])
    if kind == "png":
        return _png(width, height, colour, recipe)
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), tuple(colour)).save(buffer, kind.upper())
    return buffer.getvalue()


def _png(width, height, colour, recipe):
    def chunk(name, body):
        check = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    text = b""
    if recipe is not None:
        text = chunk(b"tEXt", b"calotype\0" + json.dumps(recipe).encode())
        text += chunk(b"iTXt", b"parameters\0\0\0\0\0" + parameters_text(recipe).encode())
    rows = zlib.compress((b"\0" + colour * width) * height, 1)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + text
    return start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def main():
    """Speak on standard input and output; anything that prints goes to stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--refuse-start", action="store_true")
    parser.add_argument("--start-seconds", type=float, default=0.0)
    arguments, _ = parser.parse_known_args()
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    if arguments.refuse_start:
        print("calotype: there is no such model", file=sys.stderr)
        sys.exit(2)
    time.sleep(arguments.start_seconds)
    engine = Engine(stream)
    threading.Thread(target=engine.read, args=(sys.stdin.buffer,), daemon=True).start()
    engine.run()


if __name__ == "__main__":
    main()
