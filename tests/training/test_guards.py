import json
import math
import types

import pytest
import torch

from calotype.errors import CalotypeError
from calotype.training import stream
from calotype.training.guards import Guards, robust_score
from calotype.training.step import StepMetrics


@pytest.fixture
def state():
    return types.SimpleNamespace(skipped=0, skipped_in_row=0, rewinds=0, recent_losses=[])


def _metrics(loss):
    losses = torch.full((4,), loss)
    return StepMetrics(loss, 1.0, 1e-3, not math.isfinite(loss), losses, {})


def test_score_of_a_normal_sample_is_its_number_of_standard_deviations():
    logs = torch.randn(4001, generator=torch.Generator().manual_seed(0)) * 0.3 + 1
    past = logs.exp().tolist()
    assert robust_score(math.exp(1 + 0.3 * 5), past) == pytest.approx(5, abs=0.3)
    assert robust_score(math.exp(1), past) == pytest.approx(0, abs=0.1)


def test_one_hard_batch_is_no_spike_but_some_in_a_row_are(state):
    guards = Guards(spike_steps=3, warmup_steps=20)
    losses = [1 + 0.1 * math.sin(i) for i in range(40)]
    assert not any(guards.spiked(state, _metrics(loss)) for loss in [*losses, 50.0, 1.0, 60.0])
    assert not guards.spiked(state, _metrics(70.0))
    assert guards.spiked(state, _metrics(80.0))


def test_too_many_steps_without_finite_numbers_end_the_run(state):
    guards = Guards(nonfinite_in_row=3)
    for loss in (math.nan, math.nan, 1.0, math.inf, math.nan):
        guards.count(state, _metrics(loss))
    assert (state.skipped, state.skipped_in_row) == (4, 2)
    with pytest.raises(CalotypeError, match="3 steps in a row"):
        guards.count(state, _metrics(math.nan))


def _poisoned(monkeypatch, positions, value):
    """Batches whose images are `value` at some positions in the data."""
    real = stream.batches

    def batches(*args, **kwargs):
        made = real(*args, **{**kwargs, "prefetch": 0})
        try:
            for batch in made:
                if batch.position in positions:
                    batch.x.fill_(value)
                yield batch
        finally:
            made.close()

    monkeypatch.setattr(stream, "batches", batches)


def test_a_batch_that_is_not_finite_moves_nothing_and_is_written_down(
    train, micro_recipe, tmp_path, monkeypatch
):
    _poisoned(monkeypatch, {8}, math.nan)
    assert train(micro_recipe(total_images=16), tmp_path / "run") == 0
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["loss"] is None for line in lines] == [False, False, True, False]
    assert [line["skipped"] for line in lines] == [0, 0, 1, 1]
    (skipped,) = (tmp_path / "run/skipped.jsonl").read_text().splitlines()
    assert len(json.loads(skipped)["keys"]) == 4 and json.loads(skipped)["images"] == 12
    assert json.loads(skipped)["positions"] == [8, 12]


def test_a_spike_sends_the_run_back_and_past_the_data(train, micro_recipe, tmp_path, monkeypatch):
    _poisoned(monkeypatch, {24, 28, 32}, 1000.0)
    guards = Guards(spike_steps=2, warmup_steps=4)
    out = tmp_path / "run"
    assert train(micro_recipe(), out, guards=guards) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    # Steps end at 4, 8, ...; those that see positions 24 and 28 spike; back to checkpoint 24.
    assert [line["images"] for line in lines] == list(range(4, 49, 4))
    assert [line["rewinds"] for line in lines] == [0] * 6 + [1] * 6
    (note,) = (out / "skipped.jsonl").read_text().splitlines()
    assert json.loads(note)["reason"] == "loss spike"
    assert json.loads(note)["positions"] == [24, 32]
    state = json.loads((out / "checkpoints/latest/state.json").read_text())
    assert (state["rewinds"], state["data_offset"]) == (1, 8)


def test_a_checkpoint_from_amid_a_spike_is_not_gone_back_to(
    train, micro_recipe, tmp_path, monkeypatch
):
    """Steps that end at 16 and 20 spike; checkpoint 16 was written between them."""
    _poisoned(monkeypatch, {12, 16}, 1000.0)
    out = tmp_path / "run"
    recipe = micro_recipe(total_images=32, checkpoint_images=8, keep_checkpoints=9)
    assert train(recipe, out, guards=Guards(spike_steps=2, warmup_steps=3)) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["images"] for line in lines] == list(range(4, 33, 4))
    assert [line["rewinds"] for line in lines] == [0] * 2 + [1] * 6
    assert max(line["loss"] for line in lines) < 100
    (note,) = (out / "skipped.jsonl").read_text().splitlines()
    assert (json.loads(note)["images"], json.loads(note)["spike_at"]) == (8, 20)
    assert json.loads(note)["positions"] == [8, 20]
    for path in (out / "checkpoints").glob("*/state.json"):
        state = json.loads(path.read_text())
        assert max(state["recent_losses"]) < 100
        assert state["data_offset"] == (12 if state["images"] > 8 else 0)


def test_a_state_is_settled_unless_it_ends_in_a_spike():
    guards = Guards(warmup_steps=20)
    losses = [1 + 0.1 * math.sin(i) for i in range(40)]
    assert guards.settled([]) and guards.settled([50.0]) and guards.settled(losses)
    assert not guards.settled([*losses, 50.0]) and not guards.settled([*losses, 50.0, 60.0])
    assert guards.settled([*losses, 50.0, 1.0]) and guards.settled([*losses[:19], 50.0])
    assert Guards(spike_score=None).settled([*losses, *losses, 50.0])


def test_18_a_run_that_skipped_most_of_its_steps_fails_at_the_end(
    train, micro_recipe, tmp_path, monkeypatch
):
    _poisoned(monkeypatch, {0, 4, 12}, math.nan)
    out, recipe = tmp_path / "run", micro_recipe(total_images=16, checkpoint_images=16)
    for resume in (False, True):
        with pytest.raises(CalotypeError, match=r"3 of 4 steps were skipped.*--resume"):
            train(recipe, out, resume=resume)
    assert (out / "checkpoints/16/manifest.json").is_file()
    monkeypatch.undo()
    _poisoned(monkeypatch, {0, 4}, math.nan)
    assert train(recipe, tmp_path / "half") == 0
