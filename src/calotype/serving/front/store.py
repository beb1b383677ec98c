"""What lasts: images as files, and in a database what they are and which jobs are not over.

An image's file is written before its row says that it is there, and removed before its row goes:
after a kill between the two, `mend` finds a file without a word of it, or a word without a file.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from calotype.errors import CalotypeError
from calotype.serving.front.adopt import file_of, mend
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Job, JobImage
from calotype.serving.front.revive import ends, job_rows, remove_inputs, revived, write_inputs
from calotype.serving.front.rows import KeptImage, Rows
from calotype.storage.files import is_full, make_folder, write_file
from calotype.storage.lock import locked
from calotype.storage.reading import read_regular

UNDO_SECONDS = 60.0
MOST_LISTED = 200
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_SHMSIZE")  # the second: of the memory of its WAL

Found = TypeVar("Found")


class NoRoom(CalotypeError):
    """The disk has no room for what a store begins with."""


@dataclass(frozen=True)
class Listing:
    """Images, newest first, and where the next ones begin; None = there are no more."""

    images: list[KeptImage]
    next: str | None


class Store:
    """A locked folder; its methods wait for the disk in a thread, in the order of their calls.

    Args:
        folder: made where it is missing.
        keep_bytes: of all files at most, also of those that are there; the oldest that are no
            favourites go. None = no limit.

    Attributes:
        is_keeping: whether the disk took the last image, and all that came since.
        why_not: what the disk said, else.
        on_change: told of both when they change.

    Raises:
        Busy: another server has the folder.
        NoRoom: its disk is too full to begin.
        CalotypeError: it cannot be written to, or its database cannot be used.
    """

    def __init__(self, folder: Path, *, keep_bytes: int | None = None) -> None:
        self.folder = folder
        self.is_keeping = True
        self.why_not = ""
        self.on_change: Callable[[bool, str], None] = lambda *_: None
        self._keep_bytes = keep_bytes
        self._open = ExitStack()
        try:
            make_folder(folder, private=True)  # captions and images are their owner's
            self._open.enter_context(locked(folder / "serve.lock"))
            self._rows = Rows(folder / "serve.sqlite")
            self._open.callback(self._rows.close)
            mend(self._rows, folder)
            with suppress(OSError, sqlite3.OperationalError):  # the next image tries again
                self._make_room()
        except BaseException as error:
            self._open.close()
            if _has_no_room(error):
                raise NoRoom(f"the disk of {folder} is full: {error}") from error
            if isinstance(error, sqlite3.Error):
                raise CalotypeError(
                    f"cannot use {folder / 'serve.sqlite'}: {error}; move it away to begin anew: "
                    "images are found again by their files"
                ) from error
            raise
        self._thread = ThreadPoolExecutor(1, "store")

    async def close(self) -> None:
        """Write what is under way, and unlock the folder."""
        await asyncio.to_thread(self._thread.shutdown)
        self._open.close()

    async def revive(self, now: float) -> list[Job]:
        """Jobs of earlier servers: those that outlive their clients go on, others are over."""
        return await self._do(lambda: revived(self._rows, self.folder, now))

    async def add(self, job: Job) -> None:
        """Note a job down, with what it edits where it outlives its client."""
        row, images = job_rows(job)

        def write() -> None:
            write_inputs(job, self.folder)
            self._rows.add_job(row, images)

        await self._try(write)

    async def starts(self, image: JobImage) -> None:
        """Note down that an image's computing begins."""
        starts = image.starts
        await self._try(lambda: self._rows.change_image(image.id, state="running", starts=starts))

    async def keep(self, job: Job, image: JobImage, data: bytes) -> bool:
        """Keep a finished image; False = the disk does not take it, or there is no room for it."""
        # Its row may be missing: the disk was full when the job came. So may images before it.
        row = next(one for one in job_rows(job)[1] if one["id"] == image.id)
        values = {"state": "done", "width": image.width, "height": image.height}
        values |= {"bytes": len(data), "created": time.time(), "starts": image.starts}
        recipe = json.dumps(image.recipe)

        def write() -> None:
            path = file_of(self.folder, image.id, image.format)
            make_folder(path.parent)
            write_file(path, data)
            self._rows.put_image(row, {**values, "recipe": recipe})
            self._make_room()

        if not await self._try(write):
            return False
        if await self._do(lambda: self._rows.image(image.id)) is None:  # it made room itself
            self._say("favourites, or one image, take all of --keep-bytes; allow more")
            return False
        self._say("")
        return True

    async def end(self, job: Job) -> None:
        """A job is over."""
        images = ends(job)
        ended = job.ended if job.ended is not None else time.time()

        def write() -> None:
            self._rows.end_job(job.id, ended, images)
            remove_inputs(job.id, self.folder)

        await self._try(write)

    async def listing(
        self,
        key_name: str | None,
        *,
        cursor: str | None = None,
        limit: int = 50,
        search: str = "",
        favourite: bool = False,
    ) -> Listing:
        """Images of a key's, newest first.

        Args:
            key_name: whose; None = of a server without keys.
            cursor: `next` of the listing before; None = from the newest.
            limit: images at most, up to 200.
            search: words that captions hold, all of them, in any case of ASCII letters.
            favourite: favourites alone.

        Raises:
            ApiError: the cursor is none.
        """
        before = None if cursor is None else _place(cursor)
        limit = min(max(limit, 1), MOST_LISTED)
        found = await self._do(
            lambda: self._rows.listed(
                key_name, before, limit + 1, search=search, favourite=favourite
            )
        )
        more = len(found) > limit
        return Listing(found[:limit], _cursor(found[limit - 1]) if more else None)

    async def find(self, image_id: str, key_name: str | None) -> KeptImage | None:
        """An image of a key's that is kept and not deleted."""
        return await self._do(lambda: self._rows.find(image_id, key_name))

    async def read(self, image: KeptImage) -> bytes | None:
        """Its file; None = somebody took it away."""

        def read() -> bytes | None:
            try:
                return read_regular(file_of(self.folder, image.id, image.format))
            except OSError:
                return None

        return await asyncio.to_thread(read)

    async def set_favourite(self, image: KeptImage, favourite: bool) -> None:
        """Favourites are never removed to make room."""
        await self._do(lambda: self._rows.change_image(image.id, favourite=int(favourite)))

    async def delete(self, image: KeptImage) -> None:
        """Hide an image; a minute later it goes for good."""
        now = time.time()
        await self._do(lambda: self._rows.change_image(image.id, deleted=now))

    async def restore(self, image_id: str, key_name: str | None) -> bool:
        """Bring back a hidden image; False = it is too late, or there never was one."""
        since = time.time() - UNDO_SECONDS  # its file may still be there: `clean` comes by later

        def write() -> bool:
            row = self._rows.image(image_id)
            if row is None or row["key_name"] != key_name or (row["deleted"] or 0.0) < since:
                return False
            self._rows.change_image(image_id, deleted=None)
            return True

        return await self._do(write)

    async def clean(self, jobs_ended_before: float, *, hidden_before: float) -> None:
        """Remove images that were hidden, and forget jobs that were over, before a time."""

        def write() -> None:
            self._remove(self._rows.hidden(hidden_before))
            self._rows.forget_jobs(jobs_ended_before)

        await self._try(write)

    def _make_room(self) -> None:
        if self._keep_bytes is not None:
            self._remove(self._rows.oldest_beyond(self._keep_bytes))

    def _remove(self, images: Sequence[tuple[str, str]]) -> None:
        """Images by id and format."""
        gone: list[str] = []
        try:
            for image_id, kind in images:
                file_of(self.folder, image_id, kind).unlink(missing_ok=True)
                gone.append(image_id)
        finally:
            self._rows.remove(*gone)

    async def _do(self, work: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _try(self, write: Callable[[], None]) -> bool:
        """Write, and remember whether the disk takes it; what fails is only not kept."""
        try:
            await self._do(write)
        except (CalotypeError, OSError, sqlite3.Error) as error:
            self._say(str(error))
            return False
        return True

    def _say(self, why_not: str) -> None:
        was_keeping, self.is_keeping, self.why_not = self.is_keeping, not why_not, why_not
        if was_keeping != self.is_keeping:
            self.on_change(self.is_keeping, why_not)


def _has_no_room(error: BaseException) -> bool:
    found: BaseException | None = error
    while found is not None:
        if getattr(found, "sqlite_errorname", None) in _NO_ROOM:
            return True
        found = found.__cause__
    return is_full(error)


def _cursor(image: KeptImage) -> str:
    text = json.dumps([image.created, image.id])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[float, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        created, image_id = json.loads(text)
        return float(created), str(image_id).encode("ascii").decode()
    except (ValueError, TypeError) as error:
        message = "got a cursor that is none; expected `next` of the listing before"
        raise ApiError(400, message, code="invalid_value", param="cursor") from error
