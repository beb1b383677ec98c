"""Jobs that are remembered, and how long: neither their number nor their bytes grow for ever."""

from __future__ import annotations

import time

from calotype.serving.front.jobs import Job, JobImage

REMEMBERED_SECONDS = 3600.0
_MOST_OVER = 300  # jobs that are over
_MOST_BYTES = 64 * 2**20  # of files of jobs that are over
_KEPT_SECONDS = 60.0  # that files stay in memory which the store has, too


class Memory:
    """Jobs by id, oldest first."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._images: dict[str, tuple[Job, JobImage]] = {}

    def add(self, job: Job) -> None:
        """Remember a job."""
        self._jobs[job.id] = job
        for image in job.images:
            self._images[image.id] = job, image

    @property
    def is_crowded(self) -> bool:
        """Whether `forget_old` cannot wait."""
        return len(self._jobs) > 1.2 * _MOST_OVER

    def get(self, job_id: str) -> Job | None:
        """A job, whoever's it is."""
        return self._jobs.get(job_id)

    def image(self, image_id: str) -> tuple[Job, JobImage] | None:
        """An image and its job, whoever's it is."""
        return self._images.get(image_id)

    def jobs(self) -> list[Job]:
        """All of them, oldest first."""
        return list(self._jobs.values())

    def forget(self, job: Job) -> None:
        """Nobody will ask for a job again."""
        if self._jobs.pop(job.id, None) is not None:
            for image in job.images:
                del self._images[image.id]

    def forget_old(self) -> list[Job]:
        """Forget what was over long ago, and let go of files; the forgotten jobs."""
        now = time.time()
        over = sorted(
            (job for job in self._jobs.values() if job.is_over and not job.holders),
            key=lambda job: job.ended or 0.0,
        )
        gone = [job for job in over if now - (job.ended or 0.0) > REMEMBERED_SECONDS]
        gone += over[len(gone) : max(len(over) - _MOST_OVER, len(gone))]
        for job in gone:
            self.forget(job)
        held = over[len(gone) :]
        room = _MOST_BYTES
        for job in reversed(held):
            room -= job.size
            is_kept = all(image.kept for image in job.images)
            if room < 0 or (is_kept and now - (job.ended or 0.0) > _KEPT_SECONDS):
                job.shed()
        return gone
