"""The bounds of requests in docs/limits.md are those of the code."""

from __future__ import annotations

from pathlib import Path

from calotype.serving import job
from calotype.serving.front import limits
from calotype.serving.front.settings import ServeSettings

TEXT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
ROWS = {
    line.split(" | ")[0].strip("| "): line.split(" | ")[1]
    for line in TEXT.partition("## Bounds of requests")[2].splitlines()
    if line.startswith("| ")
}


def test_bounds_of_requests_are_those_of_the_code() -> None:
    assert ROWS["body"] == f"{limits.MOST_BODY:,} bytes, within {limits.BODY_SECONDS:g} seconds"
    assert ROWS["bodies of requests that are not answered yet"] == f"{limits.MOST_BODIES:,} bytes"
    assert ROWS["decoded images of jobs that are not over"] == f"{limits.MOST_DECODED:,} bytes"
    assert ROWS["JSON"] == f"{limits.MOST_DEPTH} deep, {limits.MOST_VALUES:,} values"
    fields = f"{limits.MOST_FIELDS} fields of {limits.MOST_FIELD:,} bytes"
    assert ROWS["form"] == f"{limits.MOST_FILES} files, {fields}"
    headers = f"{limits.MOST_HEADERS}, and {limits.MOST_HEADER_BYTES:,} bytes of them"
    assert ROWS["headers"] == f"{headers}; one range"
    assert ROWS["a request's headers arrive"] == f"within {limits.HEAD_SECONDS:g} seconds"
    assert ROWS["prompt"] == f"{job.MOST_PROMPT:,} characters"
    assert ROWS["steps of the base"] == f"{job.MOST_STEPS}"
    assert ROWS["side of an image"] == f"{job.LEAST_SIDE} to {job.MOST_SIDE:,} pixels"
    assert ROWS["images of a job"] == f"{job.MOST_IMAGES}"
    asked = ServeSettings()
    assert ROWS["images that wait"] == f"{asked.most_waiting}, {asked.most_of_client} of a client"
    assert ROWS["time of a job"].startswith(f"{asked.deadline:g} seconds")
    linked = ROWS["images behind links that are not on the disk"]
    assert linked == f"{limits.MOST_LINKED:,} bytes"
    assert limits.WRONG_KEY_SECONDS == 1 and limits.LINK_SECONDS == 3600
    assert ROWS["wrong keys"] == f"one second each, {limits.MOST_WRONG_KEYS} at once"
    assert ROWS["links without a key"] == f"one hour, {limits.MOST_LINKS:,}"
