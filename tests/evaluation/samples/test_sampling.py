"""Suites sampled into sets: the same by anybody, done once, refused where they do not fit."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.job import SampleJob, SetJob, sample_sets, seed_of
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.suites.suite import Prompt, Suite
from calotype.generation.cascade import expected_recipe, open_generator, settle
from calotype.generation.executors import Executor
from calotype.generation.request import Request

SUITE = Suite(
    "colours",
    tuple(Prompt(f"p{n}", f"a {n} of $5 <script>", "ab"[n % 2]) for n in range(5)),
    "0" * 64,
    {"kept": "all"},
)


def job_of(model, folder, *options, suite=SUITE, **changes):
    """A job with a set for each option."""
    sets = []
    for number, option in enumerate(options or ((),)):
        request = Request(model=str(model), threads=1, dtype="float32", stage_options=list(option))
        settings = settle(request)
        common = expected_recipe(settings, "", 0)
        sets.append(SetJob(folder / f"set-{number}", settings, common))
    job = SampleJob(
        tuple(sets), open_generator, write_prompts(folder, suite), total=10, each=2, seed=3,
        shard_images=4,
    )  # fmt: skip
    return dataclasses.replace(job, **changes)


def run(job, suite=SUITE, workers=1):
    seen = []
    sample_sets(
        job,
        suite,
        executor=Executor(workers),
        show=lambda preview: None,
        on_shard=seen.append,
    )
    return seen


def test_a_set_holds_what_was_asked_for(model, tmp_path):
    job = job_of(model, tmp_path)
    assert run(job) == [4, 4, 2]
    found = open_samples(tmp_path / "set-0")
    assert len(found) == 10 and found.manifest.suite.choices == {"kept": "all"}
    assert [s.prompt for s in found.samples] == [f"p{n}" for n in range(5) for _ in range(2)]
    assert [s.index for s in found.samples] == [0, 1] * 5
    assert {s.category for s in found.samples} == {"a", "b"}
    assert [s.seed for s in found.samples[:2]] == [seed_of("p0", i, seed=3) for i in range(2)]
    assert len({s.seed for s in found.samples}) == len({s.key for s in found.samples}) == 10
    manifest = found.manifest
    assert (manifest.encoding, manifest.size, manifest.each) == ("png", (32, 32), 2)
    assert manifest.recipe["model"]["name"] == "small" and len(manifest.recipe["stages"]) == 3
    assert "seed" not in manifest.recipe and "caption" not in manifest.recipe
    pixels = found.pixels(range(10), 8)
    assert pixels.shape == (10, 3, 8, 8) and pixels.dtype == torch.uint8


def test_the_images_are_those_of_sample_with_the_same_seed(model, tmp_path, command):
    run(job_of(model, tmp_path))
    sample = open_samples(tmp_path / "set-0").samples[7]
    words = ("--threads", "1", "--dtype", "float32", "--seed", str(sample.seed), "-o", "one.png")
    assert command("sample", sample.caption, "--model", str(model), *words)[0] == 0
    from PIL import Image

    alone = np.asarray(Image.open(tmp_path / "one.png")).astype(int)
    ours = open_samples(tmp_path / "set-0").pixels([7])[0].permute(1, 2, 0).numpy()
    assert np.abs(alone - ours).max() <= 1  # convolutions of other batches round differently


def test_a_rerun_samples_only_what_is_missing_and_loads_nothing_else(model, tmp_path):
    job = job_of(model, tmp_path)
    run(job)
    folder = tmp_path / "set-0"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    (folder / "00001.parquet").unlink()
    run(job)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

    def never(settings):
        raise AssertionError("loaded")

    assert run(dataclasses.replace(job, open=never)) == [4, 4, 2]


def test_several_sets_are_what_each_would_be_alone(model, tmp_path):
    options = [("8:steps=1",), ("16:aug_level=0.3",), ("16:aug_level=0.3", "32:steps=1"), ()]
    run(job_of(model, tmp_path / "all", *options))
    for number, option in enumerate(options):
        run(job_of(model, tmp_path / str(number), option))
        names = ["00000.parquet", "00001.parquet", "00002.parquet"]
        for name in names:
            together = pq.read_table(tmp_path / "all" / f"set-{number}" / name)
            alone = pq.read_table(tmp_path / str(number) / "set-0" / name)
            assert together.equals(alone)


def test_other_settings_are_refused_and_nothing_is_lost(model, tmp_path):
    run(job_of(model, tmp_path))
    before = {path: path.read_bytes() for path in (tmp_path / "set-0").iterdir()}
    with pytest.raises(UsageError, match="other settings"):
        run(job_of(model, tmp_path, ("8:steps=1",)))
    other = dataclasses.replace(SUITE, prompts=SUITE.prompts[:3])
    with pytest.raises(UsageError, match="other prompts"):
        job_of(model, tmp_path, suite=other)
    assert {path: path.read_bytes() for path in (tmp_path / "set-0").iterdir()} == before


def test_seeds_depend_on_the_prompt_and_number_alone():
    assert seed_of("p", 0, seed=1) == seed_of("p", 0, seed=1)
    others = [seed_of("p", 1, seed=1), seed_of("q", 0, seed=1), seed_of("p", 0, seed=2)]
    assert len({seed_of("p", 0, seed=1), *others}) == 4
    assert all(0 <= seed < 2**63 for seed in others)


def test_a_set_that_is_not_whole_is_refused(model, tmp_path):
    run(job_of(model, tmp_path))
    folder = tmp_path / "set-0"
    (folder / "00001.parquet").rename(tmp_path / "away")
    with pytest.raises(UsageError, match="is gone"):
        open_samples(folder)
    (folder / "00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UsageError, match="cannot read"):
        len(open_samples(folder).samples)
    (folder / "manifest.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(UsageError, match="missing"):
        open_samples(folder)
    with pytest.raises(UsageError, match="no manifest"):
        open_samples(tmp_path)


@pytest.mark.slow
def test_two_workers_sample_what_one_does(model, tmp_path):
    run(job_of(model, tmp_path / "one"))
    run(job_of(model, tmp_path / "two"), workers=2)
    for path in sorted((tmp_path / "one" / "set-0").iterdir()):
        assert path.read_bytes() == (tmp_path / "two" / "set-0" / path.name).read_bytes()
