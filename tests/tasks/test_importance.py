"""Timesteps by their losses: the published probabilities, and a mean without bias."""

from __future__ import annotations

import math

import pytest
import torch

from calotype.tasks.importance import LossHistory, pick_timesteps

# openai/guided-diffusion, commit 652888e, `LossSecondMomentResampler` of five timesteps, after so
# many rounds of the losses below.
PUBLISHED = {
    9: [0.2] * 5,
    10: [
        0.017272724583863284,
        0.07886311995978186,
        0.16234199447100797,
        0.2909277318992135,
        0.4505944290861333,
    ],
    13: [
        0.016529722047993987,
        0.07154276078685644,
        0.15815235091040283,
        0.2855710431474257,
        0.46820412310732107,
    ],
}


def filled(rounds):
    history = LossHistory(5)
    for k in range(rounds):
        timesteps = [(3 * k + j) % 5 for j in range(5)]
        losses = [(1 + t) ** 2 * (1 + 0.5 * math.sin(k + j)) for j, t in enumerate(timesteps)]
        history.add(torch.tensor(timesteps), torch.tensor(losses, dtype=torch.float64))
    return history


@pytest.mark.parametrize("rounds", PUBLISHED)
def test_probabilities_are_those_of_the_published_code(rounds):
    assert filled(rounds).probabilities().tolist() == pytest.approx(PUBLISHED[rounds], rel=1e-12)


def test_losses_of_one_step_are_taken_in_one_after_the_other():
    history = LossHistory(2)
    history.add(torch.tensor([1] * 12), torch.arange(12.0))
    assert history.losses[1].tolist() == list(range(2, 12))
    assert history.losses[0].isnan().all()


def test_losses_of_nothing_leave_uniform_timesteps():
    history = LossHistory(3)
    history.losses.zero_()
    assert history.probabilities().tolist() == pytest.approx([1 / 3] * 3)


def test_timesteps_come_as_often_as_their_probabilities_say():
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    assert pick_timesteps(uniform, probabilities).bincount().tolist() == [100, 0, 600, 300]
    last = torch.tensor([1 - 2**-53], dtype=torch.float64)
    for steps in (3, 7, 1000):  # whose probabilities do not quite sum to 1
        assert pick_timesteps(last, torch.full((steps,), 1 / steps).double()).item() == steps - 1
