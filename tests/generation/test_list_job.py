"""Long lists of captions: streamed, shared out, stopped and resumed."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import read_recipe
from calotype.errors import CalotypeError, UsageError
from calotype.generation import lists
from calotype.generation.prompts import PromptShards, open_prompts, shard_captions

WORDS = ("--size", "8", "--threads", "1", "-o", "p.png", "--from-file", "list.txt")


@pytest.fixture
def captions(command, tmp_path):
    """Seven captions in the current folder."""
    texts = [f"caption {number}" for number in range(7)]
    (tmp_path / "list.txt").write_text("\n".join(texts) + "\n")
    return texts


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.png"))}


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name


def test_a_rerun_skips_what_is_there_and_fills_what_is_not(command, captions, tmp_path):
    words = ("sample", *WORDS, "-n", "2", "--batch", "4", "--write-captions")
    code, out, err = command(*words)
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"p-{number}.png" for number in range(14)]
    first = contents(tmp_path)
    made = [read_recipe(tmp_path / f"p-{n}.png") for n in range(14)]
    assert [(r["caption"], r["seed"]) for r in made] == [(t, s) for t in captions for s in (0, 1)]
    assert (tmp_path / "p-5.txt").read_text() == captions[2]

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("p-*")}
    code, out, err = command(*words)
    assert (code, err) == (0, "calotype: 14 of 14 images were there already\n")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("p-*")} == before

    (tmp_path / "p-3.png").unlink()
    (tmp_path / "p-3.txt").unlink()
    (tmp_path / "p-6.txt").unlink()
    half = (tmp_path / "p-9.png").read_bytes()
    (tmp_path / "p-9.png").write_bytes(half[: len(half) // 2 + 200])
    assert command(*words)[2] == "calotype: 12 of 14 images were there already\n"
    assert contents(tmp_path) == first
    assert (tmp_path / "p-3.txt").exists() and (tmp_path / "p-6.txt").exists()


def test_other_settings_are_refused_before_anything_is_sampled(command, captions, tmp_path):
    """Finding 5."""
    command("sample", *WORDS)
    before = contents(tmp_path)
    (tmp_path / "p-0.png").unlink()  # the first is free: nothing is sampled all the same
    for change in (["--seed", "1"], ["--steps", "3"], ["--negative", "x"], ["--size", "16"]):
        code, out, err = command("sample", *WORDS, *change)
        assert (code, out, err.count("\n")) == (2, "", 1), change
        assert "p-1.png is there already" in err
    assert command("sample", *WORDS)[2].startswith("calotype: 6 of 7")
    assert contents(tmp_path) == before


def test_a_list_without_a_name_is_called_by_what_decides_it(command, captions, tmp_path):
    """Finding 5."""
    words = [word for word in WORDS if word not in ("-o", "p.png")]
    first = command("sample", *words)[1].splitlines()
    assert len(first) == 7 and all(name.startswith("caption-0-0-") for name in first)
    assert command("sample", *words)[2].startswith("calotype: 7 of 7")
    other = command("sample", *words, "--steps", "3")[1].splitlines()
    assert not set(first) & set(other) and len(contents(tmp_path)) == 14


def test_json_tells_of_a_list(command, captions):
    report = json.loads(command("sample", *WORDS, "-n", "2", "--json")[1])
    assert report["files"] == [f"p-{number}.png" for number in range(14)]
    assert [p["file"] for p in report["pictures"]] == report["files"]
    assert [p["seed"] for p in report["pictures"]][:4] == [0, 1, 0, 1]
    assert report["pictures"][13]["caption"] == captions[6]
    assert report["stages"][0]["resolution"] == 8 and report["skipped"] == 0
    assert json.loads(command("sample", *WORDS, "-n", "2", "--json")[1])["skipped"] == 14


def test_one_caption_has_no_number(command, tmp_path):
    (tmp_path / "list.txt").write_text("a fox")
    assert command("sample", *WORDS)[1] == "p.png\n"
    code, out, _ = command("sample", "--from-file", "list.txt", "--size", "8")
    assert code == 0 and out.startswith("a-fox-0-") and out.count("-") == 3


def test_leftovers_of_killed_writers_go_when_they_are_old(command, captions, tmp_path):
    old, new = tmp_path / ".p-1.png.77.tmp", tmp_path / ".p-2.png.78.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1.0, 1.0))
    assert command("sample", *WORDS)[0] == 0
    assert not old.exists() and new.exists()


def test_temporary_files_of_others_are_left_alone(command, captions, tmp_path):
    """Finding 6."""
    others = (".passwords.tmp", ".p.old.tmp", ".p-1.png.tmp", ".p-a.png.7.tmp", ".pq-1.png.7.tmp")
    for name in others:
        (tmp_path / name).write_bytes(b"mine")
        os.utime(tmp_path / name, (1.0, 1.0))
    assert command("sample", *WORDS)[0] == 0
    assert all((tmp_path / name).exists() for name in others)


@pytest.mark.slow
def test_processes_draw_the_same_images(command, captions, tmp_path):
    words = ("sample", *WORDS, "--batch", "2")
    assert command(*words)[0] == 0
    alone = pixels(tmp_path)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    code, out, err = command(*words, "--workers", "2")
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"p-{number}.png" for number in range(7)]
    same(alone, pixels(tmp_path))
    assert command(*words, "--workers", "2")[2].startswith("calotype: 7 of 7")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--workers", "2"], "expected --from-file"),
        (["a", "--ray", "local"], "expected --from-file"),
        (["--from-file", "list.txt", "--grid", "--workers", "2"], "no --grid"),
        (["--from-file", "list.txt", "--workers", "0"], "--workers 0"),
        (["--from-file", "list.txt", "--batch", "0"], "--batch 0"),
        (["--from-file", "list.txt", "--gpus-per-worker", "0.5"], "without --ray"),
        (["--from-file", "list.txt", "--ray", "local", "--gpus-per-worker", "1.5"], "whole"),
        (["--from-file", "list.txt", "--workers", "2", "--size", "31x8"], "multiples"),
        (["--from-file", "list.txt", "--workers", "2", "--size", "9"], "[8, 16, 32]"),
    ],
)
def test_wrong_input_starts_nothing(command, captions, tmp_path, monkeypatch, words, message):
    monkeypatch.setattr(lists, "generate_list", lambda *a, **k: pytest.fail("started"))
    code, out, err = command("sample", *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err
    assert list(tmp_path.glob("*.png")) == []


def test_shards_find_their_captions(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\r\n\n日本\n".encode() + b"bad \xff\n  \nlast")
    with open_prompts(path) as prompts:
        texts = ["a", "日本", "bad \ufffd", "last"]
        assert (prompts.captions, prompts.first, list(prompts.read())) == (4, "a", texts)
        for repeats in (1, 2, 3, 7):
            for size in (1, 2, 3, 5, 100):
                shards = PromptShards(prompts, repeats=repeats, size=size)
                assert len(shards) == -(-4 * repeats // size)
                found = [t for s in shards for t in shard_captions(prompts, s, repeats=repeats)]
                assert found == [text for text in texts for _ in range(repeats)], (repeats, size)
        path.write_text("other")
        with pytest.raises(CalotypeError, match="changed while"):
            list(prompts.read())
    path.write_text("\n \n")
    with pytest.raises(UsageError, match="holds no caption"), open_prompts(path):
        pass


def test_memory_does_not_grow_with_the_captions(tmp_path):
    """Eight bytes a shard, whatever the captions: ten times the list, less than 1 % of it more."""

    def peak(count):
        path = tmp_path / f"{count}.txt"
        with path.open("w") as file:
            file.writelines(f"caption number {n} {'x' * 180}\n" for n in range(count))
        tracemalloc.start()
        try:
            with open_prompts(path) as prompts:
                shards = PromptShards(prompts, repeats=1, size=64)
                assert sum(1 for _ in prompts.read()) == count
                assert len(shard_captions(prompts, shards[-1], repeats=1)) > 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    small, large = peak(2_000), peak(20_000)
    assert large - small < 0.01 * 18_000 * 200


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_file_of_utf_16(tmp_path, encoding):
    """What `>` of PowerShell writes; the byte of a line feed is half of some characters, too."""
    path = tmp_path / "list.txt"
    texts = ["a fox", "\u0a0a\u0a05\u050a\u0a0a", "日本 😀", "", "\u0a0a", "last"]
    path.write_bytes(("\ufeff" + "\r\n".join(texts)).encode(encoding))
    texts.remove("")
    with open_prompts(path) as prompts:
        assert (prompts.first, list(prompts.read())) == (texts[0], texts)
        for size in (1, 2, 3):
            shards = PromptShards(prompts, repeats=2, size=size)
            found = [text for s in shards for text in shard_captions(prompts, s, repeats=2)]
            assert found == [text for text in texts for _ in range(2)], size
    path.write_bytes(("\ufeff" + "a\n").encode(encoding) + b"b")  # cut in the middle
    with open_prompts(path) as prompts:
        assert list(prompts.read()) == ["a", "\ufffd"]
