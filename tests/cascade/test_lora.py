import copy
import dataclasses
import json
import math

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from calotype.cascade.io import load_stage, save_stage
from calotype.cascade.lora import (
    LoraLayer,
    LoraStack,
    load_lora,
    save_lora,
    trained_lora,
    weights_fingerprint,
)
from calotype.config.lora import LoraConfig
from calotype.errors import CalotypeError, UsageError
from calotype.networks.lora import adapters, train_adapters

CONFIG = LoraConfig(rank=2, alpha=3.0, targets=("attention", "convolution", "linear"))


def _trained(stage, seed, config=CONFIG):
    """A LoRA as if trained on a stage."""
    adapted = copy.deepcopy(stage)
    torch.manual_seed(seed)
    train_adapters(adapted.network, config)
    for _, _, adapter in adapters(adapted.network):
        torch.nn.init.normal_(adapter.up, std=0.2)
    return trained_lora(adapted, config)


@pytest.fixture
def own(cascade):
    """A cascade that a test may change."""
    return copy.deepcopy(cascade)


@pytest.fixture
def loras(cascade):
    """Of the base twice, and of both enlarging stages."""
    base, middle, last = cascade.stages
    return _trained(base, 1), _trained(base, 2), _trained(middle, 3), _trained(last, 4)


def _draw(cascade):
    return cascade.sample(["a fox", ""], seeds=[1, 2]).images


def _bits(cascade):
    return [{k: v.clone() for k, v in s.state_dict().items()} for s in cascade.stages]


def test_a_file_comes_back(loras, tmp_path):
    path = tmp_path / "a.safetensors"
    save_lora(loras[0], path)
    again = load_lora(path)
    assert (again.resolution, again.rank, again.alpha) == (8, 2, 3.0)
    assert again.base == loras[0].base and again.layers.keys() == loras[0].layers.keys()
    for name, layer in again.layers.items():
        assert torch.equal(layer.down, loras[0].layers[name].down)
        assert torch.equal(layer.up, loras[0].layers[name].up)
    first = path.read_bytes()
    save_lora(loras[0], path)
    assert path.read_bytes() == first


def test_merged_or_not_the_images_are_the_same(own, cascade, loras):
    plain, weights = _draw(cascade), (1.0, -0.4, 0.7, 0.2)
    images = []
    for merged in (True, False):
        stack = LoraStack(own.stages, merged=merged)
        for lora, weight in zip(loras, weights, strict=True):
            stack.add(lora, weight)
        images.append(_draw(own))
        stack.clear()
    for one, other, without in zip(*images, plain, strict=True):
        assert (one - other).abs().max() < 1e-4
        assert (one - without).abs().max() > 1e-2
    cond_free = [a.double() - b.double() for a, b in zip(*images, strict=True)]
    assert max(float(d.abs().mean()) for d in cond_free) < 1e-5


@pytest.mark.parametrize("merged", [True, False])
def test_removing_restores_every_bit_in_any_order(own, loras, merged):
    before = _bits(own)
    stack = LoraStack(own.stages, merged=merged)
    for lora in loras:
        stack.add(lora, 0.3)
    both = _bits(own)
    stack.remove(loras[0])
    stack.add(loras[0], 0.3)
    for was, now in zip(both, _bits(own), strict=True):
        for name, value in was.items():
            if merged:
                torch.testing.assert_close(value, now[name], rtol=1e-6, atol=1e-6)
    for lora in (loras[0], loras[3], loras[1], loras[2]):
        stack.remove(lora)
    for was, now in zip(before, _bits(own), strict=True):
        assert was.keys() == now.keys()
        assert all(torch.equal(value, now[name]) for name, value in was.items())
    assert [type(m) for s in own.stages for m in s.modules()].count(torch.nn.Linear) > 10


def test_weights_scale_the_change(own, loras):
    stage = own.stages[0]
    name = next(iter(loras[0].layers))
    layer = stage.network.get_submodule(name)
    original = layer.weight.detach().clone()
    changes = []
    for weight in (1.0, 0.25, 0.0):
        stack = LoraStack(own.stages)
        stack.add(loras[0], weight)
        changes.append(layer.weight.detach() - original)
        stack.clear()
    part = loras[0].layers[name]
    expected = 1.5 * torch.einsum("or,r...->o...", part.up, part.down)
    torch.testing.assert_close(changes[0], expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(changes[1], expected / 4, rtol=1e-4, atol=1e-6)
    assert not changes[2].any()


def test_the_fingerprint_is_that_of_the_weights_alone(own, cascade, loras, tmp_path):
    base = cascade.stages[0]
    save_stage(base, tmp_path / "half", dtype=torch.float16)
    assert weights_fingerprint(load_stage(tmp_path / "half")) == loras[0].base
    stack = LoraStack(own.stages)
    assert stack.fits(loras[0])
    stack.add(loras[0])
    assert stack.fits(loras[1])  # asked of the weights without any LoRA
    with torch.no_grad():
        next(own.stages[1].parameters()).add_(0.1)
    assert not LoraStack(own.stages).fits(loras[2])


def test_the_fingerprint_survives_an_average_of_frozen_weights(cascade):
    stage = copy.deepcopy(cascade.stages[0])
    with torch.no_grad():
        next(stage.parameters()).flatten()[0] = -0.0
    averaged = copy.deepcopy(stage)
    with torch.no_grad():
        for a, b in zip(averaged.parameters(), stage.parameters(), strict=True):
            a.lerp_(b, 0.3)
    assert not next(averaged.parameters()).flatten()[0].signbit()  # -0 became 0
    assert weights_fingerprint(averaged) == weights_fingerprint(stage)


def test_a_lora_of_another_network_changes_nothing(own, cascade, loras):
    before = _bits(own)
    stack = LoraStack(own.stages)
    wrong = dataclasses.replace(loras[0], resolution=16)
    with pytest.raises(UsageError, match="another network"):
        stack.add(wrong)
    with pytest.raises(UsageError, match="64 pixel stage"):
        stack.add(dataclasses.replace(loras[0], resolution=64))
    stack.clear()
    for was, now in zip(before, _bits(own), strict=True):
        assert all(torch.equal(value, now[name]) for name, value in was.items())


def test_damaged_files_are_refused(loras, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(UsageError, match="no file"):
        load_lora(path)
    save_lora(loras[0], path)
    whole, tensors = path.read_bytes(), load_file(path)
    path.write_bytes(whole[:-100])
    with pytest.raises(CalotypeError, match="cannot be read"):
        load_lora(path)
    save_file(tensors, path)
    with pytest.raises(UsageError, match="no LoRA file"):
        load_lora(path)
    name = next(key for key in tensors if key.endswith(".down"))
    facts = '{"format": "calotype-lora-1", "resolution": 8, "rank": 2, "alpha": 2, "base": ""}'
    for broken, text in (
        ({k: v for k, v in tensors.items() if k != name}, facts),
        ({**tensors, name: tensors[name] * float("nan")}, facts),
        ({**tensors, name: tensors[name][:1]}, facts),
        (tensors, facts.replace('"rank": 2', '"rank": 0')),
        (tensors, facts.replace('"rank": 2, ', "")),
    ):
        save_file(broken, path, metadata={"calotype": text})
        with pytest.raises(CalotypeError, match="damaged"):
            load_lora(path)


@pytest.mark.parametrize(
    "changed",
    [
        '"rank": Infinity',
        '"rank": NaN',
        '"rank": 0',
        f'"rank": {10**400}',
        '"alpha": 1e300',
        '"alpha": NaN',
        f'"alpha": {10**400}',
        f'"resolution": {10**400}',
        f'"resolution": {"9" * 5000}',
    ],
    ids=lambda text: text[:20],
)
def test_12_29_30_numbers_of_a_file_are_in_range(loras, tmp_path, changed):
    path = tmp_path / "a.safetensors"
    save_lora(loras[0], path)
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["calotype"])
    name = json.loads("{" + changed.partition(":")[0] + ": 0}")
    text = json.dumps({**facts, **dict.fromkeys(name, "HERE")})
    text = text.replace('"HERE"', changed.partition(": ")[2])
    save_file(load_file(path), path, metadata={"calotype": text})
    with pytest.raises(CalotypeError, match=r"is damaged.*get the file again"):
        load_lora(path)


def test_12_weights_out_of_range_and_sums_that_are_infinite_are_refused(own, loras):
    before = _bits(own)
    for weight in (1e300, math.nan, math.inf, 101):
        with pytest.raises(UsageError, match=r"got weight=.*-100 to 100"):
            LoraStack(own.stages).add(loras[0], weight)
    layers = {
        name: LoraLayer(torch.full_like(part.down, 1e30), torch.full_like(part.up, 1e30))
        for name, part in loras[0].layers.items()
    }
    with pytest.raises(CalotypeError, match=r"makes the weight '.*' of the 8 stage infinite"):
        LoraStack(own.stages).add(dataclasses.replace(loras[0], layers=layers))
    for was, now in zip(before, _bits(own), strict=True):
        assert all(torch.equal(value, now[name]) for name, value in was.items())
