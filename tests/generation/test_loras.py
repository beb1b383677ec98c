import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade
from calotype.cascade.lora import save_lora, trained_lora
from calotype.cascade.png import read_recipe
from calotype.config.lora import LoraConfig
from calotype.errors import UsageError
from calotype.generation.loras import LoraRequest, parse_lora
from calotype.networks.lora import adapters, train_adapters


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """LoRA files of the stages of 8 and 16 pixels, with large changes."""
    folder = tmp_path_factory.mktemp("loras")
    for number, stage in enumerate(Cascade.load(model).stages[:2]):
        config = LoraConfig(rank=2)
        adapted = copy.deepcopy(stage)
        torch.manual_seed(number)
        train_adapters(adapted.network, config)
        for _, _, adapter in adapters(adapted.network):
            torch.nn.init.normal_(adapter.up, std=0.3)
        path = folder / f"{stage.config.resolution}.safetensors"
        save_lora(trained_lora(adapted, config), path)
    return folder


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def _draw(command, name, *words):
    code, _, err = command("sample", "a fox", "-o", name, "--size", "16", *words)
    assert code == 0, err
    return _pixels(name), err


def test_several_merged_or_not(command, files, tmp_path):
    plain, _ = _draw(command, "plain.png")
    words = ("--lora", str(files / "8.safetensors"), "--lora", f"{files / '16.safetensors'}:0.5")
    merged, err = _draw(command, "a.png", *words)
    assert err == "" and np.abs(merged - plain).mean() > 1
    beside, _ = _draw(command, "b.png", *words, "--no-merge-lora")
    assert np.abs(merged - beside).max() <= 1
    one, _ = _draw(command, "c.png", *words[:2])
    assert np.abs(one - merged).mean() > 0.1
    nothing, _ = _draw(command, "d.png", "--lora", f"{files / '8.safetensors'}:0")
    assert np.array_equal(nothing, plain)
    noted = read_recipe(tmp_path / "a.png")["loras"]
    assert [(n["file"], n["weight"]) for n in noted] == [
        ("8.safetensors", 1.0),
        ("16.safetensors", 0.5),
    ]
    assert "loras" not in read_recipe(tmp_path / "plain.png")


def test_drawing_again_asks_for_them(command, files, tmp_path):
    words = ("--lora", f"{files / '8.safetensors'}:0.8")
    first, _ = _draw(command, "a.png", *words)
    code, _, err = command("sample", "--like", "a.png", "-o", "b.png")
    assert code == 2 and "add --lora 8.safetensors:0.8" in err
    assert command("sample", "--like", "a.png", "-o", "b.png", *words)[0] == 0
    assert np.abs(_pixels("b.png") - first).max() <= 1


def test_upscale_samples_with_them(command, files, tmp_path):
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save("small.png")
    for name, words in (("a.png", ()), ("b.png", ("--lora", str(files / "16.safetensors")))):
        assert command("upscale", "small.png", "x", "--size", "16", "-o", name, *words)[0] == 0
    assert np.abs(_pixels("a.png") - _pixels("b.png")).mean() > 0.5
    assert read_recipe(tmp_path / "b.png")["loras"][0]["weight"] == 1.0


def test_other_weights_are_told_and_other_models_refused(command, files, model, tmp_path):
    cascade = Cascade.load(model)
    with torch.no_grad():
        cascade.stages[0].network.stem.weight.add_(0.5)
    cascade.save(tmp_path / "other")
    words = ("--model", str(tmp_path / "other"), "--lora", str(files / "8.safetensors"))
    code, _, err = command("sample", "x", "-o", "a.png", "--size", "8", *words)
    assert code == 0 and "trained on other weights" in err and err.count("\n") == 1
    path = tmp_path / "a.safetensors"
    data, noted = (files / "8.safetensors").read_bytes(), b'\\"resolution\\": 8'
    assert noted in data
    path.write_bytes(data.replace(noted, noted[:-1] + b"4"))
    code, _, err = command("sample", "x", "-o", "b.png", "--lora", str(path))
    assert code == 2 and "4 pixel stage" in err
    code, _, err = command("sample", "x", "-o", "b.png", "--lora", "no.safetensors")
    assert code == 2 and "no file" in err
    assert not os.path.exists("b.png")


def test_json_tells_of_them(command, files):
    words = ("--json", "--size", "8", "-o", "a.png", "--lora", str(files / "8.safetensors"))
    code, out, _ = command("sample", "x", *words)
    assert code == 0 and json.loads(out)["loras"][0]["file"] == "8.safetensors"


def test_files_and_weights_are_told_apart():
    assert parse_lora("a.safetensors") == LoraRequest(Path("a.safetensors"), 1.0)
    assert parse_lora("a.safetensors:0.5") == LoraRequest(Path("a.safetensors"), 0.5)
    assert parse_lora("b:c:-1") == LoraRequest(Path("b:c"), -1.0)
    assert parse_lora("b:c.safetensors") == LoraRequest(Path("b:c.safetensors"), 1.0)
    for weight in ("nan", "inf", "1e9"):
        with pytest.raises(UsageError, match="-100 to 100"):
            parse_lora(f"a:{weight}")


def test_captions_are_written_beside_images(command, tmp_path):
    words = ("-n", "2", "--size", "8", "-o", "p.png", "--write-captions")
    assert command("sample", "a fox", "a \ud800 cat", *words)[0] == 0
    texts = [(tmp_path / f"p-{i}.txt").read_text() for i in range(4)]
    assert texts == ["a fox", "a fox", "a ? cat", "a ? cat"]
