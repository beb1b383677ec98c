import itertools
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import batches
from calotype.data.example import Caption, Example
from calotype.data.folder import FolderSource
from calotype.data.images import BrokenImage
from calotype.data.painting import composite
from calotype.data.prefetch import prefetched
from calotype.data.resize import area_resize
from calotype.data.source import ListSource
from calotype.errors import CalotypeError, ConfigError

CAPTIONS = (Caption("plain"), Caption("on blue", (0, 0, 255)))


def examples(count, side=16, captions=CAPTIONS):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 4), dtype=np.uint8)
    return [Example(f"key{i}", image, captions) for i, image in enumerate(images)]


class Damaged(ListSource):
    """A source some of whose images are broken; counts how often each is read."""

    def __init__(self, examples, broken=()):
        super().__init__(examples)
        self.broken = set(broken)
        self.reads = []

    def __getitem__(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise BrokenImage("truncated")
        return self.examples[index]


def take(source, count, *, config=None, start=0, prefetch=3, **options):
    settings = {"resolution": 16, "lowres_resolution": None, "batch_size": 4, "seed": 0}
    made = batches(
        source,
        BatchPlan(config=DataConfig() if config is None else config, **(settings | options)),
        start_position=start,
        prefetch=prefetch,
    )
    taken = list(itertools.islice(made, count))
    made.close()
    return taken


def same(a, b):
    assert a.captions == b.captions
    assert a.keys == b.keys
    assert torch.equal(a.x, b.x)
    assert (a.lowres is None) == (b.lowres is None)
    assert a.lowres is None or torch.equal(a.lowres, b.lowres)


def test_composite_against_the_formula():
    pixels = np.array([[[[255, 0, 100, 255]], [[10, 20, 30, 0]], [[200, 100, 0, 51]]]], np.uint8)
    found = composite(pixels, np.array([[0, 255, 255]], np.float32))
    expected = np.array([[255, 0, 100], [0, 255, 255], [40, 224, 204]]) / 127.5 - 1
    np.testing.assert_allclose(found[0, :, 0], expected, atol=1e-6)


def test_images_are_painted_over_their_captions_background():
    clear = np.zeros((8, 8, 4), np.uint8)
    captions = (Caption("on blue", (0, 0, 255)), Caption("plain"), Caption("on red", (255, 0, 0)))
    source = ListSource([Example("a", clear, captions)])
    wanted = {"on blue": (-1, -1, 1), "plain": (1, 1, 1), "on red": (1, -1, -1)}
    seen = set()
    for batch in take(source, 5, resolution=8):
        for x, caption in zip(batch.x, batch.captions, strict=True):
            assert x[:, 3, 3].tolist() == pytest.approx(wanted[caption])
            seen.add(caption)
    assert seen == set(wanted)


def test_each_epoch_shows_every_image_once():
    keys = [key for batch in take(ListSource(examples(10)), 5) for key in batch.keys]
    assert sorted(keys[:10]) == sorted(keys[10:]) == sorted(f"key{i}" for i in range(10))
    assert keys[:10] != keys[10:]


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("crops", [1, 3])
def test_resuming_gives_the_same_batches(prefetch, crops):
    config = DataConfig(crop=8, crops_per_image=crops, flip=True, cache_bytes=5000)
    options = {"config": config, "lowres_resolution": 4}
    whole = take(ListSource(examples(23)), 9, **options)
    for count in (1, 5):
        position = whole[count].position
        resumed = take(ListSource(examples(23)), 4, start=position, prefetch=prefetch, **options)
        for a, b in zip(whole[count:], resumed, strict=False):
            same(a, b)


def test_another_seed_gives_other_batches():
    source = ListSource(examples(10))
    assert take(source, 1)[0].keys != take(source, 1, seed=1)[0].keys


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_same_global_order(world_size):
    config = DataConfig(crop=8, flip=True)
    options = {"config": config, "batch_size": 8}
    alone = take(ListSource(examples(11)), 3, **options)
    parts = [
        take(ListSource(examples(11)), 3, rank=rank, world_size=world_size, **options)
        for rank in range(world_size)
    ]
    for number, whole in enumerate(alone):
        for rank in range(world_size):
            part = parts[rank][number]
            assert part.keys == whole.keys[rank::world_size]
            assert part.captions == whole.captions[rank::world_size]
            assert torch.equal(part.x, whole.x[rank::world_size])
            assert part.position == whole.position


def test_lowres_is_the_box_average_of_the_same_crop():
    config = DataConfig(crop=8)
    (batch,) = take(ListSource(examples(6)), 1, config=config, lowres_resolution=4)
    assert batch.x.shape == (4, 3, 8, 8)
    assert batch.lowres.shape == (4, 3, 2, 2)
    torch.testing.assert_close(batch.lowres, area_resize(batch.x, 2))


def test_crops_start_on_the_low_resolution_grid_and_reach_every_place():
    rows, columns = np.mgrid[0:16, 0:16].astype(np.uint8)
    image = np.stack([rows, columns, rows * 0, rows * 0 + 255], axis=-1)
    source = ListSource([Example("a", image, ())])
    places = set()
    for batch in take(source, 40, config=DataConfig(crop=8), lowres_resolution=4):
        corners = torch.round((batch.x[:, :2, 0, 0] + 1) * 127.5).int()
        places |= {tuple(corner) for corner in corners.tolist()}
    assert places == {(r, c) for r in (0, 4, 8) for c in (0, 4, 8)}


def test_flipping_mirrors_about_half():
    image = np.zeros((4, 4, 4), np.uint8)
    image[...] = 255
    image[:, :2, :3] = 0
    source = ListSource([Example("a", image, ())])
    config = DataConfig(flip=True)
    left_dark = torch.cat(
        [b.x[:, 0, 0, 0] < 0 for b in take(source, 50, resolution=4, config=config)]
    )
    assert 70 < left_dark.sum() < 130
    plain = take(source, 10, resolution=4)
    assert all((b.x[:, 0, 0, 0] < 0).all() for b in plain)


def test_several_crops_of_an_image_decode_it_once():
    source = Damaged(examples(200))
    config = DataConfig(crop=8, crops_per_image=4, cache_bytes=0)
    taken = take(source, 100, config=config, prefetch=0)
    keys = [key for batch in taken for key in batch.keys]
    # 400 positions, 100 new images, and 48 of the epoch before whose crops are still due, of
    # which some are among the 100.
    assert 100 <= len(source.reads) <= 100 + 48
    assert len(set(keys[100:140])) > 30
    epoch = [k for b in take(source, 200, config=config, prefetch=0) for k in b.keys]
    counts = {key: epoch.count(key) for key in set(epoch)}
    assert max(counts.values()) <= 8


def test_without_room_every_image_is_decoded_each_time_and_with_room_once():
    for room, reads in [(0, 40), (16 * 16 * 4 * 5, 25), (10**9, 10)]:
        source = Damaged(examples(10))
        config = DataConfig(cache_bytes=room)
        taken = take(source, 8, config=config, batch_size=5, prefetch=0)
        assert len(source.reads) == reads
        for a, b in zip(taken, take(ListSource(examples(10)), 8, batch_size=5), strict=True):
            same(a, b)


def test_broken_images_are_replaced_counted_and_never_seen():
    whole = take(Damaged(examples(20)), 10)
    source = Damaged(examples(20), broken={3, 11})
    taken = take(source, 10)
    assert source.report.broken == {"key3": "truncated", "key11": "truncated"}
    keys = [key for batch in taken for key in batch.keys]
    assert not {"key3", "key11"} & set(keys)
    for before, after in zip([k for b in whole for k in b.keys], keys, strict=True):
        assert before == after or before in {"key3", "key11"}
    resumed = take(Damaged(examples(20), broken={3, 11}), 3, start=taken[6].position)
    for a, b in zip(taken[6:], resumed, strict=False):
        same(a, b)


def test_too_many_broken_images_are_an_error():
    source = Damaged(examples(10), broken={1, 2, 3})
    with pytest.raises(CalotypeError, match=r"3 of 10 images are broken.*20%.*truncated"):
        take(source, 5)
    everything = Damaged(examples(3), broken={0, 1, 2})
    with pytest.raises(CalotypeError, match="none of the 3 images can be used"):
        take(everything, 1, config=DataConfig(broken_fraction=1.0))


def test_small_images_can_be_left_out():
    mixed = [*examples(6, side=16), Example("small", examples(1, side=8)[0].image, ())]
    source = ListSource(mixed)
    taken = take(source, 7, config=DataConfig(small="skip"))
    assert "small" not in {key for batch in taken for key in batch.keys}
    assert source.report.skipped == {"small": "got 8x8 pixels; expected at least 16"}
    assert source.report.broken == {}


def test_no_captions_train_as_unconditional():
    source = ListSource([Example("a", examples(1)[0].image, ())])
    assert set(take(source, 1)[0].captions) == {""}


def test_images_are_channels_last_and_in_range():
    (batch,) = take(ListSource(examples(4)), 1)
    assert batch.x.is_contiguous(memory_format=torch.channels_last)
    assert batch.x.dtype == torch.float32
    assert batch.x.min() >= -1
    assert batch.x.max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"config": DataConfig(crop=17)}, "got crop=17; expected 1 to 16"),
        ({"config": DataConfig(crop=6), "lowres_resolution": 4}, "expected a multiple of 4"),
        ({"lowres_resolution": 5}, "expected a divisor"),
        ({"batch_size": 3, "world_size": 2}, "got batch_size=3 for 2 processes"),
        ({"rank": 2, "world_size": 2}, "got rank=2"),
    ],
)
def test_settings_that_do_not_fit(options, message):
    with pytest.raises(ConfigError, match=message):
        take(ListSource(examples(2)), 1, **options)


def test_images_that_vanish_under_a_run_are_counted(tmp_path):
    for number in range(10):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    source = FolderSource(tmp_path)
    made = batches(
        source,
        BatchPlan(
            resolution=16,
            lowres_resolution=None,
            config=DataConfig(cache_bytes=0),
            batch_size=2,
            seed=0,
        ),
        prefetch=0,
    )
    next(made)
    before = source.fingerprint
    (tmp_path / "3.png").unlink()
    later = {key for batch in itertools.islice(made, 5, 20) for key in batch.keys}
    assert later == {f"{n}.png" for n in range(10) if n != 3}
    assert source.report.broken == {"3.png": "cannot be read: No such file or directory"}
    assert FolderSource(tmp_path).fingerprint != before
    made.close()


def threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("calotype")}


def test_closing_stops_the_threads():
    made = batches(
        ListSource(examples(4)),
        BatchPlan(resolution=16, lowres_resolution=None, config=DataConfig(), batch_size=2, seed=0),
        prefetch=2,
    )
    next(made)
    assert "calotype-prefetch_0" in threads()
    made.close()
    assert not threads()


def test_prefetching_is_bounded_and_off_the_consumers_thread():
    made = []

    def items():
        for i in range(100):
            made.append(threading.current_thread().name)
            yield i

    ahead = prefetched(items(), 3)
    assert next(ahead) == 0
    time.sleep(0.2)
    # One was taken, three wait, and one more was in work.
    assert len(made) == 5
    assert set(made) == {"calotype-prefetch_0"}
    ahead.close()
    assert list(prefetched(iter(range(20)), 3)) == list(range(20))


def test_errors_of_the_background_thread_arrive_in_their_place():
    def items():
        yield 1
        raise CalotypeError("boom")

    ahead = prefetched(items(), 2)
    assert next(ahead) == 1
    with pytest.raises(CalotypeError, match="boom"):
        next(ahead)
    assert not threads()
