"""What is asked for, as sampling settings."""

import pytest

from calotype.config.sampling import SamplingConfig
from calotype.generation.request import GuideRequest, Request, requested_sampling

DRAFT = SamplingConfig(steps=6, sampler="dpmpp_2m", grid="karras", start="draft", sigma_max=0.3)
PULLS = GuideRequest(clip_scale=3.0)


@pytest.mark.parametrize(
    ("asked", "steps", "variety"),
    [
        ({"guides": PULLS}, 32, 1.0),
        ({"guides": GuideRequest("run")}, 32, 1.0),
        ({"guides": PULLS, "steps": 4}, 4, 1.0),
        ({"guides": PULLS, "steps": 40, "variety": 0.5}, 40, 0.5),
        ({"guides": PULLS, "stage_options": ("64:variety=0,steps=6",)}, 6, 0.0),
        ({"guides": PULLS, "like": {}}, 6, 0.0),
        ({"guides": GuideRequest("run", 0.0, clip_scale=0.0)}, 6, 0.0),
        ({}, 6, 0.0),
    ],
)
def test_a_guided_base_starts_where_noise_hides_its_draft(asked, steps, variety):
    """It would have few levels to be guided at, otherwise; what is said counts."""
    base = requested_sampling(Request(**asked), {64: DRAFT})[64]
    assert (base.steps, base.variety, base.start) == (steps, variety, "draft")


def test_a_guided_base_that_starts_from_noise_samples_as_ever():
    noise = SamplingConfig(steps=6)
    assert requested_sampling(Request(guides=PULLS), {64: noise}) == {64: noise}
