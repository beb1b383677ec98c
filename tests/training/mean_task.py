"""The smallest task: a linear layer that learns an image's mean colour from a noised one.

As a program: `python mean_task.py DATA OUT`, by torchrun or alone.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from calotype.config.recipe import Recipe
from calotype.data.batches import BatchPlan
from calotype.data.open import open_source
from calotype.training.job import Job
from calotype.training.randomness import mixed_seed, seed_networks
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe


@dataclass
class Rows:
    x: torch.Tensor

    def __len__(self):
        return len(self.x)

    def rows(self, rows):
        return Rows(self.x[rows])

    part = rows


class Free:
    def rates(self, images_per_second):
        return {}


class MeanTask:
    name, key, fingerprint, shard_units = "mean", 8, None, (nn.Linear,)

    def __init__(self, config):
        self.config = config
        seed_networks(config.seed, 0)
        self.model = nn.Linear(3, 3)

    def batch_plan(self):
        config = self.config
        sizes = {"resolution": 8, "lowres_resolution": None, "batch_size": config.batch_size}
        return BatchPlan(**sizes, config=config.data, seed=config.seed)

    def draw(self, batch, position):
        generator = torch.Generator().manual_seed(mixed_seed(self.config.seed, position, "mean"))
        return Rows(0.1 * torch.randn(batch.images, 3, generator=generator))

    def inputs(self, batch, drawn):
        return Rows(torch.stack((batch.x.mean((2, 3)), drawn.x), dim=1))

    def losses(self, inputs):
        mean, noise = inputs.x.unbind(1)
        return (self.model(mean + noise) - mean).square().mean(1)

    def log(self, losses, drawn):
        return {"largest": float(losses.max())}

    def cost(self, processes):
        return Free()

    def validate(self, average):
        return {"validation": {"weight": float(average.weight.detach().abs().mean())}}

    def preview(self, average, path): ...

    def exported(self, average):
        return average

    def write_beside(self, run, average, images): ...

    def write_model(self, folder, average, earlier, recipe):
        folder.mkdir()
        save_file(average.state_dict(), folder / "mean.safetensors")


class MeanTasks:
    def check(self, recipe, *, only_draft): ...

    def check_init(self, recipe, init): ...

    def name(self, config):
        return "mean"

    def prepare(self, preparation, config, start):
        source = open_source(preparation.data, resolution=8, data=config.data)
        return Job(MeanTask(config), source)

    def load_exported(self, folder, config):
        model = nn.Linear(3, 3)
        model.load_state_dict(load_file(folder / "mean.safetensors"))
        return model


def main(data: str, out: str, *words: str) -> int:
    recipe: Recipe = load_recipe(str(Path(out).parent / "recipe.json"))
    options = RunOptions(
        quiet=True, threads=1, dtype="float32", device="cpu",
        resume="resume" in words, sharded="sharded" in words,
    )  # fmt: skip
    return run_recipe(recipe, data=Path(data), out=Path(out), options=options, tasks=MeanTasks())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
