"""A list of captions sampled on a local Ray with two actors, one of which is killed in mid-job."""

import os
import pickle
import signal

import numpy as np
import pytest
from PIL import Image

from calotype.cascade import png
from calotype.generation.cascade import settle
from calotype.generation.executors import on_workers
from calotype.generation.lists import ListJob, ShardGenerator
from calotype.generation.prompts import open_prompts
from calotype.generation.request import Request

WORDS = ("--size", "8", "--threads", "1", "--from-file", "list.txt", "--batch", "2")


@pytest.fixture
def images(command, tmp_path):
    """Seven captions sampled by this process into here.png's folder, in shards of two."""
    (tmp_path / "list.txt").write_text("".join(f"caption {number}\n" for number in range(7)))
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    assert command("sample", *WORDS, "-o", "here/p.png")[0] == 0
    return pixels(tmp_path / "here")


def pixels(folder):
    found = {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}
    assert sorted(os.listdir(folder)) == sorted(found)
    return found


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def test_what_goes_to_actors_samples_the_same_elsewhere(command, images, tmp_path, monkeypatch):
    """Without Ray: two actors by turns, everything pickled on its way to them."""
    asked = {}

    def actor_map(items, make, **options):
        items, make = pickle.loads(pickle.dumps((items, make)))
        asked.update(options, shards=len(items))
        actors = [make(), make()]
        return [actors[number % 2](items[number]) for number in reversed(range(len(items)))]

    monkeypatch.setattr("calotype.data.ray_jobs.ray_actor_map", actor_map)
    words = ("sample", *WORDS, "-o", "there/p.png", "--ray", "--workers", "2")
    assert command(*words)[::2] == (0, "")
    same(images, pixels(tmp_path / "there"))
    assert asked == {"address": "auto", "workers": 2, "gpus": 0.0, "shards": 4}
    assert command(*words)[2].startswith("calotype: 7 of 7")


@pytest.fixture
def two_workers(start_ray):
    start_ray(2)


@pytest.mark.slow
def test_an_actor_killed_in_mid_shard(command, images, model, tmp_path, two_workers):
    """It dies when it has written one image of two; the shard in hand alone is sampled again."""
    from calotype.data.ray_jobs import ray_actor_map

    log, out = tmp_path / "log", tmp_path / "there"
    log.mkdir()
    request = Request(model=str(model), size=8, device="cpu", dtype="float32", threads=1)
    settings = on_workers(settle(request), 2, threads=1, gpus=0.0)
    with open_prompts(tmp_path / "list.txt") as prompts:
        job = ListJob(settings, prompts, 1, 0, out / "p.png")

        def make():
            drawer, write_png = ShardGenerator(job), png.write_png

            def write_or_die(path, *image, replace):
                if path.name == "p-3.png" and len(list(log.glob("2-*"))) == 1:
                    os.kill(os.getpid(), signal.SIGKILL)
                write_png(path, *image, replace=replace)

            def work(shard):
                (log / f"{shard.first}-{len(list(log.glob(f'{shard.first}-*')))}").touch()
                png.write_png = write_or_die
                return drawer(shard)

            return work

        results = list(ray_actor_map(job.shards(2), make, address="auto", workers=2))
    assert sorted(os.listdir(log)) == ["0-0", "2-0", "2-1", "4-0", "6-0"]
    assert sorted((r.made, r.skipped) for r in results) == [(1, 0), (1, 1), (2, 0), (2, 0)]
    same(images, pixels(out))
    code, _, err = command("sample", *WORDS, "-o", "there/p.png", "--ray", "--workers", "2")
    assert code == 0
    assert err.endswith("calotype: 7 of 7 images were there already\n")  # Ray speaks, too
