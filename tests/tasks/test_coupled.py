"""Gradients of a loss over a whole batch: one process, parts, several processes, all together."""

import os
import subprocess
import sys

import coupled_worker as worker
import pytest
import torch
from safetensors.torch import load_file

from calotype.networks.clip import Clip
from calotype.tasks.contrastive import info_nce, matching, siglip
from calotype.training.distributed import ALONE

LOSSES = ("info_nce", "siglip")


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert float(gradient.abs().max()) > 0, name
        torch.testing.assert_close(theirs[name], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("total", [worker.ROWS, 13])
def test_parts_have_the_losses_and_gradients_of_the_whole(loss, total):
    losses, whole = worker.gradients(ALONE, loss=loss, total=total)
    in_parts, gradients = worker.gradients(ALONE, parts=4, loss=loss, total=total)
    torch.testing.assert_close(in_parts, losses)
    assert len(losses) == total
    same(whole, gradients)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradients_are_those_of_autograd(loss):
    """Against the loss written out, backward in one go."""
    settings = worker.config(loss)
    losses, ours = worker.gradients(ALONE, loss=loss)
    task = worker.ClipTask(
        settings, worker.new_clip(settings, device="cpu").double(), worker.look_up, "",
        torch.float64,
    )  # fmt: skip
    batch = worker.batch()
    embedded = task.embed(task.inputs(batch, task.random_numbers(batch, 0)))
    assert isinstance(task.model, Clip)
    image, text = embedded.rows.unbind(1)
    labels = [(c, k) for c, k in zip(batch.captions, batch.concepts, strict=True)]
    matches = torch.tensor([[a[0] == b[0] or a[1] == b[1] for b in labels] for a in labels])
    scale, bias = embedded.shared[0].exp(), embedded.shared[1:]
    logits = scale * image @ text.T
    if loss == "siglip":
        each = torch.where(matches, -1.0, 1.0) * (logits + bias)
        expected = torch.log1p(each.exp()).sum(1)
    else:
        target = matches.double() / matches.sum(1, keepdim=True)
        ways = [-(target * way.log_softmax(1)).sum(1) for way in (logits, logits.T)]
        expected = sum(ways) / 2
    torch.testing.assert_close(losses, expected.detach())
    expected.mean().backward()
    same({name: p.grad for name, p in task.model.named_parameters()}, ours)


def test_rows_alike_are_positives():
    matches = matching(torch.tensor([[1, 7], [2, 7], [3, 8], [1, 9]]))
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = expected[0, 3] = expected[3, 0] = True
    assert torch.equal(matches, expected)


def test_closed_forms():
    """Orthogonal pairs: each logit row is (scale, 0, ..., 0)."""
    unit, scale = torch.eye(4).double(), torch.tensor([3.0]).double()
    alone = torch.eye(4, dtype=torch.bool)
    expected = torch.log(torch.exp(scale) + 3) - scale
    assert info_nce(unit, unit, alone, scale.log()) == pytest.approx(expected.expand(4))
    bias = torch.tensor([-10.0]).double()
    own, others = torch.log1p(torch.exp(-(scale + bias))), 3 * torch.log1p(torch.exp(bias))
    assert siglip(unit, unit, alone, scale.log(), bias) == pytest.approx((own + others).expand(4))
    # Two rows of one concept: none is a negative of the other.
    pair = torch.ones(2, 2, dtype=torch.bool)
    same_image = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert info_nce(same_image, same_image, pair, scale.log().float()) == pytest.approx(
        torch.full((2,), 0.6931472)
    )
    # The scale is clamped at 100.
    huge = torch.tensor([20.0]).double()
    assert info_nce(unit, unit, alone, huge) == pytest.approx(
        info_nce(unit, unit, alone, torch.tensor([100.0]).double().log())
    )


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path):
    """Copies and shards, in one part and in several, batches whose last rows do not count."""
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launch, worker.__file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for number, case in enumerate(worker.CASES):
        alone = {"loss": case["loss"], "total": case["total"]}
        same(worker.gradients(ALONE, **alone)[1], load_file(tmp_path / f"{number}.safetensors"))
