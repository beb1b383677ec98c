import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from calotype.cascade import Cascade
from calotype.cli import run as command
from calotype.errors import ConfigError, UsageError
from calotype.tasks.chosen_ema import choose_average, write_average
from calotype.training.posthoc_ema import (
    LENGTHS,
    PowerFunctionEMA,
    combine,
    find_snapshots,
    fit_profile,
    gamma_of,
    write_snapshots,
)

BATCH, STEPS = 8, 1500
QUIET = {"grid_images": 0, "validation_images": 0}


def _brute_force(trajectory, length):
    """What the average ought to be: the profile over each step, times the weights after it."""
    ends = np.arange(1, len(trajectory) + 1) / len(trajectory)
    power = gamma_of(length) + 1
    weights = np.diff(ends**power, prepend=0.0)
    return torch.as_tensor(weights) @ trajectory


@pytest.fixture(scope="module")
def trajectory():
    """A random walk with a drift, as weights under training have: (steps, weights) float64."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randn(STEPS, 60, generator=generator, dtype=torch.float64) * 0.01
    return 0.5 + steps.cumsum(0) + torch.linspace(0, 1, STEPS, dtype=torch.float64)[:, None]


@pytest.fixture(scope="module")
def snapshots(trajectory, tmp_path_factory):
    """A run folder in which the trajectory was tracked, with 30 snapshots of both averages."""
    run = tmp_path_factory.mktemp("tracked")
    model = nn.Linear(60, 1, bias=False)
    emas = [PowerFunctionEMA(model, length=length) for length in LENGTHS]
    for step, weights in enumerate(trajectory, 1):
        model.weight.data.copy_(weights[None])
        for ema in emas:
            ema.update(batch_size=BATCH, images_seen=step * BATCH)
        if step % (STEPS // 30) == 0:
            seen = step * BATCH
            write_snapshots(emas, run, images=seen, facts={"images": seen, "resolution": 8})
    return find_snapshots(run)


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.25])
def test_the_exponent_has_the_relative_spread(length):
    gamma = gamma_of(length)
    tau = (np.arange(200_000) + 0.5) / 200_000
    profile = (gamma + 1) * tau**gamma
    mean = (profile * tau).mean()
    assert ((profile * (tau - mean) ** 2).mean()) ** 0.5 == pytest.approx(length, rel=1e-4)


def test_lengths_out_of_range_are_refused():
    for length in (0.0, 0.3, -1.0, float("nan")):
        with pytest.raises(UsageError, match=r"expected 0\.005"):
            gamma_of(length)


def test_tracking_is_the_brute_force_average(trajectory):
    model = nn.Linear(60, 1, bias=False).double()
    ema = PowerFunctionEMA(model, length=0.1)
    for step, weights in enumerate(trajectory, 1):
        model.weight.data.copy_(weights[None])
        ema.update(batch_size=BATCH, images_seen=step * BATCH)
    expected = _brute_force(trajectory, 0.1)
    torch.testing.assert_close(ema.state_dict()["weight"][0], expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize("length", [0.03, 0.05, 0.07, 0.1, 0.15, 0.2])
def test_any_length_is_found_again_from_snapshots(snapshots, trajectory, length):
    fit = fit_profile(snapshots, length=length, images=STEPS * BATCH)
    average = combine(snapshots, fit.weights)["weight"][0].double()
    expected = _brute_force(trajectory, length)
    moved = (trajectory[-1] - expected).norm()  # how much averaging does at all
    assert (average - expected).norm() < 0.03 * moved
    assert (average - expected).norm() < 2e-3 * expected.norm()
    assert sum(fit.weights) == pytest.approx(1.0) and fit.error < 0.1


def test_it_ends_where_it_is_told(snapshots, trajectory):
    used = [one for one in snapshots if one.images <= STEPS * BATCH // 2]
    fit = fit_profile(used, length=0.12, images=STEPS * BATCH // 2)
    average = combine(used, fit.weights)["weight"][0].double()
    expected = _brute_force(trajectory[: STEPS // 2], 0.12)
    assert (average - expected).norm() < 2e-3 * expected.norm()


def test_too_few_snapshots_say_so(snapshots):
    fit = fit_profile(snapshots[-2:], length=0.2, images=STEPS * BATCH)
    assert fit.error > 0.1


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp("posthoc") / "run"


@pytest.fixture
def whole(finished, train, micro_recipe):
    """A finished run with snapshots every eight images."""
    if not finished.exists():
        assert train(micro_recipe(posthoc_ema_images=8, **QUIET), finished) == 0
    return finished


def test_an_interrupted_run_resumes_to_the_bit(train, micro_recipe, whole, tmp_path, monkeypatch):
    from calotype.training import progress

    show = progress.TrainingDisplay.show

    class KilledError(BaseException):
        pass

    def die(self, now, meter):
        if now == 44:
            raise KilledError
        show(self, now, meter)

    out = tmp_path / "run"
    recipe = micro_recipe(posthoc_ema_images=8, **QUIET)
    monkeypatch.setattr(progress.TrainingDisplay, "show", die)
    with pytest.raises(KilledError):
        train(recipe, out)
    monkeypatch.undo()
    for name in ("44-0.050.safetensors", ".44-0.050.safetensors.7123456789.tmp"):
        (out / "ema" / name).write_bytes(b"of the step that was lost")
    assert train(recipe, out, resume=True) == 0
    for kind in ("ema/*", "checkpoints/48/*.safetensors"):
        files = {path.relative_to(whole): path.read_bytes() for path in whole.glob(kind)}
        assert files == {path.relative_to(out): path.read_bytes() for path in out.glob(kind)}
        assert len(files) >= 5
    with pytest.raises(UsageError, match="posthoc_ema_images: was 8, got 4"):
        train(micro_recipe(posthoc_ema_images=4, **QUIET), out, resume=True)


def test_the_command_writes_a_stage_and_a_cascade(whole, train, micro_recipe, tmp_path, capsys):
    file, folder = tmp_path / "stage.safetensors", tmp_path / "cascade"
    words = ["ema", str(whole), "--length", "0.1", "--json"]
    assert command([*words, "-o", str(file)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["images"], told["resolution"], told["snapshots"]) == (48, 8, 12)
    weights = load_file(file)
    tracked = load_file(whole / "ema/48-0.100.safetensors")
    for name, value in tracked.items():  # a length that was tracked is that snapshot itself
        torch.testing.assert_close(weights[name], value.float(), rtol=1e-3, atol=1e-3)
    with safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["calotype"])["stage"]["resolution"] == 8
    assert command([*words, "-o", str(folder)]) == 0
    capsys.readouterr()
    assert len(Cascade.load(folder).sample(["red left"], seeds=[1]).images) == 1
    # Both are weights to start from.
    recipe = micro_recipe(total_images=4, **QUIET)
    assert train(recipe, tmp_path / "next", init=file) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--length", "0.5"], "expected 0.005 to 0.28"),
        (["--length", "0.1", "--resolution", "64"], "the run has averages of [8]"),
        (["--length", "0.1", "--images", "3"], "the first snapshot is of 8"),
        (["--length", "0.1", "--dtype", "int8"], "int8"),
    ],
)
def test_wrong_wishes_are_refused(whole, tmp_path, capsys, words, message):
    assert command(["ema", str(whole), "-o", str(tmp_path / "x.safetensors"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.safetensors").exists()


def test_a_run_without_snapshots_is_refused(tmp_path):
    with pytest.raises(UsageError, match="posthoc_ema_images"):
        choose_average(tmp_path, length=0.1)


def test_an_earlier_end_and_half_precision(whole, tmp_path):
    chosen = choose_average(whole, length=0.1, images=25)
    assert (chosen.images, chosen.snapshots) == (24, 6)
    write_average(chosen, whole, tmp_path / "half.safetensors", dtype=torch.float16)
    halves = load_file(tmp_path / "half.safetensors")
    parameters = {name for name, _ in chosen.stage.named_parameters()}
    kinds = {name: torch.float16 if name in parameters else torch.float32 for name in halves}
    assert {name: tensor.dtype for name, tensor in halves.items()} == kinds


def test_lora_and_posthoc_averages_exclude_each_other(micro):
    from calotype.config.lora import LoraConfig

    with pytest.raises(ConfigError, match="expected one of them"):
        dataclasses.replace(micro(posthoc_ema_images=8), lora=LoraConfig())
