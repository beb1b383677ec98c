"""What two processes do for test_distributed: several runs, one after the other, in one launch."""

import json
import os
import signal
import sys
from pathlib import Path

from calotype.tasks.factory import Tasks
from calotype.training import progress, stream
from calotype.training.distributed import open_group
from calotype.training.guards import Guards
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe

SETTINGS = {"quiet": True, "threads": 1, "dtype": "float32", "device": "cpu"}


def stop_at(images, rank):
    """The process `rank` gets a SIGTERM, the others do not, after so many images."""

    def show(self, now, meter):
        if now == images and int(os.environ["RANK"]) == rank:
            os.kill(os.getpid(), signal.SIGTERM)

    progress.TrainingDisplay.show = show


def spoil(position):
    """Images far out of range at one place in the data, and guards that notice at once."""
    batches = stream.batches

    def spoiled(*args, **kwargs):
        made = batches(*args, **{**kwargs, "prefetch": 0})
        try:
            for batch in made:
                if batch.position == position:
                    batch.x.fill_(1000.0)
                yield batch
        finally:
            made.close()

    stream.batches = spoiled
    return Guards(spike_score=100.0, spike_steps=1, warmup_steps=2)


def main():
    place = Path(sys.argv[1])
    with open_group() as group:

        def train(name, *, recipe="recipe.json", **options):
            settings = RunOptions(**SETTINGS, **options)
            recipe = load_recipe(place / recipe)
            out = place / name
            where = {"data": place / "data", "out": out}
            code = run_recipe(recipe, **where, options=settings, tasks=Tasks(), group=group)
            codes = group.all_gather(code)
            if group.is_rank_zero:
                (place / f"{name}.codes.json").write_text(json.dumps(codes))

        train("copies")
        train("shards", sharded=True)
        train("factors-two", recipe="adafactor.json", sharded=True)
        stop_at(12, rank=1)
        train("mixed", resume=True)  # begun by one process
        train("stopped", sharded=True)
        if group.is_rank_zero:
            os.system(f"cp -a {place / 'stopped'} {place / 'to-one'}")
        group.barrier()
        stop_at(-1, rank=1)
        train("stopped", sharded=True, resume=True)
        train("from-one", sharded=True, resume=True)  # begun by one process
        guards = spoil(12)
        train("rewound-copies", guards=guards)
        train("rewound-shards", sharded=True, guards=guards)


if __name__ == "__main__":
    main()
