"""Images that come and go share network calls, and each is what it would be alone."""

import random

import numpy as np
import pytest
import torch

from calotype.cascade.provenance import parameters_text
from calotype.serving.engine import faults
from calotype.serving.engine.orders import Looks
from calotype.serving.front.recall import request_of_parameters, request_of_recipe

pytestmark = pytest.mark.slow


def test_images_that_wait_together_share_calls(bench):
    for number in range(4):
        bench.start(number, {"prompt": f"a fox {number}", "size": (8, 8)}, seed=number)
    bench.run()
    rows = [head["rows"] for head in bench.sink.said("call")]
    assert max(rows) == 4 and len(rows) < 4 * 8
    assert sum(rows) == 4 * 8
    assert [bench.sink.last_word(number) for number in range(4)] == ["image"] * 4
    assert max(bench.sink.made[n].recipe["batch"]["most_rows"] for n in range(4)) == 4


def test_an_image_may_join_at_any_step_and_its_neighbours_change_it_by_rounding(wide_bench):
    first = wide_bench.start("first", {"prompt": "a red fox", "guidance": 2.0}, seed=7)
    for _ in range(3):
        wide_bench.turn()
    second = wide_bench.start("second", {"prompt": "pizza", "sampler": "ddpm", "steps": 3}, seed=8)
    wide_bench.run()
    assert {head["rows"] for head in wide_bench.sink.said("call")} >= {2, 3}
    for order in (first, second):
        wide_bench.assert_as_alone(order)


def test_in_float32_too_and_with_a_sampler_of_two_calls_a_step(bench):
    orders = [
        bench.start("heun", {"prompt": "pizza", "sampler": "heun", "steps": 5}, seed=1),
        bench.start("other", {"prompt": "a red fox", "guidance": 2.0}, seed=2),
    ]
    bench.run()
    for order in orders:
        _, ends = bench.alone(order)
        torch.testing.assert_close(bench.finals[order.id][0], ends[0], atol=1e-4, rtol=0)


def test_exact_images_have_no_neighbours_and_equal_bits(bench):
    exact = bench.start("exact", {"prompt": "a red fox", "exact": True, "size": (16, 16)}, seed=3)
    alone = bench.start("alone", {"prompt": "a red fox", "size": (16, 16)}, seed=3, alone=True)
    for number in range(3):
        bench.start(number, {"prompt": "others", "size": (16, 16)}, seed=number)
    bench.run()
    made, expected = bench.alone(exact)
    for order in (exact, alone):
        assert all(map(torch.equal, bench.finals[order.id], expected))
        assert np.array_equal(bench.sink.made[order.id].pixels, made.pixels)
        assert bench.sink.made[order.id].recipe["batch"] == {"most_rows": 1, "exact": True}
    told = bench.sink.made["exact"].recipe
    assert {k: v for k, v in told.items() if k != "batch"} == made.recipe


def test_most_images_of_a_call(bench):
    bench.renew(most_images=2)
    for number in range(5):
        bench.start(number, {"size": (8, 8)}, seed=number)
    bench.run()
    assert max(head["rows"] for head in bench.sink.said("call")) == 2
    first = [head["id"] for head in bench.sink.heads if head["op"] == "image"]
    assert first == sorted(first), "the oldest finish first"


def test_a_cancelled_image_leaves_at_once(bench):
    bench.start("stays", {"size": (8, 8)})
    bench.start("goes", {"size": (8, 8)}, seed=2)
    while not bench.sink.said("step", id="goes"):
        bench.turn()
    bench.loop.post(lambda: bench.loop.cancel("goes"))
    steps = len(bench.sink.said("step", id="goes"))
    bench.run()
    assert len(bench.sink.said("step", id="goes")) == steps
    assert bench.sink.last_word("goes") == "cancelled" and bench.sink.last_word("stays") == "image"
    before = [head["rows"] for head in bench.sink.said("call")]
    assert before[-1] == 1


def test_an_interrupted_image_is_its_present_estimate_in_its_final_size(bench, photo):
    source, mask = photo(32, 32)
    bench.start("late", {"size": (32, 24)})
    kept = {"kind": "inpaint", "crop": False}
    bench.start("edit", kept, source=source, mask=mask)
    while not (bench.sink.said("step", id="late") and bench.sink.said("step", id="edit")):
        bench.turn()
    for name in ("late", "edit"):
        bench.loop.post(lambda name=name: bench.loop.interrupt(name))
    early = bench.start("early", {"size": (16, 16)})
    bench.loop.post(lambda: bench.loop.interrupt("early"))
    bench.run()
    made = bench.sink.made
    assert made["late"].pixels.shape == (24, 32, 3) and made["late"].recipe["interrupted"]
    assert np.array_equal(made["edit"].pixels[mask == 0], source[mask == 0][:, :3])
    assert len(bench.sink.said("call")) < 8
    assert bench.sink.last_word(early.id) == "cancelled", "there was nothing to finish it with"


def test_recipes_of_edits_hash_what_came_and_say_the_size_that_went(bench, photo):
    source, mask = photo(30, 40)
    bench.start("inpaint", {"kind": "inpaint", "strength": 0.5}, source=source, mask=mask)
    whole = {"kind": "image_to_image", "strength": 0.5}
    bench.start("image_to_image", whole, source=source)
    bench.run()
    for kind, digest in (("inpaint", "cd" * 32), ("image_to_image", None)):
        made = bench.sink.made[kind]
        assert made.pixels.shape[:2] == (30, 40) and "Size: 40x30," in parameters_text(made.recipe)
        assert made.recipe["source_sha256"] == "ab" * 32
        assert made.recipe.get("mask_sha256") == digest
        found = request_of_recipe(made.recipe, models=["small"])
        assert found.fields["kind"] == kind and not found.ignored


@pytest.mark.parametrize("interrupted", [False, True])
def test_recipes_say_the_size_that_went(bench, interrupted):
    bench.start("a", {"size": (20, 30)})
    while interrupted and not bench.sink.said("step", id="a"):
        bench.turn()
    bench.loop.post(lambda: interrupted and bench.loop.interrupt("a"))
    bench.run()
    made = bench.sink.made["a"]
    height, width = (made.recipe["stages"][-1][side] for side in ("height", "width"))
    assert made.pixels.shape == (30, 20, 3) and (height, width) != (30, 20)
    text = parameters_text(made.recipe)
    for found in (request_of_recipe(made.recipe), request_of_parameters(text)):
        assert found.fields["size"] == [20, 30]


def test_interrupted_before_its_first_estimate_it_has_that(bench):
    bench.start("a", {"size": (8, 8)})
    bench.loop._take(wait=True)
    bench.loop._admit()
    bench.loop._open_gates()
    bench.loop.interrupt("a")
    bench.run()
    assert len(bench.sink.said("call")) == 1
    assert bench.sink.made["a"].recipe["interrupted"] is True


@pytest.mark.parametrize(
    ("fault", "kind"), [("fault:error@8", "internal"), ("fault:memory@8", "memory")]
)
def test_an_error_is_one_images_alone(bench, monkeypatch, capsys, fault, kind):
    monkeypatch.setenv(faults.VARIABLE, "1")
    for number in range(3):
        bench.start(number, {"prompt": fault if number == 1 else "a fox"}, seed=number)
    bench.run()
    assert [bench.sink.last_word(number) for number in range(3)] == ["image", "failed", "image"]
    (failed,) = bench.sink.said("failed")
    assert failed["kind"] == kind and "Traceback" not in failed["message"]
    assert "as asked for" in capsys.readouterr().err


def test_too_little_memory_for_many_is_enough_for_each_and_calls_get_smaller(bench, monkeypatch):
    monkeypatch.setenv(faults.VARIABLE, "1")
    for number in range(6):
        bench.start(number, {"prompt": "fault:memory@8x3", "size": (8, 8)}, seed=number)
    bench.run()
    assert [bench.sink.last_word(number) for number in range(6)] == ["image"] * 6
    rows = [head["rows"] for head in bench.sink.said("calling")]
    assert max(rows) == 6 and max(rows[-6:]) == 3


def test_users_errors_are_told_and_take_nobody_along(bench):
    bench.start("wrong", {"sampler": "none"})
    bench.start("right", {"size": (8, 8)})
    bench.start("unknown", {"model": "nobody"})
    bench.run()
    assert [bench.sink.last_word(n) for n in ("wrong", "right", "unknown")] == [
        "failed", "image", "failed",
    ]  # fmt: skip
    assert {head["kind"] for head in bench.sink.said("failed")} == {"usage"}


def test_progress_ends_at_the_calls_that_were_planned(bench, photo):
    source, mask = photo(30, 40)
    requests = {
        "guided": ({"guidance": 3.0}, {}),
        "heun": ({"sampler": "heun", "size": (8, 8)}, {}),
        "interval": (
            {"stages": {8: {"guidance_weight": 2.0, "guidance_interval": [0.5, 5.0]}}},
            {},
        ),
        "tiled": ({"size": (64, 64)}, {}),
        "enlarged": ({"kind": "upscale"}, {"source": source}),
        "hole": ({"kind": "inpaint", "prompt": "x"}, {"source": source, "mask": mask}),
        "again": ({"kind": "image_to_image", "strength": 0.4}, {"source": source}),
        "varied": ({"kind": "vary", "vary": 0.3}, {"source": source}),
    }
    for name, (request, more) in requests.items():
        bench.start(name, request, **more)
    bench.run()
    for name in requests:
        assert bench.sink.last_word(name) == "image", bench.sink.said("failed")
        last = bench.sink.said("step", id=name)[-1]
        assert last["done"] == last["calls"], name


def test_previews_at_every_step_or_at_few(bench):
    bench.start("steps", {"size": (32, 16)}, looks=Looks("steps", side=12))
    bench.start("few", {"size": (32, 16)}, looks=Looks("partial", size=(16, 32)))
    bench.start("none", {"size": (32, 16)})
    bench.run()
    steps = [look for look in bench.sink.looks if look.head["id"] == "steps"]
    assert [look.head["index"] for look in steps] == list(range(9 + 5 + 5))
    assert {look.pixels.shape for look in steps} == {(6, 12, 3)}
    assert [look.head["final"] for look in steps] == [False] * 18 + [True]
    few = [look for look in bench.sink.looks if look.head["id"] == "few"]
    assert [(look.head["index"], look.head["step"]) for look in few] == [(0, 4), (1, 8), (2, 4)]
    assert {look.pixels.shape for look in few} == {(16, 32, 3)}
    assert len(steps) + len(few) == len(bench.sink.looks)


def _random_request(rng, photo):
    prompt = rng.choice(["", "a red fox", "a long caption of many words, padded", "fault:error@16"])
    request = {"prompt": prompt}
    more = {}
    if rng.random() < 0.5:
        request["guidance"] = rng.choice([1.0, 2.0, 5.0])
    if rng.random() < 0.5:
        request |= {"sampler": rng.choice(["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"])}
    if rng.random() < 0.5:
        request["steps"] = rng.randint(1, 9)
    if rng.random() < 0.3:
        request["stages"] = {16: {"aug_level": 0.3, "steps": 2}}
    kind = rng.choice(["sample"] * 4 + ["image_to_image", "inpaint", "upscale", "vary"])
    if kind == "sample":
        request["size"] = rng.choice([(8, 8), (16, 16), (32, 32), (24, 40), (17, 9), (48, 48)])
        return request, more
    side = rng.choice([(16, 16), (32, 32), (20, 36)])
    source, mask = photo(*side, seed=rng.randint(0, 99))
    request["kind"] = kind
    request |= {"strength": 0.6} if kind == "image_to_image" else {}
    request |= {"vary": 0.2} if kind == "vary" else {}
    return request, {"source": source, **({"mask": mask} if kind == "inpaint" else {})}


@pytest.mark.parametrize("seed", range(4))
def test_whatever_comes_and_goes_images_stay_what_they_are(wide_bench, photo, monkeypatch, seed):
    monkeypatch.setenv(faults.VARIABLE, "1")
    rng, bench, orders = random.Random(seed), wide_bench, {}
    bench.renew(most_images=rng.choice([None, 2, 3]))
    for turn in range(60):
        if len(orders) < 12 and rng.random() < 0.4:
            request, more = _random_request(rng, photo)
            orders[turn] = bench.start(turn, request, seed=rng.randint(0, 2**40), **more)
        if orders and rng.random() < 0.06:
            gone = rng.choice(list(orders))
            bench.loop.post(lambda gone=gone: bench.loop.cancel(gone))
        bench.turn()
    bench.run()
    made = [order for id, order in orders.items() if bench.sink.last_word(id) == "image"]
    assert len(made) >= 4
    for id, order in orders.items():
        word = bench.sink.last_word(id)
        assert word is not None
        assert word != "failed" or order.request.prompt.startswith("fault")
    monkeypatch.delenv(faults.VARIABLE)
    for order in made:
        bench.assert_as_alone(order)
