"""Features that are kept: computed once, found again by content, never believed when damaged."""

import hashlib
import operator
import os
import pickle
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from calotype.data.work import Work
from calotype.errors import CalotypeError, NotFiniteError, UsageError
from calotype.evaluation.features import store
from calotype.evaluation.features.extractor import ExtractorSpec, load_extractor
from calotype.evaluation.features.store import (
    ImageChunk,
    StoredFeatures,
    caption_features,
    compute_chunk,
    features_of,
)


class Means:
    """Mean and spread of each colour, and a count of how often it was asked."""

    name, description, dimension = "means", "mean and spread", 6
    device = torch.device("cpu")

    def __init__(self, fingerprint="f" * 64):
        self.fingerprint = self.captions_fingerprint = fingerprint
        self.seen = 0

    def __call__(self, images):
        assert images.dtype == torch.uint8
        self.seen += len(images)
        x = images.float()
        return torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)

    def embed_captions(self, captions):
        self.seen += len(captions)
        return torch.tensor([[float(len(caption))] * 6 for caption in captions])


def image(seed):
    return torch.from_numpy(np.random.RandomState(seed).randint(0, 256, (3, 8, 8)).astype(np.uint8))


def load(seeds, rows):
    return torch.stack([image(seeds[row]) for row in rows])


def chunk(*seeds, side=8):
    hashes = [hashlib.sha256(image(seed).numpy()).hexdigest() for seed in seeds]
    names = [f"image {seed}" for seed in seeds]
    return ImageChunk(names=names, hashes=hashes, side=side, load=partial(load, seeds))


CHUNKS = [chunk(*range(40)), chunk(40), chunk(41, 42)]


def test_what_is_kept_is_not_computed_again(tmp_path):
    extractor = Means()
    first = features_of(CHUNKS, extractor, tmp_path)
    assert extractor.seen == 43
    expected = Means()(load(range(43), range(43)))
    assert torch.equal(first.rows()[:], expected) and first.rows()[:].dtype == torch.float32
    again = features_of(CHUNKS, extractor, tmp_path)
    assert extractor.seen == 43 and again.paths == first.paths
    assert [len(block) for block in again] == [40, 1, 2]
    features_of([*CHUNKS, chunk(43)], extractor, tmp_path)
    assert extractor.seen == 44


def test_all_features_are_in_a_file_that_nobody_sees(tmp_path):
    stored = features_of(CHUNKS, Means(), tmp_path)
    rows = stored.rows()
    assert set(stored.paths[0].parent.iterdir()) == set(stored.paths)
    assert torch.equal(rows[:], Means()(load(range(43), range(43))))


def test_other_images_sides_and_weights_have_features_of_their_own(tmp_path):
    chunks = [chunk(1, 2), chunk(2, 1), chunk(1, 2, side=None), chunk(1, 3)]
    extractor = Means()
    paths = set(features_of(chunks, extractor, tmp_path).paths)
    paths |= set(features_of(chunks, Means("0" * 64), tmp_path).paths)
    assert len(paths) == 8 and extractor.seen == 8


def test_files_are_read_from_the_disk_and_not_held(tmp_path):
    found = features_of(CHUNKS, Means(), tmp_path)
    block = next(iter(found))
    plain = np.load(found.paths[0])  # an ordinary file to numpy
    assert np.array_equal(block.numpy(), plain)
    block += 1  # nor can they be changed by chance
    assert np.array_equal(np.load(found.paths[0]), plain)
    assert isinstance(store._read(found.paths[0]), np.memmap)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "pickle", "other shape", "folder"])
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    extractor = Means()
    path = features_of([chunk(1, 2)], extractor, tmp_path).paths[0]
    whole = path.read_bytes()
    if damage == "folder":
        path.unlink()
        path.mkdir()
        with pytest.raises(CalotypeError, match="cannot write"):
            features_of([chunk(1, 2)], extractor, tmp_path)
        return
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    body = pickle.dumps(Trap(tmp_path / "touched"))
    path.write_bytes({
        "cut": whole[:-1], "bit": bytes(flipped), "empty": b"",
        "pickle": body + hashlib.sha256(body).digest(),
        "other shape": features_of([chunk(3)], extractor, tmp_path).paths[0].read_bytes(),
    }[damage])  # fmt: skip
    before = extractor.seen
    if damage != "other shape":
        with pytest.raises(CalotypeError, match="missing or damaged"):
            StoredFeatures((path,), 6).rows()
    assert torch.equal(
        features_of([chunk(1, 2)], extractor, tmp_path).rows()[:], Means()(load([1, 2], range(2)))
    )
    assert extractor.seen == before + 2 and path.read_bytes() == whole
    assert not (tmp_path / "touched").exists()


class Trap:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (type(self.path).touch, (self.path,))


def test_an_image_without_features_is_named(tmp_path):
    class Broken(Means):
        def __call__(self, images):
            found = super().__call__(images)
            found[-1, 2] = float("nan")
            return found

    with pytest.raises(NotFiniteError, match=r"from means of 'image 7'; expected numbers"):
        features_of([chunk(5, 6, 7)], Broken(), tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


def test_captions_are_kept_likewise(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 2)
    extractor, captions = Means(), ["a fox", "", "a\nfox"]
    for _ in range(2):
        found = caption_features(captions, extractor, tmp_path)
        assert found.rows()[:][:, 0].tolist() == [5, 0, 5]
    assert extractor.seen == 3 and len(found.paths) == 2
    caption_features(["", "a fox"], extractor, tmp_path)
    assert extractor.seen == 5


def test_the_users_cache_is_the_default(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = features_of([chunk(1)], Means()).paths[0]
    assert path.is_relative_to(tmp_path / "calotype/features/means-ffffffffffffffff")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(store, "cache_folder", lambda: None)
    with pytest.raises(UsageError, match="XDG_CACHE_HOME"):
        features_of([chunk(1)], Means())


def test_a_chunk_is_never_empty():
    with pytest.raises(ValueError, match="at least one"):
        ImageChunk(names=[], hashes=[], side=None, load=partial(load, []))


def test_chunks_and_specs_can_be_sent():
    sent = pickle.loads(pickle.dumps(chunk(1, 2)))
    assert torch.equal(sent.load(range(2)), load([1, 2], range(2)))
    assert sent.key("f") == chunk(1, 2).key("f") != sent.key("g")


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
import test_store
from calotype.evaluation.features.store import features_of
class Dies(test_store.Means):
    def __call__(self, images):
        if len(images) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(images)
features_of(test_store.CHUNKS, Dies(), Path({root!r}))
"""


def test_a_kill_costs_the_chunk_in_hand(tmp_path):
    here = __file__.rpartition("/")[0]
    code = KILLED.format(here=here, root=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    extractor = Means()
    found = features_of(CHUNKS, extractor, tmp_path)
    assert extractor.seen == 3 and len(found.rows()) == 43


def test_leftovers_of_the_killed_go(tmp_path):
    folder = features_of([chunk(1)], Means(), tmp_path).paths[0].parent
    left = folder / f".{'a' * 64}.npy.123456789.tmp"
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7200,) * 2)
    features_of([chunk(1)], Means(), tmp_path)
    assert not left.exists()


def test_many_at_once_write_the_same(tmp_path):
    with ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(compute_chunk, CHUNKS[0], Means(), tmp_path) for _ in range(16)]
        paths = {job.result() for job in jobs}
    assert len(paths) == 1
    assert len(StoredFeatures(tuple(paths), 6).rows()) == 40
    assert [path.name for path in paths.pop().parent.iterdir()] == [
        f"{CHUNKS[0].key('f' * 64)}.npy"
    ]


@pytest.mark.slow
def test_processes_share_the_work(tmp_path):
    """Tasks are sent to processes that load the extractor themselves; what they leave is one."""
    images = load(range(6), range(6))
    parts = [
        ImageChunk(
            names=["a", "b"], hashes=[str(i), str(i + 1)], side=None,
            load=partial(operator.getitem, images[i : i + 2]),
        )
        for i in (0, 2, 4)
    ]  # fmt: skip
    task = partial(compute_chunk, extractor=ExtractorSpec("clip"), root=tmp_path)
    paths = set(Work(processes=2).over(parts, task))
    extractor = load_extractor("clip")
    found = features_of(parts, extractor, tmp_path)
    assert set(found.paths) == paths and len(paths) == 3
    torch.testing.assert_close(found.rows()[:], extractor(images), rtol=0, atol=1e-5)


def test_a_folder_that_cannot_be_written_to_is_one_line(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CalotypeError, match="choose another folder") as raised:
        features_of([chunk(1)], Means(), tmp_path / "file")
    assert "\n" not in str(raised.value) and (tmp_path / "file").read_text() == "mine"
