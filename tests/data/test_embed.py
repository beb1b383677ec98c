"""Captions of a data set embedded ahead: by one process or several, killed or not."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from calotype.data.embed import EmbedJob, embed_data
from calotype.data.work import Work
from calotype.emoji.captions import GRAMMAR
from calotype.errors import ConfigError, UsageError
from calotype.text import build_text_encoder
from calotype.text.byte import ByteTextEncoder
from calotype.text.layout import store_cards
from calotype.text.store import CaptionStore


def captions_of(count):
    return [f"caption number {n} " + "x" * (1 + n % 17) for n in range(count)]


def write(path, captions, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": [b"x"] * len(captions), "text": captions, **more}), path)
    return path.parent


def test_every_caption_of_every_split_and_none_twice(tmp_path):
    captions = [*captions_of(150), "", "caption number 3 xxxx"]
    splits = ["train"] * 100 + ["unseen_pair"] * 52
    data = write(tmp_path / "d/a.parquet", captions, split=splits)
    job = EmbedJob("bytes:8", tmp_path / "store")
    done = []
    report = embed_data(data, job, work=Work(on_result=done.append))
    assert (report.examples, sum(c.examples for c in done)) == (152, 152)
    assert report.embedded == 150
    store = CaptionStore(*store_cards(tmp_path / "store"))
    assert report.folder == store.card.folder
    assert store.missing(captions) == []
    truth = build_text_encoder("bytes:8")(captions)
    assert torch.equal(store[captions].tokens, truth.tokens.half().float())
    again = embed_data(data, job)
    assert (again.embedded, again.examples) == (0, 152)


def test_parts_by_size_are_read_and_variants_made(tmp_path):
    parts = {"name": ["dog", "cat"], "keywords": [["pet"], ["pet"]], "style": ["flat style"] * 2}
    for size in ("16", "32"):
        (tmp_path / "d" / size).mkdir(parents=True)
        table = pa.table({"key": ["a", "b"], "image": [b"x"] * 2, **parts})
        pq.write_table(table, tmp_path / "d" / size / "a.parquet")
    counts = [
        embed_data(
            tmp_path / "d", EmbedJob("bytes:8", tmp_path / name), variants=variants, grammar=GRAMMAR
        )
        for name, variants in (("one", 1), ("many", 16))
    ]
    assert counts[0].embedded == 2
    assert counts[1].embedded > 10
    store = CaptionStore(*store_cards(tmp_path / "one"))
    assert store.missing(["dog, flat style", "cat, flat style"]) == []


def test_encoders_and_precisions_side_by_side(tmp_path):
    data = write(tmp_path / "d/a.parquet", captions_of(20))
    store = tmp_path / "store"
    embed_data(data, EmbedJob("bytes:8", store))
    embed_data(data, EmbedJob("bytes:16", store))
    embed_data(data, EmbedJob("bytes:16", store, "int8"))
    assert len(list(store.iterdir())) == 3
    cards = {(card.spec, card.precision): card for card in store_cards(store)}
    assert CaptionStore(cards["bytes:16", "int8"]).missing(captions_of(20)) == []


def test_wrong_input_starts_nothing(tmp_path):
    data = write(tmp_path / "d/a.parquet", captions_of(2))
    for job, error in (
        (EmbedJob("none", tmp_path / "s"), UsageError),
        (EmbedJob("minilmm", tmp_path / "s"), ConfigError),
    ):
        with pytest.raises(error):
            embed_data(data, job)
    with pytest.raises(UsageError, match="processes=0"):
        embed_data(data, EmbedJob("bytes:8", tmp_path / "s"), work=Work(processes=0))
    assert not (tmp_path / "s").exists()


def test_a_megabyte_caption_and_one_that_is_no_utf8(tmp_path):
    bad = pa.array([b"B\xe4r", b"word " * 200_000]).view(pa.string())
    data = write(tmp_path / "d/a.parquet", bad)
    report = embed_data(data, EmbedJob("bytes:8", tmp_path / "s"))
    assert report.embedded == 2
    assert (
        CaptionStore(*store_cards(tmp_path / "s")).missing(["B�r", ("word " * 200_000).strip()])
        == []
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_loses_no_more_than_the_chunk_in_hand(tmp_path):
    """Killed -9 in the third of four chunks; the next run embeds only what is missing."""
    captions = captions_of(320)
    data, job = write(tmp_path / "d/a.parquet", captions), EmbedJob("bytes:8", tmp_path / "s")
    pid = os.fork()
    if pid == 0:  # in the child: nothing but its death may end this branch
        try:
            calls, real = [], ByteTextEncoder.__call__

            def call(encoder, texts):
                calls.append(texts)
                if len(calls) == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(encoder, texts)

            ByteTextEncoder.__call__ = call
            embed_data(data, job)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert embed_data(data, job).embedded == 160
    assert CaptionStore(*store_cards(tmp_path / "s")).missing(captions) == []


@pytest.mark.slow
def test_two_processes_killed_and_run_again(tmp_path):
    captions = captions_of(2000)
    data = write(tmp_path / "d/a.parquet", captions)
    (tmp_path / "main.py").write_text(
        textwrap.dedent(f"""
        from pathlib import Path
        from calotype.data.embed import EmbedJob, embed_data
        from calotype.data.work import Work
        if __name__ == "__main__":
            job = EmbedJob("bytes:64", Path({str(tmp_path / "s")!r}))
            embed_data(Path({str(data)!r}), job, work=Work(
                processes=2, on_result=lambda counts: print("chunk", flush=True)))
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "main.py")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "chunk\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)  # its workers leave
    report = embed_data(data, EmbedJob("bytes:64", tmp_path / "s"), work=Work(processes=2))
    assert 0 < report.embedded < 2000
    store = CaptionStore(*store_cards(tmp_path / "s"))
    assert store.missing(captions) == []
    truth = build_text_encoder("bytes:64")(captions[:50])
    assert torch.equal(store[captions[:50]].tokens, truth.tokens.half().float())
