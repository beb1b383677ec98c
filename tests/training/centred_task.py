"""`MeanTask` with a buffer that changes in training: the running mean of what the model is given.

As a program: `python centred_task.py DATA OUT`, by torchrun or alone.
"""

import sys

import torch
from mean_task import MeanTask, MeanTasks, main
from torch import nn


class Centring(nn.Module):
    """Takes the running mean from rows, then moves it towards theirs."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, rows):
        centred = rows - self.mean
        if self.training:
            self.mean.copy_(self.mean.lerp(rows.detach().mean(0), 0.1))
            self.steps.add_(1)
        return centred


class CentredTask(MeanTask):
    def __init__(self, config):
        super().__init__(config)
        self.model = nn.Sequential(Centring(), self.model)

    def validate(self, average):
        return {"validation": {"mean": float(average[0].mean.abs().mean())}}


class CentredTasks(MeanTasks):
    task = CentredTask


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:], tasks=CentredTasks()))
