"""The smallest task: a linear layer that learns an image's mean colour from a noised one.

As a program: `python mean_task.py DATA OUT`, by torchrun or alone.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calotype.config.recipe import Recipe
from calotype.data.batch import BatchPlan
from calotype.data.open import open_source
from calotype.training.preparation import Job
from calotype.training.randomness import mixed_seed, seed_networks
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe
from calotype.training.task import Task


class MeanTask(Task):
    name, key, shard_units = "mean", 8, (nn.Linear,)

    def __init__(self, config):
        self.config = config
        seed_networks(config.seed, 0)
        self.model = nn.Linear(3, 3)

    def batch_plan(self):
        config = self.config
        sizes = {"resolution": 8, "lowres_resolution": None, "batch_size": config.batch_size}
        return BatchPlan(**sizes, config=config.data, seed=config.seed)

    def random_numbers(self, batch, position):
        generator = torch.Generator().manual_seed(mixed_seed(self.config.seed, position, "mean"))
        return 0.1 * torch.randn(batch.images, 3, generator=generator)

    def inputs(self, batch, numbers):
        return torch.stack((batch.x.mean((2, 3)), numbers), dim=1)

    def losses(self, inputs):
        mean, noise = inputs.unbind(1)
        return (self.model(mean + noise) - mean).square().mean(1)

    def log(self, losses, numbers):
        return {"largest": float(losses.max())}

    def validate(self, average):
        return {"validation": {"weight": float(average.weight.detach().abs().mean())}}

    def write_model(self, checkpoint, average, earlier, recipe):
        save_file(average.state_dict(), checkpoint / "mean-model.safetensors")


class MeanTasks:
    task = MeanTask

    def check(self, recipe, *, only_draft): ...

    def check_init(self, recipe, init): ...

    def prepare(self, preparation, config, start):
        source = open_source(preparation.data, resolution=8, data=config.data)
        return Job(self.task(config), source)

    def load_exported(self, checkpoint, config):
        model = nn.Linear(3, 3)
        model.load_state_dict(load_file(checkpoint / "mean-model.safetensors"))
        return model


TASKS = MeanTasks()


def main(data: str, out: str, *words: str, tasks=TASKS) -> int:
    recipe: Recipe = load_recipe(str(Path(out).parent / "recipe.json"))
    options = RunOptions(
        quiet=True, threads=1, dtype="float32", device="cpu",
        resume="resume" in words, sharded="sharded" in words,
    )  # fmt: skip
    return run_recipe(recipe, data=Path(data), out=Path(out), options=options, tasks=tasks)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
