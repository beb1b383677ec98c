"""One process, two of torchrun, two local workers and two on Ray find the same."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1000)]  # Ray starts many processes

# The command with small shards and chunks, so that a few images are work for several.
SMALL = """
from functools import partial
import sys
from calotype.cli import run
from calotype.evaluation import evaluate, reference

if __name__ == "__main__":
    reference.CHUNK = 6
    evaluate.SampleJob = partial(evaluate.SampleJob, shard_images=4)
    sys.exit(run(sys.argv[1:]))
"""
WAYS = {
    "torchrun": (("-m", "torch.distributed.run", "--nproc-per-node", "2"), ()),
    "workers": ((), ("--workers", "2")),
    "Ray": ((), ("--ray", "local", "--workers", "2")),
}


@pytest.fixture(scope="module")
def evaluate(model, colours, tmp_path_factory):
    """Evaluate the model by a way; what the results and shards are."""
    place = tmp_path_factory.mktemp("ways")
    (place / "small.py").write_text(SMALL)

    def run(way, launch=(), words=(), out=None):
        out = place / (out or way)
        command = [
            sys.executable, *launch, str(place / "small.py"), "evaluate", str(model),
            "--suite", str(colours / "suite.txt"), "--reference", str(colours / "real"),
            "-n", "2", "-o", str(out), "--cache", str(place / f"cache-{out.name}"),
            "--threads", "1", "--dtype", "float32", "--size", "16", *words,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=900, env=environment, cwd=place
        )
        assert done.returncode == 0, done.stderr
        results = json.loads((out / "results.json").read_text())
        shards = {path.name: path.read_bytes() for path in sorted(out.glob("samples/*.parquet"))}
        features = {path.name for path in (place / f"cache-{out.name}").rglob("*.npy")}
        return results["numbers"], results["samples"], shards, features, done

    return run


@pytest.fixture(scope="module")
def alone(evaluate):
    return evaluate("alone")


def test_alone_there_is_work_for_several(alone):
    numbers, samples, shards, features, _ = alone
    assert len(shards) == 4 and samples["count"] == 16
    # By lite0, and of colours: three chunks of samples, two of real images. By CLIP: those of
    # samples, and the captions.
    assert len(features) == 2 * 5 + 3 + 1
    metrics = {number["metric"] for number in numbers}
    assert metrics >= {"FID", "KID", "precision", "colour shift", "CLIP score", "R-precision"}


@pytest.mark.parametrize("way", ["workers", "Ray"])  # torchrun: below
def test_whoever_works_finds_the_same(evaluate, alone, way):
    if way == "Ray":
        pytest.importorskip("ray")
    found = evaluate(way, *WAYS[way])
    numbers, samples, shards, features, done = found
    assert numbers == alone[0]
    assert shards == alone[2] and samples["shards"] == alone[1]["shards"]
    assert features == alone[3]
    assert done.stdout.count("index.html") == 1  # said once


def test_torchrun_goes_on_where_one_process_stopped(evaluate, alone):
    evaluate("mixed")
    numbers, _, shards, *_ = evaluate("torchrun", *WAYS["torchrun"], out="mixed")
    assert (numbers, shards) == (alone[0], alone[2])
