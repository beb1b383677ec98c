"""Models by name: read at the start, loaded when asked for, let go when there is no room."""

import shutil

import pytest

from calotype.errors import CalotypeError, UsageError
from calotype.runtime import Runtime
from calotype.serving.engine.limits import Limits
from calotype.serving.engine.loop import Loop
from calotype.serving.engine.shelf import Entry, Shelf, open_model, parse_entry

RUNTIME = Runtime("cpu", "float32", 1)


@pytest.mark.parametrize(
    ("text", "entry"),
    [
        ("default", Entry("default", "default")),
        ("mine=runs/one", Entry("mine", "runs/one")),
        (
            "a=b+c.safetensors:0.8+d/e.safetensors",
            Entry("a", "b", ("c.safetensors:0.8", "d/e.safetensors")),
        ),
        ("a=with+plus", Entry("a", "with+plus")),
    ],
)
def test_models_as_the_command_line_names_them(text, entry):
    assert parse_entry(text) == entry


@pytest.mark.parametrize("text", ["", "runs/one", "=x", "a/b=c", "a=", "a b=c"])
def test_what_names_no_model(text):
    with pytest.raises(UsageError, match="expected NAME=FOLDER"):
        parse_entry(text)


def test_a_converted_cascade_of_imagen_pytorch_is_refused_and_what_takes_it_is_said(tmp_path):
    (tmp_path / "imagen.json").write_text("{}")
    with pytest.raises(UsageError) as found:
        open_model(parse_entry(f"old={tmp_path}"), RUNTIME)
    message = str(found.value)
    assert message.startswith(f"got {tmp_path}, a cascade of imagen-pytorch; expected")
    assert "calotype sample" in message and "\n" not in message


@pytest.fixture
def shelf(model, tmp_path):
    """Three models of one size."""
    models = []
    for name in "abc":
        shutil.copytree(model, tmp_path / name)
        models.append(open_model(Entry(name, str(tmp_path / name)), RUNTIME))

    def make(**options):
        return Shelf(models, **options)

    return make


@pytest.fixture
def turned(bench, shelf):
    """A loop over them that is turned until it is idle; returns its sink."""

    def make(**options):
        made = shelf(**options)
        bench.sink = type(bench.sink)()
        bench.loop = Loop(made, Limits(), bench.sink)
        return bench

    return make


def loads(sink):
    ops = ("loading", "loaded", "unloaded")
    return [(head["op"], head["model"]) for head in sink.heads if head["op"] in ops]


def test_loaded_when_first_asked_for_and_once(turned):
    bench = turned()
    for number, name in enumerate(["b", "b", None]):
        bench.start(number, {"model": name, "size": (8, 8)})
    bench.run()
    assert sorted(loads(bench.sink)) == [
        ("loaded", "a"), ("loaded", "b"), ("loading", "a"), ("loading", "b"),
    ]  # fmt: skip
    assert [bench.sink.last_word(number) for number in range(3)] == ["image"] * 3


def test_the_least_recently_used_goes_when_there_is_no_room(turned):
    bench = turned()
    size = next(iter(bench.loop.shelf.models.values())).bytes
    assert size == pytest.approx(4 * sum(
        p.numel() for s in bench.loaded.cascade.stages[:3] for p in s.network.parameters()
    ))  # fmt: skip
    bench.loop.shelf.memory = int(2.5 * size)
    for name in "abac":
        bench.start(name + str(len(bench.sink.heads)), {"model": name, "size": (8, 8)})
        bench.run()
    assert ("unloaded", "b") in loads(bench.sink) and ("unloaded", "a") not in loads(bench.sink)
    assert bench.loop.shelf.models["b"].loaded is None


def test_an_image_waits_for_the_room_that_others_use_and_is_not_passed(turned):
    bench = turned(memory=1)  # a model that is larger is loaded all the same, alone
    bench.start("first", {"model": "a", "size": (8, 8)})
    bench.start("second", {"model": "b", "size": (8, 8)})
    bench.start("third", {"model": "a", "size": (8, 8)})
    bench.run()
    finished = [head["id"] for head in bench.sink.said("image")]
    assert finished == ["first", "second", "third"]
    order = [model for op, model in loads(bench.sink) if op == "loaded"]
    assert order == ["a", "b", "a"]


def test_unused_ones_go_after_a_while_or_when_told(turned):
    bench = turned(idle_seconds=0.0)
    bench.start("x", {"model": "c", "size": (8, 8)})
    bench.run()
    bench.turn()
    assert loads(bench.sink)[-1] == ("unloaded", "c")
    bench = turned()
    bench.start("x", {"model": "c", "size": (8, 8)})
    bench.run()
    bench.loop.unload_named("c")
    assert loads(bench.sink)[-1] == ("unloaded", "c")


def test_weights_that_are_damaged_are_their_images_failure_and_no_others(turned, tmp_path):
    weights = tmp_path / "b" / "16" / "weights.safetensors"
    bench = turned()
    weights.write_bytes(weights.read_bytes()[:-8])
    bench.start("damaged", {"model": "b", "size": (8, 8)})
    bench.start("sound", {"model": "a", "size": (8, 8)})
    bench.run()
    assert bench.sink.last_word("damaged") == "failed"
    assert bench.sink.last_word("sound") == "image"
    shutil.copyfile(tmp_path / "a" / "16" / "weights.safetensors", weights)
    bench.start("again", {"model": "b", "size": (8, 8)})
    bench.run()
    assert bench.sink.last_word("again") == "image"


def test_a_lora_belongs_to_its_model_alone(bench, model, tmp_path):
    with pytest.raises(CalotypeError):
        open_model(Entry("x", str(model), (str(tmp_path / "none.safetensors"),)), RUNTIME)
    opened = bench.model.told()
    assert opened["unconditional"] is False and "steps" in opened["tunable"]
    assert opened["stages"][0]["settings"]["steps"] == 8
