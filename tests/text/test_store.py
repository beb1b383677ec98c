"""The caption store: numbers, resuming after kill -9, faults, several encoders and processes."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError, UsageError
from calotype.text.byte import ByteTextEncoder
from calotype.text.layout import StoreLayout, store_cards
from calotype.text.shard import Shard, caption_keys, encode, write_shard
from calotype.text.store import CaptionStore, MissingCaptionError, embed_captions

CAPTIONS = [f"caption number {index} " + "x" * (index % 17) for index in range(300)]


class CountingEncoder(ByteTextEncoder):
    """Notes every caption it embeds."""

    def __init__(self, embed_dim: int = 8, *, max_tokens: int = 128) -> None:
        super().__init__(embed_dim, max_tokens=max_tokens)
        self.seen: list[str] = []

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        self.seen += captions
        return super().__call__(captions)


def _opened(folder: Path) -> CaptionStore:
    (card,) = store_cards(folder)
    return CaptionStore(card)


def test_holds_what_the_encoder_says_to_float16(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    told: list[tuple[int, int]] = []
    store = embed_captions(
        encoder, CAPTIONS * 2, folder=tmp_path, batch_size=64, progress=lambda *n: told.append(n)
    )
    assert sorted(encoder.seen) == sorted(CAPTIONS) and len(store) == 300
    assert told[-1] == (300, 300) and [done for done, _ in told] == sorted(d for d, _ in told)
    truth = encoder(CAPTIONS[::-3])
    text = store[CAPTIONS[::-3]]
    assert torch.equal(text.mask, truth.mask)
    assert torch.equal(text.tokens, truth.tokens.half().float())
    assert text.tokens.dtype is torch.float32


def test_empty_and_strange_captions(tmp_path: Path) -> None:
    strange = ["", " \n", "nul \x00", "\ud800 lone", "赤い狐", "\x00"]
    encoder = CountingEncoder()
    store = embed_captions(encoder, strange, folder=tmp_path)
    text = store[strange]
    assert text.mask.any(dim=1).tolist() == [False, False, True, True, True, True]
    assert len(store) == 4 and store.missing(["", "absent"]) == ["absent"]
    nulls = store[["", ""]]
    assert nulls.tokens.shape == (2, 1, 8) and not nulls.mask.any()


def test_only_what_is_missing_is_embedded(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    embed_captions(encoder, CAPTIONS[:200], folder=tmp_path)
    encoder.seen.clear()
    store = embed_captions(encoder, CAPTIONS, folder=tmp_path)
    assert sorted(encoder.seen) == sorted(CAPTIONS[200:]) and len(store) == 300
    encoder.seen.clear()
    embed_captions(encoder, CAPTIONS, folder=tmp_path)
    assert encoder.seen == []


def test_missing_captions_are_refused_or_computed_alike(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    store = embed_captions(encoder, ["here"], folder=tmp_path)
    with pytest.raises(MissingCaptionError, match="first 'not here'") as error:
        store[["here", "not here"]]
    assert isinstance(error.value, LookupError) and isinstance(error.value, CalotypeError)
    computed = CaptionStore(store.card, encoder=encoder)[["here", "not here", ""]]
    stored = embed_captions(encoder, ["not here"], folder=tmp_path)[["here", "not here", ""]]
    assert torch.equal(computed.tokens, stored.tokens)
    assert torch.equal(computed.mask, stored.mask)
    for wrong in ("here", []):
        with pytest.raises(UsageError, match="list of captions"):
            store[wrong]


def test_several_encoders_and_precisions_side_by_side(tmp_path: Path) -> None:
    small, large = CountingEncoder(8), CountingEncoder(200)
    embed_captions(small, CAPTIONS, folder=tmp_path)
    embed_captions(large, CAPTIONS, folder=tmp_path)
    half = StoreLayout(precision="int8")
    embed_captions(large, CAPTIONS, folder=tmp_path, layout=half)
    cards = {(c.spec, c.precision): c for c in store_cards(tmp_path)}
    assert len(cards) == 3
    assert cards["bytes:8", "float16"].fingerprint == small.fingerprint
    full = CaptionStore(cards["bytes:200", "float16"])
    compact = CaptionStore(cards["bytes:200", "int8"])
    sizes = [
        sum(path.stat().st_size for path in store.card.folder.glob("*.safetensors"))
        for store in (full, compact)
    ]
    assert sizes[1] < 0.56 * sizes[0]
    a, b = full[CAPTIONS[:50]], compact[CAPTIONS[:50]]
    assert torch.equal(a.mask, b.mask)
    assert (a.tokens - b.tokens).abs().max() < a.tokens.abs().max() / 127


def test_int8_keeps_small_channels_beside_huge_ones() -> None:
    states = np.random.default_rng(0).normal(size=(50, 130)).astype(np.float32)
    states[:, 3] *= 5000.0
    states[7] = 0.0
    decoded = encode((0, 0), states, "int8").states
    assert np.abs(decoded - states)[:, 64:].max() < 0.03
    assert np.abs(decoded - states).max() < np.abs(states).max() / 200
    assert not decoded[7].any()
    edge = np.full((1, 3), 65504.0, np.float32)
    assert np.allclose(encode((0, 0), edge, "int8").states, edge, rtol=1e-3)
    for bad in (np.nan, np.inf, 70000.0):
        with pytest.raises(CalotypeError, match="magnitude"):
            encode((0, 0), np.full((1, 3), bad, np.float32), "float16")


def test_find_tells_keys_with_the_same_half_apart(tmp_path: Path) -> None:
    nothing = np.zeros((0, 4), np.float32)
    keys = [(5, 1), (5, 9), (7, 2), (5, 4), (2**64 - 1, 2**64 - 1)]
    path = write_shard(tmp_path, [encode(key, nothing, "float16") for key in keys])
    wanted = np.array([(5, 9), (5, 4), (5, 1), (5, 3), (6, 1), (0, 0), keys[-1]], np.uint64)
    assert Shard(path).find(wanted).tolist() == [2, 1, 0, -1, -1, -1, 4]
    assert Shard(path).entry(0).states.shape == (0, 4)


def test_many_small_shards(tmp_path: Path) -> None:
    layout = StoreLayout(shard_bytes=4000)
    store = embed_captions(
        CountingEncoder(), CAPTIONS, folder=tmp_path, batch_size=8, layout=layout
    )
    assert len(list(store.card.folder.glob("*.safetensors"))) > 10
    assert store.missing(CAPTIONS) == [] and len(store) == 300
    order = np.random.default_rng(0).permutation(300)[:64]
    picked = [CAPTIONS[index] for index in order]
    assert torch.equal(store[picked].mask, CountingEncoder()(picked).mask)


def test_pickles_without_the_data(tmp_path: Path) -> None:
    store = embed_captions(CountingEncoder(64), CAPTIONS, folder=tmp_path)
    truth = store[CAPTIONS[:5]]
    data = pickle.dumps(store)
    assert len(data) < 5000
    assert torch.equal(pickle.loads(data)[CAPTIONS[:5]].tokens, truth.tokens)


def test_kill_in_mid_run_loses_the_shard_in_hand_only(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from calotype.text.byte import ByteTextEncoder
        from calotype.text.layout import StoreLayout
        from calotype.text.store import embed_captions
        captions = [f"caption number {{i}} " + "x" * (i % 17) for i in range(300)]
        def progress(done, total):
            if done >= 200:
                os.kill(os.getpid(), signal.SIGKILL)
        embed_captions(ByteTextEncoder(8), captions, folder=Path({str(tmp_path)!r}), batch_size=10,
                       progress=progress, layout=StoreLayout(shard_bytes=20_000))
    """)
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    encoder = CountingEncoder()
    store = embed_captions(encoder, CAPTIONS, folder=tmp_path)
    assert len(store) == 300 and store.missing(CAPTIONS) == []
    assert 100 <= len(encoder.seen) < 200  # 100 never done, and less than one shard again


@pytest.mark.parametrize("operation", ["write", "fsync", "replace"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_kill_at_every_file_operation(tmp_path: Path, operation: str, count: int) -> None:
    """The process ends without clean-up at the n-th operation; the next run completes."""
    pid = os.fork() if hasattr(os, "fork") else pytest.skip("needs fork")
    layout = StoreLayout(shard_bytes=5000)
    if pid == 0:  # in the child: nothing but _exit may end this branch
        try:
            _die_at(operation, count)
            embed_captions(
                CountingEncoder(), CAPTIONS, folder=tmp_path, batch_size=8, layout=layout
            )
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    store = embed_captions(CountingEncoder(), CAPTIONS, folder=tmp_path, layout=layout)
    assert len(store) == 300
    truth = CountingEncoder()(CAPTIONS)
    assert torch.equal(store[CAPTIONS].tokens, truth.tokens.half().float())


def _die_at(operation: str, count: int) -> None:
    left = [count]

    def counted(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] == 0:
            os._exit(9)
        return original(*args, **kwargs)

    if operation == "fsync":
        original, os.fsync = os.fsync, counted
    elif operation == "replace":
        original, os.replace = os.replace, counted
    else:  # dies with half of the bytes written
        original = Path.open

        def half_written(path: Path, mode: str = "r", **kwargs: object) -> object:
            file = original(path, mode, **kwargs)
            left[0] -= mode == "wb"
            if mode == "wb" and left[0] == 0:
                file.write(b"\x20" * 100)
                file.flush()
                os._exit(9)
            return file

        Path.open = half_written


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = embed_captions(CountingEncoder(), CAPTIONS[:50], folder=tmp_path)
    files = sorted(store.card.folder.iterdir())

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        CalotypeError, match=r"No space left on device;.* \d+ bytes needed; run the same"
    ) as error:
        embed_captions(CountingEncoder(), CAPTIONS, folder=tmp_path)
    assert "\n" not in str(error.value)
    assert sorted(store.card.folder.iterdir()) == files
    monkeypatch.undo()
    assert len(embed_captions(CountingEncoder(), CAPTIONS, folder=tmp_path)) == 300


def test_damaged_files_are_named(tmp_path: Path) -> None:
    store = embed_captions(CountingEncoder(), CAPTIONS, folder=tmp_path)
    (path,) = store.card.folder.glob("*.safetensors")
    data = path.read_bytes()
    for damaged in (data[:-1], b"", data[:20], b"\xff" * 100):
        path.write_bytes(damaged)
        with pytest.raises(CalotypeError, match="delete it and embed again") as error:
            _opened(tmp_path)
        assert path.name in str(error.value)
    path.unlink()
    assert len(_opened(tmp_path)) == 0
    (store.card.folder / "encoder.json").write_text("{")
    with pytest.raises(CalotypeError, match="damaged"):
        _opened(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(CalotypeError, match="choose another folder"):
        embed_captions(CountingEncoder(), CAPTIONS, folder=tmp_path / "file")


def test_leftovers_of_killed_writers_go_when_they_are_old(tmp_path: Path) -> None:
    store = embed_captions(CountingEncoder(), ["a"], folder=tmp_path)
    old, new = (store.card.folder / f".0.safetensors.{pid}.tmp" for pid in (1, 2))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    store = embed_captions(CountingEncoder(), ["b"], folder=tmp_path)
    assert not old.exists() and new.exists() and len(store) == 2


def test_keys_are_the_captions_sha256() -> None:
    (key,) = caption_keys(["a"]).tolist()
    assert f"{key[0]:016x}{key[1]:016x}" == "ca978112ca1bbdcafac231b39a23dc4d"
    assert len(np.unique(caption_keys(CAPTIONS), axis=0)) == 300
