"""What lasts: listing, deleting, room, full disks, and stores that a kill left torn."""

from __future__ import annotations

import asyncio
import errno
import io
import sqlite3
import time
from types import SimpleNamespace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calotype.errors import CalotypeError
from calotype.serving.front import store as module
from calotype.serving.front.errors import ApiError
from calotype.serving.front.jobs import Job, JobImage, Mask
from calotype.serving.front.revive import MOST_STARTS, Pixels
from calotype.serving.front.store import Store
from calotype.storage.lock import Busy

RECIPE = (
    '{"kind": "sample", "caption": "found", "seed": 9223372036854775807,'
    ' "model": {"name": "default"}}'
)


def png(recipe=RECIPE):
    info = PngInfo()
    info.add_text("calotype", recipe)
    buffer = io.BytesIO()
    Image.new("RGB", (5, 3)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def name(number):
    return f"{number:022d}"


@pytest.fixture
def job(submission):
    """Make a job of given images: `job(1, 2, prompt="a fox")`."""

    def make(*numbers, prompt="a fox", number=0, **rest):
        wanted = submission(prompt, request={"n": len(numbers)}, **rest)
        images = [JobImage(name(one), index, one, "png") for index, one in enumerate(numbers)]
        return Job(f"job{number}{numbers}", wanted, images, {"model": "default"})

    return make


def opened(folder, test, **options):
    async def run():
        store = Store(folder, **options)
        try:
            return await test(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def fill(store, made, data=None):
    await store.add(made)
    for image in made.images:
        image.width, image.height, image.state = 5, 3, "done"
        image.recipe = {"caption": made.request.prompt}
        assert await store.keep(made, image, data or png())
    made.ended = 1.0
    await store.end(made)


def test_images_are_listed_newest_first_page_by_page(tmp_path, job) -> None:
    async def test(store):
        await fill(store, job(*range(1, 8)))
        seen, cursor = [], None
        while True:
            page = await store.listing(None, cursor=cursor, limit=3)
            seen += [image.seed for image in page.images]
            if (cursor := page.next) is None:
                return seen

    assert opened(tmp_path, test) == [7, 6, 5, 4, 3, 2, 1]


def test_a_search_takes_its_text_for_what_it_is(tmp_path, job) -> None:
    async def test(store):
        for number, prompt in enumerate(("a Fox", "100% fox", "a_b", "axb", "back\\slash"), 1):
            await fill(store, job(number, prompt=prompt))
        found = {}
        for text in ("fox", "%", "_", "\\", "wolf", ""):
            images = (await store.listing(None, search=text)).images
            found[text] = sorted(image.seed for image in images)
        return found

    assert opened(tmp_path, test) == {
        "fox": [1, 2],
        "%": [2],
        "_": [3],
        "\\": [5],
        "wolf": [],
        "": [1, 2, 3, 4, 5],
    }


def test_a_false_cursor_is_told(tmp_path) -> None:
    for cursor in ("x", "e30", "!!!!", "W10"):
        with pytest.raises(ApiError) as found:
            opened(tmp_path, lambda store, cursor=cursor: store.listing(None, cursor=cursor))
        assert (found.value.status, found.value.param) == (400, "cursor")


def test_other_keys_see_nothing(tmp_path, job) -> None:
    from calotype.serving.front.jobs import Owner

    async def test(store):
        await fill(store, job(1, owner=Owner("ann", "1")))
        seen = [(await store.listing(key)).images for key in ("ann", "ben", None)]
        assert await store.find(name(1), "ben") is None
        assert not await store.restore(name(1), "ben")
        return [len(images) for images in seen]

    assert opened(tmp_path, test) == [1, 0, 0]


def test_what_is_deleted_can_come_back_for_a_minute(tmp_path, job) -> None:
    async def test(store):
        await fill(store, job(1, 2))
        first = await store.find(name(1), None)
        second = await store.find(name(2), None)
        await store.delete(first)
        await store.delete(second)
        assert not (await store.listing(None)).images
        assert await store.restore(name(1), None) and not await store.restore(name(3), None)
        await store.clean(0.0, hidden_before=1e12)
        assert not await store.restore(name(2), None)
        assert await store.read(first) == png() and await store.read(second) is None
        return [image.id for image in (await store.listing(None)).images]

    assert opened(tmp_path, test) == [name(1)]
    assert len([*tmp_path.rglob("*.png")]) == 1


def test_the_oldest_make_room_but_favourites_stay(tmp_path, job) -> None:
    async def test(store):
        await fill(store, job(1, 2))
        await store.set_favourite(await store.find(name(1), None), True)
        await fill(store, job(3, 4))
        kept = [image.seed for image in (await store.listing(None)).images]
        liked = [image.seed for image in (await store.listing(None, favourite=True)).images]
        return kept, liked

    assert opened(tmp_path, test, keep_bytes=2 * len(png())) == ([4, 1], [1])


def test_a_folder_beyond_its_bytes_makes_room_when_it_is_opened(tmp_path, job) -> None:
    async def begin(store):
        await fill(store, job(1, 2, 3))
        await fill(store, job(4, number=1))
        await store.set_favourite(await store.find(name(1), None), True)

    async def after(store):
        jobs = [[image.seed for image in one.images] for one in await store.revive(2.0)]
        return [image.seed for image in (await store.listing(None)).images], jobs

    opened(tmp_path, begin)
    assert opened(tmp_path, after, keep_bytes=2 * len(png())) == ([4, 1], [[1], [4]])
    assert len([*tmp_path.rglob("*.png")]) == 2
    # A job without an image is none.
    assert opened(tmp_path, after, keep_bytes=0) == ([1], [[1]])


def test_a_job_goes_on_whose_first_images_made_room(tmp_path, job) -> None:
    async def begin(store):
        made = job(1, 2, outlives=True)
        await store.add(made)
        made.images[0].state = "done"
        assert await store.keep(made, made.images[0], png())

    async def after(store):
        (revived,) = await store.revive(2.0)
        (image,) = revived.images
        return image.seed, await store.keep(revived, image, b"")

    opened(tmp_path, begin)
    assert opened(tmp_path, after, keep_bytes=0) == (2, True)


def test_what_favourites_leave_no_room_for_is_not_called_kept(tmp_path, job) -> None:
    async def test(store):
        one, other = job(1), job(2, number=1)
        await fill(store, one)
        await store.set_favourite(await store.find(name(1), None), True)
        await store.add(other)
        kept = await store.keep(other, other.images[0], png())
        return kept, store.is_keeping, "--keep-bytes" in store.why_not

    assert opened(tmp_path, test, keep_bytes=len(png())) == (False, False, True)


@pytest.mark.parametrize(("seconds", "is_back"), [(59.9, True), (60.1, False), (1e6, False)])
def test_a_minute_to_undo(tmp_path, job, monkeypatch, seconds, is_back) -> None:
    async def test(store):
        await fill(store, job(1))
        await store.delete(await store.find(name(1), None))
        later = time.time() + seconds
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: later))
        assert module.file_of(tmp_path, name(1), "png").exists()  # nobody has cleaned
        return await store.restore(name(1), None), await store.find(name(1), None) is not None

    assert opened(tmp_path, test) == (is_back, is_back)


def test_two_servers_never_share_a_folder(tmp_path) -> None:
    async def test(_):
        with pytest.raises(Busy, match="another process works in"):
            Store(tmp_path)

    opened(tmp_path, test)
    opened(tmp_path, lambda store: asyncio.sleep(0))  # and it is free again


def test_a_full_disk_keeps_nothing_and_says_so(tmp_path, job, monkeypatch) -> None:
    real = module.write_file

    def full(*_, **__):
        raise CalotypeError("cannot write") from OSError(errno.ENOSPC, "No space left")

    async def test(store):
        made = job(1)
        await store.add(made)
        monkeypatch.setattr(module, "write_file", full)
        assert not await store.keep(made, made.images[0], png()) and not store.is_keeping
        monkeypatch.setattr(module, "write_file", real)
        return await store.keep(made, made.images[0], png()), store.is_keeping

    assert opened(tmp_path, test) == (True, True)


def test_a_file_whose_row_waits_is_adopted_by_it(tmp_path, job) -> None:
    async def begin(store):
        made = job(1, outlives=True)
        await store.add(made)
        path = module.file_of(tmp_path, name(1), "png")
        path.parent.mkdir(parents=True)
        path.write_bytes(png())  # and then the kill

    async def after(store):
        (revived,) = await store.revive(2.0)
        images = (await store.listing(None)).images
        return revived.state, [(image.prompt, image.width, image.height) for image in images]

    opened(tmp_path, begin)
    assert opened(tmp_path, after) == ("done", [("a fox", 5, 3)])


def test_files_of_a_lost_database_are_adopted_by_their_recipe(tmp_path, job) -> None:
    opened(tmp_path, lambda store: fill(store, job(1)))
    for path in tmp_path.glob("serve.sqlite*"):
        path.unlink()
    file = module.file_of(tmp_path, name(1), "png")
    for stem, data in (("plain" * 4 + "xx", png("{}")), ("broken" * 3 + "xxxx", b"no image")):
        module.file_of(tmp_path, stem, "png").parent.mkdir(exist_ok=True)
        module.file_of(tmp_path, stem, "png").write_bytes(data)
    file.with_name(f".{file.name}.12345678.tmp").write_bytes(b"half")
    for _ in range(2):  # once, however often
        (image,) = opened(tmp_path, lambda store: store.listing(None)).images
        assert (image.prompt, image.seed, image.job) == ("found", 2**63 - 1, None)
        assert (image.model, image.kind) == ("default", "sample")
    assert not [*tmp_path.rglob("*.tmp")]


def test_a_row_without_its_file_is_gone(tmp_path, job) -> None:
    opened(tmp_path, lambda store: fill(store, job(1, 2)))
    module.file_of(tmp_path, name(1), "png").unlink()
    (image,) = opened(tmp_path, lambda store: store.listing(None)).images
    assert image.seed == 2


def test_jobs_go_on_start_over_or_are_interrupted(tmp_path, job) -> None:
    async def begin(store):
        free, bound, tried = job(1, 2, outlives=True), job(3), job(4, outlives=True, number=2)
        for made in (free, bound, tried):
            await store.add(made)
        for image, starts in (
            (free.images[0], 1),
            (bound.images[0], 1),
            (tried.images[0], MOST_STARTS),
        ):
            image.starts = starts
            await store.starts(image)

    async def after(store):
        jobs = await store.revive(2.0)
        return {image.seed: (image.state, job.is_over) for job in jobs for image in job.images}

    opened(tmp_path, begin)
    first = opened(tmp_path, after)
    assert first == {
        1: ("queued", False),
        2: ("queued", False),
        3: ("interrupted", True),
        4: ("failed", True),
    }
    assert opened(tmp_path, after) == first


def test_what_a_job_edits_comes_back_with_it(tmp_path, job) -> None:
    source = Pixels("s", 2, 1, bytes(8))
    mask = Mask("m", 2, 1, b"\0\xff")

    async def after(store):
        (revived,) = await store.revive(2.0)
        asked = revived.submission
        revived.ended = 3.0
        await store.end(revived)
        return asked.source, asked.mask

    made = job(1, outlives=True, source=source, mask=mask)
    opened(tmp_path, lambda store: store.add(made))
    assert opened(tmp_path, after) == (source, mask)
    assert not [*(tmp_path / "inputs").iterdir()]


def test_jobs_that_were_over_long_ago_are_forgotten_but_not_their_images(tmp_path, job) -> None:
    async def test(store):
        await fill(store, job(1))
        await store.clean(1e12, hidden_before=0.0)
        return await store.revive(2.0), len((await store.listing(None)).images)

    assert opened(tmp_path, test) == ([], 1)


def test_the_database_is_written_through(tmp_path) -> None:
    async def test(store):
        rows = store._rows._db
        return [
            rows.execute(f"PRAGMA {one}").fetchone()[0] for one in ("journal_mode", "synchronous")
        ]

    assert opened(tmp_path, test) == ["wal", 2]


def test_a_database_that_is_none_or_of_later_is_told(tmp_path) -> None:
    (tmp_path / "serve.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(CalotypeError, match="cannot use"):
        Store(tmp_path)
    (tmp_path / "serve.sqlite").unlink()
    later = sqlite3.connect(tmp_path / "serve.sqlite")
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(CalotypeError, match="later calotype"):
        Store(tmp_path)


def test_the_folder_is_its_owners(tmp_path) -> None:
    folder = tmp_path / "new" / "data"
    opened(folder, lambda store: asyncio.sleep(0))
    assert folder.stat().st_mode & 0o777 == 0o700
