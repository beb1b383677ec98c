"""A job is checked as far as no model is needed."""

import pytest
from pydantic import ValidationError

from calotype.serving.job import MOST_SEED, JobRequest


def test_json_is_read_with_resolutions_and_sizes():
    text = '{"prompt": "a fox", "size": [512, 384], "stages": {"256": {"steps": 4}}, "guidance": 2}'
    job = JobRequest.model_validate_json(text)
    assert job.size == (512, 384) and job.stages == {256: {"steps": 4}} and job.guidance == 2
    assert JobRequest.model_validate_json(job.model_dump_json()) == job


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 33}, {"n": "1"}, {"n": True}, {"seed": -1}, {"seed": MOST_SEED + 1},
        {"seed": MOST_SEED, "n": 2}, {"size": [15, 64]}, {"size": [64, 2049]}, {"steps": 257},
        {"guidance": float("nan")}, {"prompt": "a" * 32_001}, {"unknown": 1}, {"format": "gif"},
        {"kind": "image_to_image"}, {"kind": "vary"}, {"strength": 0.0}, {"stages": {"256": {}}},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValidationError):
        JobRequest(**wrong)
