"""The engine as a process: frames in, frames out, and an end when its front has gone."""

import io
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade
from calotype.cascade.lora import save_lora, trained_lora
from calotype.cascade.png import read_recipe
from calotype.config.lora import LoraConfig
from calotype.networks.lora import adapters, train_adapters
from calotype.serving import wire
from calotype.serving.engine import faults

pytestmark = pytest.mark.slow

OPTIONS = {"dtype": "float32", "threads": 1}


class Front:
    """What speaks with an engine."""

    def __init__(self, model, **settings):
        told = json.dumps({"models": [f"tiny={model}"], **OPTIONS, **settings})
        command = [sys.executable, "-m", "calotype.serving.engine", "--settings", told]
        pipe = subprocess.PIPE
        environment = {**os.environ, faults.VARIABLE: "1"}
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        self.heads = []

    def send(self, head, *blobs):
        for piece in wire.encode(head, blobs):
            self.process.stdin.write(piece)
        self.process.stdin.flush()

    def start(self, id, request, seed=1, **more):
        self.send({"op": "start", "id": id, "request": request, "seed": seed, **more})

    def until(self, *ops):
        while (message := wire.read(self.process.stdout)) is not None:
            self.heads.append(message.head)
            if message.op in ops:
                return message
        raise AssertionError(f"the engine ended: {self.process.stderr.read().decode()}")

    def end(self):
        self.process.stdin.close()
        code = self.process.wait(30)
        self.process.stdout.close()
        self.process.stderr.close()
        return code


@pytest.fixture
def front(model):
    opened = []

    def start(**settings):
        opened.append(Front(model, **settings))
        return opened[-1]

    yield start
    for one in opened:
        one.process.kill()
        one.process.wait(30)


def test_an_exact_image_is_that_of_the_command_line_to_the_bit(front, command, tmp_path):
    code, _, err = command(
        "sample", "a red fox", "--seed", "5", "--size", "32", "--threads", "1", "--out", "a.png"
    )
    assert code == 0, err
    engine = front()
    ready = engine.until("ready").head
    assert ready["pid"] == engine.process.pid and ready["device"] == "cpu"
    (told,) = ready["models"]
    assert [stage["resolution"] for stage in told["stages"]] == [8, 16, 32]
    assert told["name"] == "tiny" and told["edits"] and told["largest_side"] == 2048
    engine.start("a", {"prompt": "a red fox", "size": [32, 32], "exact": True}, seed=5)
    message = engine.until("image", "failed")
    expected = Image.open("a.png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(message.blobs[0]))), expected)
    told = message.head
    assert told["batch"] == {"most_rows": 1, "exact": True} and told["recipe"]["caption"]
    noted = {k: v for k, v in told["recipe"].items() if k != "batch"}
    assert noted == {k: v for k, v in read_recipe(tmp_path / "a.png").items()}
    ops = [head["op"] for head in engine.heads]
    assert ops[0] == "ready" and ops.index("loaded") < ops.index("admitted") < ops.index("step")
    assert engine.end() == 0


@pytest.fixture
def loras(model, tmp_path):
    """LoRA files of the first stage and of the last, with large changes."""
    found = []
    for number, stage in enumerate(Cascade.load(model).stages[::2]):
        torch.manual_seed(number)
        train_adapters(stage.network, config := LoraConfig(rank=2))
        for _, _, adapter in adapters(stage.network):
            torch.nn.init.normal_(adapter.up, std=0.3)
        found.append(tmp_path / f"{number}.safetensors")
        save_lora(trained_lora(stage, config), found[-1])
    return found


def test_a_model_with_loras_is_that_of_the_command_line_to_the_bit(front, command, model, loras):
    named = [f"{loras[0]}:0.8", f"{loras[1]}:-0.5"]
    words = ("sample", "a red fox", "--seed", "5", "--size", "32", "--threads", "1", "--out")
    options = [word for one in named for word in ("--lora", one)]
    for name, more in (("with.png", options), ("without.png", [])):
        code, _, err = command(*words, name, *more)
        assert code == 0, err
    engine = front(models=["+".join([f"tiny={model}", *named])])
    engine.start("a", {"prompt": "a red fox", "size": [32, 32], "exact": True}, seed=5)
    message = engine.until("image", "failed")
    made = np.asarray(Image.open(io.BytesIO(message.blobs[0])))
    assert np.array_equal(made, Image.open("with.png"))
    assert not np.array_equal(made, Image.open("without.png"))
    noted = [(one["file"], one["weight"]) for one in message.head["recipe"]["loras"]]
    assert noted == [("0.safetensors", 0.8), ("1.safetensors", -0.5)]


def test_requests_are_checked_before_anything_is_loaded(front):
    engine = front()
    given = {"op": "check", "source": None, "mask": False}
    engine.send({**given, "id": 1, "request": {"size": [64, 48], "guidance": 2.0}})
    plan = engine.until("checked", "refused").head["plan"]
    assert plan["size"] == [64, 48] and plan["model"] == "tiny" and plan["calls"] > 16
    assert [stage["resolution"] for stage in plan["stages"]] == [8, 16, 32, 32]
    for request, param in (
        ({"sampler": "none"}, "sampler"),
        ({"model": "nobody"}, "model"),
        ({"stages": {"7": {"steps": 2}}}, "stages"),
        ({"stages": {"16": {"stepz": 2}}}, "stages"),
        ({"variety": 0.5}, "variety"),
        ({"kind": "upscale"}, "source"),
    ):
        engine.send({**given, "id": 2, "request": request})
        refused = engine.until("checked", "refused").head
        assert refused["op"] == "refused" and refused["param"] == param, refused
        assert "--" not in refused["message"]
    for request, source, mask, size in (
        ({"kind": "image_to_image", "strength": 0.5}, [20, 30], False, [20, 30]),
        ({"kind": "inpaint"}, [64, 32], True, [64, 32]),
        ({"kind": "vary", "vary": 0.1}, [9, 9], False, [9, 9]),
        ({"kind": "upscale"}, [20, 30], False, [40, 60]),
        ({"kind": "upscale", "size": [50, 75]}, [20, 30], False, [50, 75]),
    ):
        engine.send({"op": "check", "id": 3, "request": request, "source": source, "mask": mask})
        answer = engine.until("checked", "refused").head
        assert answer["op"] == "checked" and answer["plan"]["size"] == size, answer
    assert "loading" not in [head["op"] for head in engine.heads]


def test_it_goes_with_its_front(front):
    engine = front()
    engine.until("ready")
    engine.start("a", {"prompt": "fault:hang@8"})
    engine.until("calling")
    assert engine.end() == 0


def test_stop_ends_it_after_what_was_said(front):
    engine = front()
    engine.start("a", {"size": [16, 16], "format": "webp"})
    message = engine.until("image")
    assert Image.open(io.BytesIO(message.blobs[0])).format == "WEBP"
    engine.send({"op": "stop"})
    assert engine.process.wait(30) == 0


def test_a_fault_of_a_test_kills_it(front):
    engine = front()
    engine.start("a", {"prompt": "fault:die@16"})
    with pytest.raises(AssertionError):
        engine.until("image", "failed")
    assert engine.process.wait(30) == -signal.SIGKILL


def test_what_is_no_model_is_said_at_the_start(front, tmp_path):
    engine = front(models=[f"tiny={tmp_path}"])
    assert engine.process.wait(60) == 2
    assert b"got model" in engine.process.stderr.read()


def test_a_source_that_is_not_as_long_as_it_says_is_one_images_error(front):
    engine = front()
    request = {"kind": "image_to_image", "strength": 0.5}
    engine.send({"op": "start", "id": "a", "request": request, "seed": 1, "source": [4, 4]}, b"few")
    failed = engine.until("image", "failed").head
    assert failed["op"] == "failed" and "bytes" in failed["message"]
    pixels = np.full((20, 30, 4), 200, np.uint8).tobytes()
    engine.send(
        {"op": "start", "id": "b", "request": request, "seed": 1, "source": [30, 20]}, pixels
    )
    done = engine.until("image", "failed").head
    assert (done["op"], done["width"], done["height"]) == ("image", 30, 20)
