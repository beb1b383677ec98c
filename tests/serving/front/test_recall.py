import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from calotype.cascade.provenance import parameters_text
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.serving.front.recall import request_of_parameters, request_of_recipe
from calotype.serving.job import JobRequest

BASE = to_dict(SamplingConfig(steps=12, sampler="ddim", guidance_weight=2.5))
FINE = to_dict(SamplingConfig(steps=6, aug_level=0.2))
RECIPE = {
    "format": 1,
    "version": "0.1",
    "torch": "2",
    "kind": "sample",
    "caption": "a fox,\nred",
    "negative_caption": "blur",
    "seed": 2**62,
    "model": {"name": "small", "text_encoder": "x", "weights": "ab"},
    "stages": [
        {"resolution": 64, "height": 48, "width": 64, "dtype": "float32", "sampling": BASE},
        {"resolution": 256, "height": 192, "width": 256, "dtype": "float32", "sampling": FINE},
    ],
    "runtime": {"device": "cpu"},
    "batch": {"most_rows": 3, "exact": False},
}


def edited(**edit):
    whole = {
        "hole_sha256": "0", "strength": None, "vary": None, "blind": False, "resampling": None,
        "crop": True, "padding": 0.5, "feather": 3, "background": [255, 255, 255],
    }  # fmt: skip
    return {**RECIPE, "kind": "edit", "source_sha256": "1", "edit": {**whole, **edit}}


def test_a_recipe_is_the_request_that_repeats_it():
    found = request_of_recipe(RECIPE, models=["small"])
    assert found.ignored == ()
    request = JobRequest(**json.loads(json.dumps(found.fields)))
    assert (request.prompt, request.negative_prompt) == ("a fox,\nred", "blur")
    assert (request.seed, request.size, request.model) == (2**62, (256, 192), "small")
    assert (request.steps, request.sampler, request.guidance) == (12, "ddim", 2.5)
    assert request.stages[256] == FINE
    own = ("steps", "sampler", "guidance_weight")
    assert request.stages[64] == {key: one for key, one in BASE.items() if key not in own}
    assert not request.exact
    found = request_of_recipe({**RECIPE, "class": "noto"}, models=["small"])
    assert JobRequest(**found.fields).class_name == "noto" and found.ignored == ()


def test_what_a_recipe_says_of_size_model_and_batch():
    found = request_of_recipe({**RECIPE, "size": [100, 50], "batch": {"exact": True}})
    assert found.fields["size"] == [100, 50] and found.fields["exact"] is True
    assert found.ignored == ("model",) and "model" not in found.fields
    found = request_of_recipe(
        {**RECIPE, "best_of": {"count": 4}, "loras": [], "captions_cut": True}
    )
    assert found.ignored == ("best_of", "captions_cut", "model")


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        (edited(strength=0.6), "image_to_image"),
        ({**edited(strength=0.6), "mask_sha256": "2"}, "inpaint"),
        (edited(), "inpaint"),
        (edited(strength=0.6, boxes=[[1, 2, 3, 4]]), "inpaint"),
        (edited(strength=0.6, extend=[8, 0, 0, 0]), "inpaint"),
        (edited(vary=0.3), "vary"),
        ({**RECIPE, "kind": "upscale", "source_sha256": "1"}, "upscale"),
    ],
)
def test_edits(recipe, kind):
    found = request_of_recipe(recipe, models=["small"])
    request = JobRequest(**found.fields)
    assert request.kind == kind and set(found.ignored) <= {"boxes", "extend"}
    if kind == "upscale":
        assert request.size == (256, 192) and request.stages[64]["steps"] == 12
        return
    assert request.size is None and request.mask_blur == 3
    assert request.strength == recipe["edit"]["strength"] and request.vary == recipe["edit"]["vary"]


def test_settings_of_edits_without_a_field_are_named():
    found = request_of_recipe(edited(invert=True, refine=2, background=[0, 0, 0]))
    assert found.ignored == ("model", "background", "invert", "refine")


@pytest.mark.parametrize(
    "change",
    [
        {"caption": 5}, {"seed": -1}, {"seed": True}, {"kind": "sheet"}, {"stages": 7},
        {"stages": [[], {"resolution": "x"}]}, {"caption": "\ud800"}, {"caption": "a" * 40_000},
        {"size": "large"}, {"size": [9, 9]}, {"negative_caption": {}}, {"model": []},
        {"edit": 3}, {"batch": "a"}, {"stages": [{"resolution": 64, "sampling": {"a" * 99: 1}}]},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_left_out(change):
    found = request_of_recipe({**RECIPE, **change})
    assert JobRequest(**found.fields).n == 1
    fields = {"caption": "prompt", "negative_caption": "negative_prompt"}
    (name,) = change
    if name not in ("stages", "model", "edit", "batch"):
        assert fields.get(name, name) in found.ignored


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from([*RECIPE, "edit", "size", "x"]), JSON), st.data())
def test_no_recipe_raises(changes, data):
    edit = {key: data.draw(JSON) for key in ("strength", "vary", "feather", "other")}
    for recipe in (changes, {**edited(), **changes}, {**RECIPE, "kind": "edit", "edit": edit}):
        assert JobRequest(**request_of_recipe(recipe, models=["small"]).fields)


THEIRS = """a (red:1.2) fox, <lora:x:1>
in snow
Negative prompt: blur, hands
more
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 123, Size: 512x768, Model hash: abc, \
Model: v1-5, Denoising strength: 0.75, Lora hashes: "x: 1, y: 2", Version: v1.9.4"""


def test_their_text():
    found = request_of_parameters(THEIRS, own_weight=4.0)
    assert found.fields == {
        "prompt": "a (red:1.2) fox, <lora:x:1>\nin snow",
        "negative_prompt": "blur, hands\nmore",
        "steps": 20,
        "sampler": "dpmpp_2m",
        "guidance": 4.0,
        "seed": 123,
        "size": [512, 768],
    }
    assert found.ignored == ("Denoising strength", "Lora hashes", "Model")
    assert "CFG scale" in request_of_parameters(THEIRS).ignored
    assert request_of_parameters(THEIRS, models=["v1-5"]).fields["model"] == "v1-5"


@pytest.mark.parametrize(("scale", "guidance"), [("1", 1.0), ("7", 5.0), ("4", 3.0), ("13", 9.0)])
def test_their_scale_is_linear(scale, guidance):
    text = f"a\nSteps: 2, Sampler: Heun, CFG scale: {scale}, Seed: 1"
    assert request_of_parameters(text, own_weight=5.0).fields["guidance"] == pytest.approx(guidance)


def test_our_text():
    text = parameters_text(RECIPE)
    found = request_of_parameters(text, own_weight=99.0, models=["small"])
    whole = request_of_recipe(RECIPE, models=["small"]).fields
    names = ["prompt", "negative_prompt", "steps", "sampler", "guidance", "seed", "size", "model"]
    assert found.fields == {name: whole[name] for name in names}
    assert found.ignored == ()
    for name in ("noto", "flat, old: 2"):
        text = parameters_text({**RECIPE, "class": name})
        found = request_of_parameters(text, models=["small"])
        assert found.fields["class"] == name and found.fields["size"] == [256, 192]
        assert found.ignored == ()
    bare = request_of_parameters(parameters_text({"caption": "a", "version": "0.1"}))
    assert bare.fields == {"prompt": "a"} and bare.ignored == ("Size",)


@pytest.mark.parametrize(
    ("text", "fields", "ignored"),
    [
        ("", {"prompt": ""}, ()),
        ("a prompt: with, colons: in, it", {"prompt": "a prompt: with, colons: in, it"}, ()),
        ("Negative prompt: b", {"prompt": "", "negative_prompt": "b"}, ()),
        ("a\nSteps: 20", {"prompt": "a", "steps": 20}, ()),
        ("a\nSteps: 999, Seed: -1, Size: 5x5", {"prompt": "a"}, ("Seed", "steps", "size")),
        ("a\nSteps: x, Sampler: Euler a", {"prompt": "a"}, ("Steps", "Sampler")),
        ("a\r\nSteps: 4, Seed: 5\r\n", {"prompt": "a", "steps": 4, "seed": 5}, ()),
        (
            'a\nSteps: 4, Wildcard prompt: "one, \\"two\\": 3\\nfour", Seed: 7',
            {"prompt": "a", "steps": 4, "seed": 7},
            ("Wildcard prompt",),
        ),
        ('a\nSteps: 4, Odd: "open, Seed: 7', {"prompt": "a", "steps": 4, "seed": 7}, ("Odd",)),
        (f"a\nSteps: 4, Seed: {2**63}", {"prompt": "a", "steps": 4}, ("seed",)),
    ],
)  # fmt: skip
def test_texts(text, fields, ignored):
    found = request_of_parameters(text)
    assert (found.fields, found.ignored) == (fields, ignored)


@settings(max_examples=300, deadline=None)
@given(
    st.text()
    | st.lists(
        st.sampled_from(
            ["Steps", "Seed", "Size", "CFG scale", "Model", ": ", ":", ",", ", ", '"', "\\", "\n",
             "Negative prompt:", "1", "5x5", "٣", "-1", "1e9", " ", "a", "\ud800", "\0"]
        ), max_size=40,
    ).map("".join)
)  # fmt: skip
@example('a\nSteps: "\\ud800", b: c, d: e')
@example("a\nSteps: ٣, Seed: ²")
def test_no_text_raises(text):
    assert JobRequest(**request_of_parameters(text, own_weight=2.0, models=["a"]).fields)


@pytest.mark.parametrize("piece", ["a", " ", "a:", "a: ,", '"', 'a:"', "\\", '\\"', "\n", "a \n"])
@pytest.mark.timeout(20)
def test_long_texts_take_no_time(piece):
    request_of_parameters("x\nSteps: 1, a: " + piece * 1_000_000)
