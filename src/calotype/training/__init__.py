"""Training: a recipe and a folder of images go in, checkpoints and what a task makes come out.

In: a `Recipe` (calotype.config), data (calotype.data), the task made of both (calotype.tasks).
Out: a run folder with exact checkpoints, logs, validation losses and grids of samples.
Everything random in a run is a pure function of (seed, position in the data): nothing about random
number generators has to be restored, and a resumed run repeats an uninterrupted one to the bit.
May import config, diffusion and data; names no model, which a test holds. Importing this package
imports no torch: `calotype.training.run` does.

Hint: call `calotype.launch.prepare_environment` before torch is imported (`calotype train` does):
threads that spin for long while they wait cost a third of the speed on small machines, and those
that sleep at once an eighth.
"""
