"""A run on two processes, whole and stopped and resumed; `importance_worker.py FOLDER`."""

import os
import signal
import sys
from pathlib import Path

from calotype.tasks.factory import Tasks
from calotype.training import progress
from calotype.training.distributed import open_group
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe

SETTINGS = {"quiet": True, "threads": 1, "dtype": "float32", "device": "cpu"}


def main(folder):
    place, stop_at = Path(folder), None
    show = progress.TrainingDisplay.show

    def interrupted(self, now, meter):
        if now == stop_at and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        show(self, now, meter)

    progress.TrainingDisplay.show = interrupted
    with open_group() as group:

        def train(name, **options):
            assert not run_recipe(
                load_recipe(place / "recipe.json"),
                data=place / "data",
                out=place / name,
                options=RunOptions(**SETTINGS, **options),
                tasks=Tasks(),
                group=group,
            )

        for name, sharded in (("copies", False), ("shards", True)):
            train(name, sharded=sharded)
            stop_at = 28
            train(f"{name}-parts", sharded=sharded)
            stop_at = None
            train(f"{name}-parts", sharded=sharded, resume=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
