"""Which real images are taken, and how they are named."""

import numpy as np
import pytest
from PIL import Image

from calotype.errors import UsageError
from calotype.evaluation.distances import fid_name
from calotype.evaluation.reference import Which, real_images
from calotype.evaluation.samples import Manifest
from calotype.evaluation.samples.manifest import SuiteNote
from calotype.evaluation.suites.coco import COCO_30K


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        place = tmp_path / "real" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 12, 3), number, np.uint8)).save(place / f"{number}.png")
    return tmp_path / "real"


def test_all_some_by_hash_and_those_that_are_named(folder):
    every = real_images(folder, side=4)
    assert len(every) == 6 and every.pixels([0], 4).shape == (1, 3, 4, 4)
    few, more = (real_images(folder, side=4, which=Which(most=n)) for n in (2, 4))
    assert set(few.names) < set(more.names) < set(every.names)
    named = real_images(folder, side=4, which=Which(names=frozenset({"1.png", "4.png", "9.png"})))
    assert named.names == ("a/4.png", "b/1.png")
    assert {every.fingerprint, few.fingerprint, named.fingerprint}.__len__() == 3
    for which in (Which(names=frozenset({"9.png"})), Which(most=0)):
        with pytest.raises(UsageError, match="got no images"):
            real_images(folder, side=4, which=which)
    with pytest.raises(UsageError, match="does not exist"):
        real_images(folder / "none", side=4)


def test_only_the_papers_fid_is_called_fid_30k():
    annotations = "captions_val2014.json"
    choices = {"format": "COCO", "people": "kept", "annotations": annotations}
    choices["reference"] = f"40504 images of {annotations}"

    def manifest(prompts=COCO_30K, each=1, count=None, **changes):
        suite = SuiteNote(name="", sha256="", prompts=prompts, choices={**choices, **changes})
        return Manifest(
            name="", suite=suite, count=prompts if count is None else count, each=each, seed=0,
            size=None, encoding="png", shards=(),
        )  # fmt: skip

    assert fid_name(manifest(), "inception", 256, real=40_504) == "FID-30K"
    others = (
        manifest(prompts=10_000), manifest(each=2), manifest(people="left out"),
        manifest(count=29_999),
    )  # fmt: skip
    for other in others:
        assert fid_name(other, "inception", 256, real=40_504) == "FID"
    assert fid_name(manifest(), "lite0", 256, real=40_504) == "FID"
    assert fid_name(manifest(), "inception", 64, real=40_504) == "FID"
    assert fid_name(manifest(), "inception", 256, real=1_000) == "FID"  # of other real images
