"""Jobs as rows, and back: what goes on when a server comes up after another was killed."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from calotype.errors import CalotypeError
from calotype.serving.front.jobs import Job, JobImage, Mask, Owner, Source, Submission
from calotype.serving.front.rows import Rows
from calotype.serving.job import JobRequest
from calotype.storage.files import make_folder, remove_leftovers, write_file

MOST_STARTS = 3
"""Of an image that servers were killed over: once, and over again twice."""
_GONE = "the server went down while it was made, and whoever asked for it is gone"
_TOO_OFTEN = f"the server went down {MOST_STARTS} times while it was made; change its settings"
_PLAIN = ("api", "request_id", "previews", "preview_size", "preview_side", "preview_format",
          "idempotency_key", "outlives", "fetched_later")  # fmt: skip


@dataclass(frozen=True)
class Pixels:
    """A source that was kept for a job; as `Source`."""

    sha256: str
    width: int
    height: int
    rgba: bytes = field(repr=False)


def job_rows(job: Job) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rows of a job and of its images."""
    asked = job.submission
    facts: dict[str, Any] = {name: getattr(asked, name) for name in _PLAIN}
    facts |= {"request": asked.request.model_dump(mode="json"), "address": asked.owner.address}
    facts |= {
        "body": job.body,
        "plan": job.plan,
        "source": _size(asked.source),
        "mask": _size(asked.mask),
    }
    key_name = asked.owner.key_name
    row = {"id": job.id, "created": job.created, "key_name": key_name, "facts": json.dumps(facts)}
    model = job.plan.get("model", asked.request.model)
    common = {"job": job.id, "key_name": key_name, "state": "queued", "created": job.created}
    common |= {"prompt": asked.request.prompt, "model": model, "kind": asked.request.kind}
    return row, [
        {"id": one.id, "place": one.index, "seed": one.seed, "format": one.format, **common}
        for one in job.images
    ]


def ends(job: Job) -> dict[str, dict[str, Any]]:
    """How its images ended, as columns by image."""
    return {
        one.id: {
            "state": one.state,
            "error": None if one.error is None else json.dumps(one.error),
        }
        for one in job.images
    }


def write_inputs(job: Job, folder: Path) -> None:
    """Keep what a job edits, where it may have to start over."""
    if not job.outlives:
        return
    source, mask = job.submission.source, job.submission.mask
    data = (None if source is None else source.rgba, None if mask is None else mask.values)
    for path, blob in zip(_inputs(job.id, folder), data, strict=True):
        if blob is not None:
            make_folder(path.parent)
            write_file(path, zlib.compress(blob, 1))


def remove_inputs(job_id: str, folder: Path) -> None:
    """A job is over: nobody starts it again."""
    for path in _inputs(job_id, folder):
        path.unlink(missing_ok=True)


def revived(rows: Rows, folder: Path, now: float) -> list[Job]:
    """All jobs of earlier servers; what is not over goes on, fails or reads `interrupted`."""
    jobs = []
    for row, images in rows.jobs():
        job = _job(row, images, folder)
        if job is None:
            _end(rows, row["id"], now, {})
            continue
        if job.ended is None:
            for image in job.images:
                _settle(job, image)
            if not any(image.is_open for image in job.images):
                job.ended = now
                _end(rows, job.id, now, ends(job))
        jobs.append(job)
    _remove_others(folder, {job.id for job in jobs if job.ended is None})
    return jobs


def _end(rows: Rows, job_id: str, now: float, images: dict[str, dict[str, Any]]) -> None:
    """A job is over; where the disk is full, the next server finds the same."""
    with suppress(sqlite3.OperationalError):
        rows.end_job(job_id, now, images)


def _settle(job: Job, image: JobImage) -> None:
    if not image.is_open:
        return
    if not job.outlives:
        image.state, image.error = "interrupted", (_GONE, "internal")
    elif image.starts >= MOST_STARTS:
        image.state, image.error = "failed", (_TOO_OFTEN, "internal")
    else:
        image.state = "queued"


def _job(row: dict[str, Any], images: list[dict[str, Any]], folder: Path) -> Job | None:
    """None = of a version that said things otherwise, or its images or what it edits are gone."""
    if not images:
        return None
    try:
        facts = json.loads(row["facts"])
        request = JobRequest.model_validate_json(json.dumps(facts["request"]))
        submission = Submission(
            request=request,
            owner=Owner(row["key_name"], facts["address"]),
            **{name: facts[name] for name in _PLAIN},
        )
        if row["ended"] is None and submission.outlives:
            source, mask = _read_inputs(row["id"], facts, folder)
            submission = dataclasses.replace(submission, source=source, mask=mask)
    except (ValidationError, KeyError, TypeError, ValueError, OSError, zlib.error, CalotypeError):
        return None
    return Job(
        row["id"],
        submission,
        [_image(image) for image in images],
        facts["plan"],
        created=row["created"],
        ended=row["ended"],
        body=facts["body"],
    )


def _image(row: dict[str, Any]) -> JobImage:
    return JobImage(
        row["id"],
        row["place"],
        row["seed"],
        row["format"],
        state=row["state"],
        fraction=float(row["state"] == "done"),
        kept=row["bytes"] is not None,
        width=row["width"],
        height=row["height"],
        recipe=None if row["recipe"] is None else json.loads(row["recipe"]),
        error=None if row["error"] is None else tuple(json.loads(row["error"])),
        starts=row["starts"],
    )


def _size(pixels: Source | Mask | None) -> tuple[str, int, int] | None:
    return None if pixels is None else (pixels.sha256, pixels.width, pixels.height)


def _read_inputs(
    job_id: str, facts: dict[str, Any], folder: Path
) -> tuple[Pixels | None, Mask | None]:
    paths = _inputs(job_id, folder)
    blobs: list[Any] = [
        None if size is None else (*size, zlib.decompress(path.read_bytes()))
        for path, size in zip(paths, (facts["source"], facts["mask"]), strict=True)
    ]
    source, mask = blobs
    return (None if source is None else Pixels(*source)), (None if mask is None else Mask(*mask))


def _inputs(job_id: str, folder: Path) -> tuple[Path, Path]:
    return folder / "inputs" / f"{job_id}.source", folder / "inputs" / f"{job_id}.mask"


def _remove_others(folder: Path, open_jobs: set[str]) -> None:
    """Inputs of jobs that are over, and what killed writers left."""
    inputs = folder / "inputs"
    remove_leftovers(inputs, lambda name: True, stale_seconds=0)
    with suppress(OSError):
        for path in sorted(inputs.iterdir()):
            if path.stem not in open_jobs:
                path.unlink()
