"""Whatever bytes a file holds: it is read right, or refused in one line; nothing else happens.

The number of examples is bounded, and they are the same every time.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from calotype.cascade.png import read_recipe, write_png
from calotype.cascade.recipe import check_recipe, recipe_sampling
from calotype.config.stage import StageConfig
from calotype.config.typed_json import load_settings, to_dict
from calotype.data.folder import FolderSource
from calotype.data.images import BrokenImage
from calotype.data.tar import TarSource
from calotype.data.tar_index import SAMPLE, scan_tar
from calotype.errors import CalotypeError, UsageError
from calotype.generation.prompts import open_prompts
from calotype.storage.weights import check_header
from calotype.training.recipes import load_recipe

bounded = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
numbers = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**400, -(10**400), 2**63, 2**31, 1e300, 1e-300, float("nan")]),
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)


def mutated(data: bytes) -> st.SearchStrategy[bytes]:
    """`data` with some bytes changed, a stretch of it doubled or left out, or its end cut off."""
    places = st.integers(0, len(data) - 1)

    def change(edits: list[tuple[int, bytes, int]]) -> bytes:
        changed = bytearray(data)
        for place, new, over in edits:
            changed[place : place + over] = new
        return bytes(changed)

    edit = st.tuples(places, st.binary(max_size=12), st.integers(0, 12))
    return st.lists(edit, min_size=1, max_size=4).map(change)


def replaced(data: Any, path: list[int], value: object) -> Any:
    """`data` with one leaf or branch of it, found by taking turns, replaced."""
    if not path or not isinstance(data, dict | list) or not data:
        return value
    items = list(data.items()) if isinstance(data, dict) else list(enumerate(data))
    key, inner = items[path[0] % len(items)]
    changed = dict(data) if isinstance(data, dict) else list(data)
    changed[key] = replaced(inner, path[1:], value)
    return changed


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in (("a.png", _png()), ("a.txt", b"a caption"), ("b.png", _png())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(stream, "PNG")
    return stream.getvalue()


@bounded
@given(mutated(_tar()))
def test_tars(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.tar"
    file.write_bytes(data)
    try:
        samples = scan_tar(file).samples
    except UsageError:
        return
    assert samples.dtype == SAMPLE
    for name in ("image", "text", "json"):
        ends = samples[name] + samples[f"{name}_size"]
        assert (ends[samples[name] >= 0] <= len(data)).all()
    source = TarSource(tmp_path, [file])
    for index in range(len(source)):
        source.captions(index)
        try:
            source.image_bytes(index)
        except BrokenImage:
            continue


@bounded
@given(st.one_of(values, st.dictionaries(st.just("a"), values)), st.integers(-8, 8))
def test_headers_of_weights(tmp_path: Path, header: object, off: int) -> None:
    text = json.dumps(header).encode()
    file = tmp_path / "weights.safetensors"
    file.write_bytes(struct.pack("<Q", max(0, len(text) + off)) + text + bytes(16))
    with pytest.raises(CalotypeError):
        check_header(file, {"a": torch.zeros(2, 3)})


@bounded
@given(st.lists(st.integers(0, 99), max_size=8), values)
def test_recipes(tmp_path: Path, path: list[int], value: object) -> None:
    recipe = to_dict(load_recipe("tiny"))
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(replaced(recipe, path, value)))
    try:
        loaded = load_recipe(str(file))
    except CalotypeError as error:
        assert "\n" not in str(error)
        return
    json.dumps(to_dict(loaded), allow_nan=False)  # what is taken can be written down


@bounded
@given(st.binary(max_size=200))
def test_settings_of_any_bytes(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "stage.json"
    file.write_bytes(data)
    with pytest.raises(CalotypeError):
        load_settings(file, StageConfig)


RECIPE = {
    "format": 1,
    "kind": "sample",
    "caption": "a red fox",
    "seed": 3,
    "model": {"name": "small", "weights": "0" * 64},
    "stages": [{"resolution": 8, "height": 8, "width": 8, "sampling": {"steps": 4}}],
    "runtime": {"threads": 1, "dtype": "float32"},
}


@bounded
@given(st.lists(st.integers(0, 99), min_size=1, max_size=5), values)
def test_recipes_in_images(tmp_path: Path, path: list[int], value: object) -> None:
    file = tmp_path / "a.png"
    info = PngImagePlugin.PngInfo()
    info.add_text("calotype", json.dumps(replaced(RECIPE, path, value)))
    Image.new("RGB", (8, 8)).save(file, pnginfo=info)
    try:
        recipe = read_recipe(file)
        check_recipe(recipe)
        recipe_sampling(recipe)
    except CalotypeError as error:
        assert "\n" not in str(error)


@bounded
@given(st.data())
def test_images_with_a_recipe_that_were_changed(tmp_path: Path, data: st.DataObject) -> None:
    file = tmp_path / "a.png"
    write_png(file, np.zeros((8, 8, 3), np.uint8), RECIPE)
    whole = file.read_bytes()
    changed = data.draw(mutated(whole))
    file.write_bytes(changed)
    try:
        read_recipe(file)
    except CalotypeError as error:
        assert "\n" not in str(error)


@bounded
@given(st.binary(max_size=300))
def test_lists_of_captions(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "captions.txt"
    file.write_bytes(data)
    try:
        with open_prompts(file) as prompts:
            captions = list(prompts.read())
    except UsageError:
        return
    assert len(captions) == prompts.captions and captions[0] == prompts.first
    assert all("\n" not in caption and caption.strip() for caption in captions)


LINES = (
    b'{"file_name": "a.png", "text": "a cat"}\n{"file_name": "b.png", "caption": ["x", "y"]}\n'
    b'{"file_name": "sub/c.png", "text": null}\n'
)
TABLE = b'file_name,text\na.png,a cat\nb.png,"a dog, asleep"\nsub/c.png,\n'


@bounded
@given(st.data(), st.sampled_from([("metadata.jsonl", LINES), ("metadata.csv", TABLE)]))
def test_captions_of_folders(tmp_path: Path, data: st.DataObject, kind: tuple[str, bytes]) -> None:
    name, content = kind
    for old in tmp_path.glob("metadata.*"):
        old.unlink()
    for image in ("a.png", "b.png"):
        (tmp_path / image).write_bytes(_png())
    (tmp_path / name).write_bytes(data.draw(st.one_of(mutated(content), st.binary(max_size=99))))
    source = FolderSource(tmp_path)
    assert source.fingerprint
    assert {"a.png", "b.png"} <= {source.key(index) for index in range(len(source))}
    for index in range(len(source)):
        assert all(caption.text.strip() for caption in source.captions(index))
        try:
            source[index]
        except BrokenImage:
            continue


def test_a_recipe_as_it_was_written_is_read_and_a_changed_one_told(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    write_png(file, np.zeros((8, 8, 3), np.uint8), RECIPE)
    check_recipe(read_recipe(file))
    assert recipe_sampling(RECIPE)[8].steps == 4
    whole = bytearray(file.read_bytes())
    place = whole.index(b"red fox")
    whole[place] ^= 1
    file.write_bytes(whole)
    with pytest.raises(CalotypeError, match="damaged"):
        read_recipe(file)
