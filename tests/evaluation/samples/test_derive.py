"""Sets made of others, and what becomes of files that lie where they are to be written."""

import io

import pytest
from PIL import Image

from calotype.errors import UsageError
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.derive import derive
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.samples.prompts import write_prompts
from calotype.evaluation.suites.suite import Prompt, Suite

SUITE = Suite("s", (Prompt("p0", "a thing"), Prompt("p1", "another")), "0" * 64)


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.new("RGB", (10, 8), (number, 0, 0)).save(tmp_path / "in" / f"{number}.png")
    import_samples(tmp_path / "in", SUITE, tmp_path / "whole")
    write_prompts(tmp_path / "whole", SUITE)
    return open_samples(tmp_path / "whole")


def jpeg(sample, data):
    stream = io.BytesIO()
    Image.open(io.BytesIO(data)).crop((0, 0, 6, 4)).save(stream, "JPEG")
    return stream.getvalue()


def test_a_derived_set_takes_the_place_of_another_and_of_nothing_else(samples, tmp_path):
    out = tmp_path / "out"
    kept = {("p0", 1), ("p1", 0), ("p1", 1)}
    some = derive(samples, out, keep=kept, recode=None, note={"kept": 3})
    assert (some.count, some.each, some.size, some.encoding) == (3, None, (8, 10), "png")
    assert some.origin == {**samples.manifest.origin, "derived": {"kept": 3}}
    assert open_samples(out).encoded(0) == samples.encoded(1)
    every = derive(samples, out, keep=None, recode=jpeg, note={"recode": "jpeg"})
    assert (every.count, every.each, every.size, every.encoding) == (4, 2, (4, 6), "jpeg")
    before = (out / "00000.parquet").stat().st_mtime_ns
    assert derive(samples, out, keep=None, recode=jpeg, note={"recode": "jpeg"}) == every
    assert (out / "00000.parquet").stat().st_mtime_ns == before  # not written again
    (out / "00000.parquet").write_text("mine")
    with pytest.raises(UsageError, match="none of ours"):
        derive(samples, out, keep=None, recode=jpeg, note={"recode": "jpeg"})
    assert (out / "00000.parquet").read_text() == "mine"


def test_nothing_left_is_no_set(samples, tmp_path):
    with pytest.raises(UsageError, match="nothing is left"):
        derive(samples, tmp_path / "out", keep=set(), recode=None, note={})
