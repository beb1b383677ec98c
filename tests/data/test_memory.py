"""Memory that stays flat: work over a set holds nothing for each of its images or captions."""

import itertools
import tracemalloc

import numpy as np
import pytest

from calotype.data import looks, verify
from calotype.data.columns import Selection
from calotype.data.example import Caption
from calotype.data.looks import RECORD, LookBook
from calotype.data.source import AllCaptions, SourceReport, some_captions
from calotype.data.verify import ChunkFacts, ImageFacts
from calotype.data.work import Chunk, Chunks, DataPart
from calotype.text.byte import ByteTextEncoder
from calotype.text.store import embed_captions


class Counted:
    """A source of captions made when asked for."""

    fingerprint = ""

    def __init__(self, length, distinct):
        self.length, self.distinct = length, distinct
        self.report = SourceReport()

    def __len__(self):
        return self.length

    def key(self, index):
        return f"{index}.png"

    def captions(self, index):
        return (Caption(f"caption number {index % self.distinct} {'word ' * 30}"),)


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_captions_are_streamed_into_the_store(tmp_path, monkeypatch):
    """Eight times the captions, all of them long and most of them seen before."""
    monkeypatch.setattr("calotype.text.store._READ_CAPTIONS", 500)
    encoder = ByteTextEncoder(4, max_tokens=8)

    def embed(count, name):
        source = Counted(count, distinct=600)
        captions = AllCaptions([source], 1, more=["last"])
        assert sum(1 for _ in captions) == count + 1
        store = embed_captions(encoder, captions, folder=tmp_path / name)
        assert len(store) == 601 and store.has_all(captions)
        assert not store.has_all(itertools.chain(captions, ["new"]))

    embed(1000, "warm")
    small, large = peak(lambda: embed(1000, "small")), peak(lambda: embed(8000, "large"))
    assert large < 1.3 * small  # 7000 captions of 170 bytes would be 1.2 MB, more than all of it


def test_some_captions_are_spread_over_the_set():
    source = Counted(1000, distinct=1000)
    assert len(list(some_captions(source, 1, most=1000))) == 1000
    some = [text.split()[2] for text in some_captions(source, 1, most=100)]
    assert some == [str(number) for number in range(0, 1000, 10)]


def test_chunks_are_made_when_asked_for(tmp_path):
    data = DataPart(tmp_path, "", Selection(), "", 10**12 + 1)
    chunks = Chunks(data, 256)
    assert len(chunks) == 10**12 // 256 + 1
    assert (chunks[-1].start, chunks[-1].stop) == (10**12, 10**12 + 1)
    assert [c.start for c in chunks[2:4]] == [512, 768]
    with pytest.raises(IndexError):
        chunks[len(chunks)]


def test_looks_are_found_in_many_files_as_in_one():
    rng = np.random.default_rng(0)
    records = np.zeros(5000, RECORD)
    records["index"] = rng.permutation(5000)
    records["shape"] = rng.integers(0, 40, 5000) << 32
    records["colour"] = rng.integers(0, 40, 5000)
    alike = {}
    for record in np.sort(records, order="index"):
        alike.setdefault((record["shape"], record["colour"]), []).append(int(record["index"]))
    truth = tuple(tuple(group) for group in alike.values() if len(group) > 1)
    for bucket_bytes in (10**9, 3000):
        with LookBook(5000, bucket_bytes=bucket_bytes) as book:
            assert book.buckets == (1 if bucket_bytes == 10**9 else 40)
            for part in np.array_split(records, 17):
                book.add(part)
            found = book.duplicates(5000)
            assert found.groups == truth
            assert found.repeated == sum(len(group) - 1 for group in truth)
            few = book.duplicates(10)
            assert few.repeated == found.repeated and sum(map(len, few.groups)) <= 10
            assert few.groups[0] == truth[0][:10]
    with LookBook(0) as book:
        assert book.duplicates(10) == looks.Duplicates(0, ())


def test_a_report_of_a_large_set_takes_no_more_memory(tmp_path, monkeypatch):
    """Every image broken, empty or a duplicate: the worst there is, at two sizes."""
    monkeypatch.setattr(verify, "LISTED", 20)
    data = DataPart(tmp_path, "", Selection(), "", 0)
    reports = {}

    def report(count):
        source = Counted(count, distinct=1)
        with LookBook(count, bucket_bytes=48_000) as book:
            tally = verify._Tally(book)
            for start in range(0, count, 100):
                facts = tuple(
                    ImageFacts(f"{number}.png", 8, 9, (number // 2, 7), (4,))
                    if number % 3
                    else ImageFacts(f"{number}.png", reason="broken")
                    for number in range(start, start + 100)
                )
                tally.add(ChunkFacts(Chunk(data, start, start + 100), facts, frozenset()))
            reports[count] = tally.report(source)

    report(1000)
    small, large = peak(lambda: report(2000)), peak(lambda: report(20000))
    assert large - small < 10 * 18_000  # a few more files of a size, whose buffers count
    part = reports[20000]
    assert (part.examples, part.usable, part.counts["broken"]) == (20000, 13333, 6667)
    assert list(part.broken) == [f"{number}.png" for number in range(0, 60, 3)]
    assert part.counts["duplicates"] == 3333
    assert part.duplicates == tuple((f"{n}.png", f"{n + 1}.png") for n in range(4, 64, 6))
    assert part.histograms["width in pixels"].counts == (13333,)
