import time

import pytest
import torch

from calotype import runtime
from calotype.errors import UsageError
from calotype.runtime import choose_runtime


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "calotype" / "bfloat16.json"


def with_bfloat16(monkeypatch, gain):
    calls = []
    monkeypatch.setattr(runtime, "bfloat16_features", lambda: {"amx": True, "avx512_bf16": True})
    monkeypatch.setattr(runtime, "_measure_gain", lambda threads: calls.append(threads) or gain)
    return calls


@pytest.mark.parametrize(("gain", "dtype"), [(0.6, "float32"), (1.05, "float32"), (2, "bfloat16")])
def test_the_measurement_decides_and_is_made_once(monkeypatch, cache, gain, dtype):
    calls = with_bfloat16(monkeypatch, gain)
    for _ in range(2):
        chosen = choose_runtime("cpu", threads=2)
        assert (chosen.dtype, chosen.forced, chosen.threads) == (dtype, False, 2)
    assert calls == [2] and cache.is_file()


def test_a_broken_or_unwritable_cache_does_no_harm(monkeypatch, cache):
    calls = with_bfloat16(monkeypatch, 2)
    cache.parent.mkdir()
    cache.write_text("[{")
    choose_runtime("cpu", threads=1)
    cache.unlink()
    cache.mkdir()
    choose_runtime("cpu", threads=1)
    assert calls == [1, 1]


def test_no_instructions_no_measurement(monkeypatch):
    calls = with_bfloat16(monkeypatch, 2)
    monkeypatch.setattr(runtime, "bfloat16_features", lambda: {"amx": False, "avx512_bf16": False})
    assert choose_runtime("cpu").dtype == "float32" and calls == []


def test_the_real_measurement_is_short_and_restores_the_threads():
    before = torch.get_num_threads()
    runtime._measure_gain(1)  # the first one also builds kernels
    begin = time.process_time()
    assert runtime._measure_gain(1) > 0
    assert time.process_time() - begin < 0.5
    assert torch.get_num_threads() == before


def test_applied_to_stages(cascade):
    before = torch.get_num_threads()
    try:
        chosen = runtime.Runtime("cpu", "bfloat16", before)
        chosen.apply(cascade.stages)
        kinds = [stage.compute_dtype for stage in cascade.stages]
        assert kinds == [torch.float32, torch.bfloat16, torch.bfloat16]
        runtime.Runtime("cpu", "bfloat16", before, forced=True).apply(cascade.stages)
        assert {stage.compute_dtype for stage in cascade.stages} == {torch.bfloat16}
        assert cascade.sample(["x"], seeds=[1]).images[2].isfinite().all()
    finally:
        runtime.Runtime("cpu", "float32", before, forced=True).apply(cascade.stages)


def test_the_prior_goes_where_the_stages_go(cascade):
    prior = torch.nn.Linear(1, 1)
    runtime.Runtime("meta", "float32", torch.get_num_threads()).apply((), prior)
    assert prior.weight.is_meta


@pytest.mark.parametrize(
    "arguments",
    [{"device": "gpu"}, {"device": "meta"}, {"dtype": "float8"}, {"threads": 0}, {"device": ""}],
)
def test_wrong_choices(arguments):
    with pytest.raises(UsageError, match="got"):
        choose_runtime(**{"device": "cpu", "dtype": "float32", **arguments})


@pytest.mark.parametrize("name", ["foo", "cuda:x", "meta", "", "cuda:99", "mps:7"])
def test_devices_that_may_be_named_are_told(name):
    with pytest.raises(UsageError, match=r"expected cpu, cuda .* or mps") as caught:
        choose_runtime(name, "float32")
    text = str(caught.value)
    assert len(text) < 220 and "\n" not in text and "ideep" not in text
