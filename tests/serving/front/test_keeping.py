"""The hub with its store: what is kept, found again, forgotten, or returned all the same."""

from __future__ import annotations

import errno
import io
import json
import shutil
import sqlite3
import subprocess
import time

import pytest

from calotype.errors import CalotypeError
from calotype.serving.front import memory as memory_module
from calotype.serving.front import store as store_module
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Owner
from calotype.serving.front.logs import make_log
from calotype.serving.front.rows import Rows

NOBODY, ANN = Owner(None, "10.0.0.1"), Owner("ann", "10.0.0.1")


async def made(hub, submission, **options):
    job = await hub.submit(submission(**options))
    events = [event async for event in hub.events(job)]
    await hub.written()
    return job, events


@pytest.mark.parametrize(
    ("keep", "api", "kept"),
    [
        ("page", "native", True),
        ("page", "openai", False),
        ("all", "openai", True),
        ("none", "native", False),
    ],
)
def test_images_are_kept_as_asked(with_hub, submission, tmp_path, keep, api, kept) -> None:
    async def test(hub):
        job, _ = await made(hub, submission, api=api)
        found = await hub.file(job.images[0].id, NOBODY)
        assert found.data == job.images[0].data and found.format == "png"
        return len((await hub.store.listing(None)).images)

    assert with_hub(test, data=tmp_path, keep=keep) == kept
    assert len([*tmp_path.glob("images/*/*.png")]) == kept


def test_a_full_disk_loses_no_image(with_hub, submission, tmp_path, monkeypatch) -> None:
    def full(*_, **__):
        raise CalotypeError("cannot write") from OSError(errno.ENOSPC, "No space left")

    async def test(hub):
        monkeypatch.setattr(store_module, "write_file", full)
        job, events = await made(hub, submission)
        assert events[-1].kind == "done" and not job.images[0].kept and not hub.store.is_keeping
        assert (await hub.file(job.images[0].id, NOBODY)).data == job.images[0].data
        monkeypatch.undo()
        after, _ = await made(hub, submission)
        return after.images[0].kept, hub.store.is_keeping, job.images[0].id

    kept, keeping, lost = with_hub(test, data=tmp_path)
    assert kept and keeping

    async def later(hub):
        with pytest.raises(ApiError) as found:
            await hub.file(lost, NOBODY)
        return found.value.status

    assert with_hub(later, data=tmp_path) == 404


def test_a_database_that_is_full_stops_no_job(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        hub.store._rows._db.execute("PRAGMA max_page_count = 1")  # what SQLite calls a full disk
        found = []
        for number in range(12):  # until its last page is full
            job, events = await made(hub, submission, prompt=f"{number} " + "x" * 2000)
            found.append(events[-1].kind)
            assert (await hub.file(job.images[0].id, NOBODY)).data
        assert "full" in hub.store.why_not
        return found

    assert with_hub(test, data=tmp_path) == ["done"] * 12


def test_files_are_their_owners(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        statuses = []
        for api in ("native", "openai"):  # from the disk, from memory
            job, _ = await made(hub, submission, owner=ANN, api=api)
            assert (await hub.file(job.images[0].id, ANN)).data
            for other in (NOBODY, Owner("ben", "10.0.0.1")):
                with pytest.raises(ApiError) as found:
                    await hub.file(job.images[0].id, other)
                statuses.append(found.value.status)
        return statuses

    assert with_hub(test, data=tmp_path) == [404] * 4


def test_what_is_deleted_is_not_served_from_memory(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        job, _ = await made(hub, submission)
        await hub.store.delete(await hub.store.find(job.images[0].id, None))
        with pytest.raises(ApiError):
            await hub.file(job.images[0].id, NOBODY)
        assert await hub.store.restore(job.images[0].id, None)
        return (await hub.file(job.images[0].id, NOBODY)).format

    assert with_hub(test, data=tmp_path) == "png"


def test_jobs_go_with_their_connection_unless_they_are_asked_for_later(
    with_hub, submission
) -> None:
    async def test(hub):
        found = []
        for later in (False, True):
            job, _ = await made(hub, submission, api="openai", fetched_later=later)
            hub.release(job)
            try:
                found.append((await hub.file(job.images[0].id, NOBODY)).format)
            except ApiError as error:
                found.append(error.status)
        return found, len(hub.jobs(NOBODY))

    assert with_hub(test) == ([404, "png"], 1)


def test_a_key_joins_its_job_after_a_restart(with_hub, submission, tmp_path) -> None:
    async def first(hub):
        return (await made(hub, submission, idempotency_key="k", prompt="slow"))[0].id

    async def again(hub):
        job, events = await made(hub, submission, idempotency_key="k", prompt="slow")
        with pytest.raises(ApiError) as found:
            await hub.submit(submission("other", idempotency_key="k"))
        kinds = [event.kind for event in events]
        return job.id, kinds, (await hub.file(job.images[0].id, NOBODY)).format, found.value.status

    job_id = with_hub(first, data=tmp_path)
    assert with_hub(again, data=tmp_path) == (job_id, ["image", "done"], "png", 422)


def test_old_jobs_and_their_files_leave_the_memory(with_hub, submission, monkeypatch) -> None:
    async def test(hub):
        jobs = [(await made(hub, submission, outlives=True))[0] for _ in range(4)]
        for job in jobs:
            hub.release(job)
        hub._memory.forget_old()
        assert len(hub.jobs(NOBODY)) == 4  # all are young, and there is room
        monkeypatch.setattr(memory_module, "_MOST_BYTES", 2 * jobs[0].size)
        hub._memory.forget_old()
        assert [job.images[0].data is not None for job in jobs] == [False, False, True, True]
        monkeypatch.setattr(memory_module, "_MOST_OVER", 3)
        assert hub._memory.forget_old() == jobs[:1]
        jobs[1].ended -= memory_module.REMEMBERED_SECONDS + 1
        assert hub._memory.forget_old() == jobs[1:2]
        return hub.jobs(NOBODY) == [jobs[3], jobs[2]]

    assert with_hub(test)


def test_kept_files_stay_in_memory_for_a_minute_only(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        job, _ = await made(hub, submission, previews="steps", preview_side=8, outlives=True)
        hub.release(job)
        assert job.size > 0
        job.ended = time.time() - 61
        hub._memory.forget_old()
        events = [(event.kind, event.blob) async for event in hub.events(job)]
        return job.size, events[-2:], (await hub.file(job.images[0].id, NOBODY)).format

    assert with_hub(test, data=tmp_path) == (0, [("image", None), ("done", None)], "png")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "calotype-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only who may mount file systems can fill one")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_and_has_room_again(with_hub, submission, small_disk) -> None:
    async def test(hub):
        first, _ = await made(hub, submission, outlives=True)
        filler = small_disk / "filler"
        with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        full, events = await made(hub, submission, outlives=True)
        assert events[-1].kind == "done" and full.images[0].data and not hub.store.is_keeping
        filler.unlink()
        after, _ = await made(hub, submission, outlives=True)
        assert hub.store.is_keeping
        return [job.images[0].kept for job in (first, full, after)]

    assert with_hub(test, data=small_disk / "data") == [True, False, True]

    async def listed(hub):
        return len((await hub.store.listing(None)).images), len(hub.jobs(NOBODY))

    assert with_hub(listed, data=small_disk / "data") == (2, 2)


@pytest.mark.parametrize("free", [0, 8192, 40_960])  # of the 100 KB that it begins with
@pytest.mark.parametrize("is_new", [True, False])
def test_a_server_starts_where_its_database_has_no_room(
    with_hub, submission, small_disk, free, is_new
) -> None:
    async def test(hub):
        job, events = await made(hub, submission, outlives=True)
        assert events[-1].kind == "done" and (await hub.file(job.images[0].id, NOBODY)).data
        return hub.store is not None and hub.store.is_keeping

    if not is_new:
        assert with_hub(test, data=small_disk / "data")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with pytest.raises(OSError):
            while True:
                file.write(bytes(4096))
        file.truncate(file.tell() - free)
    assert not with_hub(test, data=small_disk / "data")
    filler.unlink()
    assert with_hub(test, data=small_disk / "data")


def test_a_server_without_its_store_says_so(with_hub, tmp_path, monkeypatch) -> None:
    def full(*_, **__):
        raise CalotypeError("cannot write") from OSError(errno.ENOSPC, "No space left")

    async def test(hub):
        return hub.store, hub.observer.registry.get_sample_value("calotype_keeping")

    monkeypatch.setattr(store_module, "make_folder", full)
    assert with_hub(test, data=tmp_path) == (None, 0.0)
    assert with_hub(test) == (None, 1.0)  # nobody asked for one


def test_a_defect_in_keeping_is_logged_and_the_image_is_answered(
    with_hub, submission, tmp_path, monkeypatch
) -> None:
    def odd(*_, **__):
        raise TypeError("odd")

    told = io.StringIO()

    async def test(hub):
        hub.observer.log = make_log(told)
        monkeypatch.setattr(store_module, "write_file", odd)
        job, events = await made(hub, submission, request_id="r-1")
        assert [event.kind for event in events][-2:] == ["image", "done"]
        return job.id, job.images[0].kept, bool((await hub.file(job.images[0].id, NOBODY)).data)

    job_id, *found = with_hub(test, data=tmp_path)
    assert found == [False, True]
    (line,) = [one for one in map(json.loads, told.getvalue().splitlines()) if "exception" in one]
    assert (line["job"], line["request_id"], line["level"]) == (job_id, "r-1", "error")
    assert "TypeError: odd" in line["exception"]


def test_a_server_starts_on_a_full_disk(with_hub, submission, tmp_path, monkeypatch) -> None:
    async def left(hub):
        await made(hub, submission)
        await hub._admission.job(submission("wait"))  # and then the kill

    async def after(hub):
        new, events = await made(hub, submission)
        return [job.state for job in hub.jobs(NOBODY)], events[-1].kind, bool(new.images[0].data)

    def full(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    with_hub(left, data=tmp_path)
    next(tmp_path.glob("images/*/*")).unlink()  # its row is to go
    for name in ("end_job", "remove", "put_image", "add_job"):
        monkeypatch.setattr(Rows, name, full)
    assert with_hub(after, data=tmp_path) == (["done", "interrupted", "done"], "done", True)


def test_a_database_that_is_damaged_is_told(with_hub, submission, tmp_path) -> None:
    async def test(hub):
        for number in range(20):
            await made(hub, submission, prompt=f"{number} " + "x" * 2000)

    with_hub(test, data=tmp_path)
    file = tmp_path / "serve.sqlite"
    data = bytearray(file.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    file.write_bytes(data)
    with pytest.raises(CalotypeError, match="move it away"):
        store_module.Store(tmp_path)
