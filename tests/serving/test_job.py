"""A job is checked as far as no model is needed."""

import pytest
from pydantic import ValidationError

from calotype.serving.job import (
    LEAST_SIDE,
    MOST_IMAGES,
    MOST_PROMPT,
    MOST_SEED,
    MOST_SIDE,
    MOST_STEPS,
    JobRequest,
)


def test_json_is_read_with_resolutions_and_sizes():
    text = '{"prompt": "a fox", "size": [512, 384], "stages": {"256": {"steps": 4}}, "guidance": 2}'
    job = JobRequest.model_validate_json(text)
    assert job.size == (512, 384) and job.stages == {256: {"steps": 4}} and job.guidance == 2
    assert JobRequest.model_validate_json(job.model_dump_json()) == job
    job = JobRequest.model_validate_json('{"class": "noto"}')
    assert job.class_name == "noto" and job.model_dump(exclude_unset=True) == {"class": "noto"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 33}, {"n": "1"}, {"n": True}, {"seed": -1}, {"seed": MOST_SEED + 1},
        {"seed": MOST_SEED, "n": 2}, {"size": [15, 64]}, {"size": [64, 2049]}, {"steps": 257},
        {"guidance": float("nan")}, {"prompt": "a" * 32_001}, {"unknown": 1}, {"format": "gif"},
        {"kind": "image_to_image"}, {"kind": "vary"}, {"strength": 0.0}, {"stages": {"256": {}}},
        {"class": ""}, {"class": 1}, {"class_name": "noto"},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValidationError):
        JobRequest(**wrong)


@pytest.mark.parametrize(
    ("field", "at", "above", "far"),
    [
        ("prompt", "a" * MOST_PROMPT, "a" * (MOST_PROMPT + 1), "a" * 10**7),
        ("negative_prompt", "é" * MOST_PROMPT, "é" * (MOST_PROMPT + 1), "é" * 10**7),
        ("n", MOST_IMAGES, MOST_IMAGES + 1, 10**9),
        ("steps", MOST_STEPS, MOST_STEPS + 1, 10**30),
        ("seed", MOST_SEED, MOST_SEED + 1, 10**1000),
        ("size", (MOST_SIDE, MOST_SIDE), (MOST_SIDE, MOST_SIDE + 1), (10**9, 10**9)),
        ("size", (LEAST_SIDE, LEAST_SIDE), (LEAST_SIDE - 1, LEAST_SIDE), (-(10**9), 0)),
        (
            "stages",
            {64: {"steps": MOST_STEPS}},
            {64: {"steps": MOST_STEPS + 1}},
            {64: {"steps": 4096}},
        ),
        (
            "stages",
            {64: {"timesteps": [*range(MOST_STEPS)]}},
            {64: {"timesteps": [*range(MOST_STEPS + 1)]}},
            {64: {"steps": 10**1000}},
        ),
        ("mask_blur", 4096, 4097, 10**9),
        ("padding", 100, 101, 1e300),
        ("guidance", 1000, 1001, float("inf")),
    ],
)
def test_each_limit_at_above_and_far_above_it(field, at, above, far):
    assert getattr(JobRequest(**{field: at}), field) == at
    for wrong in (above, far):
        with pytest.raises(ValidationError):
            JobRequest(**{field: wrong})
