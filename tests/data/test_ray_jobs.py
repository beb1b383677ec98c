"""The same work on a local Ray with two workers, one of which is killed in mid-job."""

import functools
import json
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.data.columns import Selection
from calotype.data.embed import EmbedJob, embed_chunk, embed_data
from calotype.data.ray_jobs import RETRIES, ray_actor_map, ray_map
from calotype.data.shard import shard_data, write_shard
from calotype.data.verify import verify_data
from calotype.data.work import Chunks, Work, open_for_work
from calotype.emoji.build import render_shard
from calotype.emoji.plan import Artwork, PlannedImage
from calotype.emoji.shards import broken_in, plan_shards
from calotype.errors import CalotypeError, UsageError
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")


@pytest.fixture(scope="module", autouse=True)
def two_workers(start_ray):
    start_ray(2)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 8, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number:02d}.png")
        (root / f"{number:02d}.txt").write_text(f"text {number}")
    (root / "05.png").write_bytes(b"broken")
    return root


WHERE = {"address": "auto", "workers": 2}
ON_RAY = Work(ray="auto", processes=2)


def test_shards_are_the_local_ones_and_skipped_on_a_rerun(folder, tmp_path):
    here = shard_data(folder, tmp_path / "here", rows=3)
    there = shard_data(folder, tmp_path / "there", rows=3, work=ON_RAY)
    assert [r.path.read_bytes() for r in here] == [r.path.read_bytes() for r in there]
    assert there[1].broken == {"05.png": "not an image in a known format"}
    again = shard_data(folder, tmp_path / "there", rows=3, work=ON_RAY)
    assert [r.skipped for r in again] == [True] * 4


def test_the_report_is_the_local_one(folder):
    assert verify_data(folder, work=ON_RAY) == verify_data(folder)


def test_a_worker_killed_in_mid_job_costs_its_shard_only(folder, tmp_path):
    """Every task writes down that it starts; the one with the second shard kills its worker."""
    out, log = tmp_path / "out", tmp_path / "log"
    log.mkdir()

    def task(chunk):
        number = chunk.start // 3
        starts = len(list(log.glob(f"{number}-*")))
        (log / f"{number}-{starts}").touch()
        if number == 1 and starts == 0:
            (out / "half.partial").parent.mkdir(exist_ok=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return write_shard(chunk, out, 3)

    chunks = Chunks(open_for_work(folder, "", Selection()), 3)
    results = sorted(ray_map(chunks, task, **WHERE), key=lambda r: r.path)
    assert [r.path.name for r in results] == [f"{n:05d}.parquet" for n in range(4)]
    assert [r.rows for r in results] == [3, 2, 3, 3]
    assert sorted(os.listdir(out)) == [f"{n:05d}.parquet" for n in range(4)]
    assert sorted(os.listdir(log)) == ["0-0", "1-0", "1-1", "2-0", "3-0"]
    here = shard_data(folder, tmp_path / "here", rows=3)
    assert [r.path.read_bytes() for r in results] == [r.path.read_bytes() for r in here]


def test_an_item_that_kills_every_worker_ends_with_an_error(tmp_path):
    def task(item):
        (tmp_path / str(len(list(tmp_path.iterdir())))).touch()
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(CalotypeError, match="a Ray worker failed") as error:
        list(ray_map([1], task, **WHERE))
    assert "\n" not in str(error.value)
    assert len(list(tmp_path.iterdir())) == RETRIES + 1


def test_the_users_error_comes_home_as_it_is():
    def task(item):
        raise UsageError(f"got {item}; expected less")

    with pytest.raises(UsageError, match="got 3; expected less"):
        list(ray_map([3], task, **WHERE))
    assert list(ray_map([], task, **WHERE)) == []


def test_emoji_shards_are_drawn(tmp_path):
    svg = b'<svg xmlns="http://www.w3.org/2000/svg" width="SIZE" height="SIZE" '
    svg += b'viewBox="0 0 8 8"><rect width="4" height="8" fill="#010203"/></svg>'
    words = ("dog", (), "animals", "flat style", "noto", "MIT", "dog", "train")
    images = [PlannedImage(f"noto/{n}", *words, Artwork("dog", svg)) for n in range(600)]
    plans = plan_shards(tmp_path, "noto", images[510:], size=256)
    plans += plan_shards(tmp_path, "other", images[:2], size=256)
    assert sorted(
        ray_map(plans, functools.partial(render_shard, rasters=frozenset()), **WHERE)
    ) == [
        2,
        90,
    ]
    assert [broken_in(plan) for plan in plans] == [[], []]
    assert [pq.read_metadata(plan.path).num_rows for plan in plans] == [90, 2]


def test_the_command_starts_a_ray_of_its_own(folder):
    words = ["data", "verify", str(folder), "--ray", "local", "--processes", "2", "--json"]
    code = "import sys; from calotype.cli import run; sys.exit(run(sys.argv[1:]))"
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["broken"] == 1


def test_captions_are_embedded_by_actors(folder, tmp_path):
    captions = [f"text {n}" for n in range(12)]
    job = EmbedJob("bytes:8", tmp_path / "store")
    report = embed_data(folder, job, work=ON_RAY)
    assert report.embedded == 12
    assert CaptionStore(*store_cards(tmp_path / "store")).missing(captions) == []
    assert embed_data(folder, job, work=ON_RAY).embedded == 0


def test_an_actor_killed_in_mid_job(folder, tmp_path):
    job = EmbedJob("bytes:8", tmp_path / "store")
    mark = tmp_path / "killed"

    def make():
        def work(chunk):
            if chunk.start == 6 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return embed_chunk(chunk, job)

        return work

    chunks = Chunks(open_for_work(folder, "", Selection()), 3)
    counts = list(ray_actor_map(chunks, make, **WHERE))
    assert sum(count.examples for count in counts) == 12
    assert mark.exists()
    store = CaptionStore(*store_cards(tmp_path / "store"))
    assert store.missing([f"text {n}" for n in range(12)]) == []
    assert len(store) == 12
