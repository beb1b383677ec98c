"""Bad input to `evaluate`: one line, exit code 1 or 2, nothing of the evaluation half-written."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from things import CANARY, THINGS, Bomb

pytestmark = pytest.mark.slow

COUNT = 8


@pytest.fixture
def place(tmp_path, colours):
    """A folder of eight images in the order of a suite's eight prompts."""
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        Image.new("RGB", (16, 16), (30 * number, 0, 200)).save(tmp_path / "in" / f"{number}.png")
    captions = "".join(f"a {number} square\n" for number in range(COUNT))
    (tmp_path / "suite.txt").write_text(captions)
    shutil.copytree(colours / "real", tmp_path / "real")
    return tmp_path


@pytest.fixture
def evaluate(command, eyes, place):
    """Evaluate the images; (exit code, last line of stderr); what is refused wrote no results."""

    def run(*words, source="in", out="e"):
        given = ["evaluate", source, "-o", out, *words]
        for name, value in (("--suite", "suite.txt"), ("--reference", "real"), ("--side", "16")):
            if name not in words:
                given += [name, value]
        code, told, err = command(*given)
        assert "defect" not in err and "Traceback" not in err, err
        folder = place / out
        if code == 0:
            assert json.loads((folder / "results.json").read_text())["numbers"]
            assert (folder / "index.html").stat().st_size > 1000
        else:
            assert code in (1, 2) and told == "", (code, told)
            assert not (folder / "results.json").exists()
            assert not (folder / "index.html").exists()
        assert not (place / CANARY).exists()
        left = [path.name for path in place.rglob(".*") if path.name.endswith(".tmp")]
        assert left == []
        return code, err.splitlines()[-1] if err else ""

    return run


def png(**options):
    return lambda path: Image.new(**{"mode": "RGB", "size": (16, 16), **options}).save(path)


def animated(path):
    more = [Image.new("RGB", (16, 16), (0, level, 0)) for level in (90, 180)]
    Image.new("RGB", (16, 16)).save(path, format="GIF", save_all=True, append_images=more)


def cut_short(path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:300])


# What takes the place of an image, and the codes of evaluating it as a sample and as a real image.
IMAGES = {
    "empty": (lambda path: path.write_bytes(b""), 2, 2),
    "words": (lambda path: path.write_text("no image"), 2, 2),
    "cut short": (cut_short, 2, 2),
    "animated": (animated, 2, 0),  # a sample is one image; of real ones the first is taken
    "CMYK": (lambda p: Image.new("CMYK", (16, 16), (9, 9, 9, 9)).save(p, format="JPEG"), 0, 0),
    "16 bits": (lambda p: Image.fromarray(np.full((16, 16), 60000, np.uint16)).save(p), 0, 0),
    "transparent": (png(mode="RGBA", color=(255, 0, 0, 0)), 0, 0),
    "1x1": (png(size=(1, 1)), 2, 2),
    "20000x20000": (png(mode="1", size=(20000, 20000)), 2, 2),
    "another size": (png(size=(40, 20)), 0, 0),
    "a folder": (lambda path: path.mkdir(), 2, 0),  # seven images of eight prompts
    "a link to nothing": (lambda path: path.symlink_to("nothing"), 2, 2),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_images(evaluate, place, kind):
    make, as_sample, as_real = IMAGES[kind]
    (place / "in" / "3.png").unlink()
    make(place / "in" / "3.png")
    code, err = evaluate()
    assert code == as_sample, err
    if code:
        assert "3.png" in err or "7 images without captions" in err, err
    make(place / "real" / "another.png")
    (place / "in" / "3.png").rename(place / "away")
    png()(place / "in" / "3.png")
    code, err = evaluate(out="f")
    assert code == as_real, err
    if code:
        assert "another.png" in err
        assert not (place / "f" / "samples").exists()  # nothing was taken before it was seen


def test_images_of_several_sizes_say_so(evaluate, place):
    png(size=(40, 20))(place / "in" / "3.png")
    assert evaluate()[0] == 0
    manifest = json.loads((place / "e" / "samples" / "manifest.json").read_text())
    assert manifest["size"] is None
    assert "of different sizes" in (place / "e" / "index.html").read_text()


def test_constant_images(evaluate, place):
    for number in range(COUNT):
        png()(place / "in" / f"{number}.png")
    assert evaluate("--training", "in")[0] == 0
    for path in (place / "real").glob("*.png"):
        png()(path)
    assert evaluate(out="f")[0] == 0
    for name in ("e", "f"):
        text = (place / name / "results.json").read_text()
        assert "NaN" not in text and "Infinity" not in text


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_small_sets(evaluate, place, count):
    for number in range(count, COUNT):
        (place / "in" / f"{number}.png").unlink()
    (place / "suite.txt").write_text("".join(f"a {n} square\n" for n in range(max(1, count))))
    code, err = evaluate("--clip", "none")
    assert (code == 0) == (count >= 4), err
    code, err = evaluate("--reference", "in", "--suite", "suite.txt", source="real", out="f")
    assert code == 2, err  # of real images it takes six


SUITES = {
    "empty.txt": b"",
    "blank.txt": b" \n\n\t\n",
    "nul.txt": b"a\0b\n",
    "latin.txt": b"caf\xe9\n",
    "long.txt": b"a" * 10_000_000,
    "columns.tsv": b"a\tb\n1\t2\n",
    "columns.csv": b"Category,Note\nx,y\n",
    "header.csv": b"Prompts,Category\n",
    "twice.jsonl": b'{"prompt": "a", "tag": "x", "id": 1}\n' * 2,
    "other.jsonl": b'{"question": "a"}\n',
    "broken.json": b"{",
    "deep.json": b"[" * 100_000,
    "number.json": b"3",
    "empty.json": b"[]",
    "coco.json": b'{"images": [], "annotations": []}',
}


@pytest.mark.parametrize("name", SUITES)
def test_suites(evaluate, place, name):
    (place / name).write_bytes(SUITES[name])
    code, err = evaluate("--suite", name)
    assert code == 2 and err.count("\n") == 0, err
    assert not (place / "e").exists()


def test_prompts_that_are_texts_all_the_same(evaluate, place):
    hostile = [
        "$HOME ${x} `id` %s %(a)s {0}", "<script>alert(1)</script>", "\u202eright to left",
        "\x1b[31mred\x07", "a\rb", "\ufeff\u200b invisible", "🟥" * 1000, "../../etc/passwd",
    ]  # fmt: skip
    lines = [json.dumps({"prompt": text, "tag": f"<u>{n}\x1b"}) for n, text in enumerate(hostile)]
    (place / "s.jsonl").write_text("\n".join(lines))
    code, err = evaluate("--suite", "s.jsonl", "--clip", "none")
    if code:  # a category may be refused, a prompt not
        assert "tag" in err or "category" in err, err
        return
    html = (place / "e" / "index.html").read_text()
    assert "<script" not in html and "<u>" not in html


def test_features_that_are_not_finite(evaluate, place, monkeypatch):
    from eyes import ColourEye

    seen = ColourEye.__call__

    def broken(self, images):
        found = seen(self, images)
        return torch.where(found > 215, torch.nan, found) if self.name == "lite0" else found

    monkeypatch.setattr(ColourEye, "__call__", broken)
    png(color=(255, 255, 255))(place / "in" / "3.png")
    code, err = evaluate("--reference", "in")
    assert code == 1 and "not finite from lite0 of '3.png'" in err
    assert not (place / "e" / "samples").exists()


def test_weights_that_are_code_or_of_another(command, place):
    """The true extractors, which are asked for by files."""
    torch.save({"a": Bomb()}, place / "w.pth")
    torch.save({"features.0.weight": torch.zeros(1)}, place / "z.pth")
    (place / "folder").mkdir()
    (place / "folder" / "config.json").write_text('{"model_type": "dinov2"}')
    torch.save({"a": Bomb()}, place / "folder" / "pytorch_model.bin")
    words = ("evaluate", "in", "--suite", "suite.txt", "--side", "16", "-o", "e", "--clip")
    for own in (
        ("none", "--features", "inception=w.pth"),
        ("none", "--features", "inception=z.pth"),
        ("none", "--features", "inception=folder"),
        ("none", "--features", "inception=/dev/zero"),
        ("none", "--features", "lite0=w.pth"),
        ("none", "--features", "dinov2=folder"),
        ("none", "--features", "dinov2=w.pth"),
        ("none", "--features", "clip-cmmd=folder"),
        ("folder",),
        ("w.pth",),
        ("none", "--alexnet", "w.pth"),
        ("none", "--alexnet", "/dev/zero"),
    ):
        code, out, err = command(*words, *own)
        assert code in (1, 2) and out == "" and err.count("\n") == 1, (own, err)
        assert "defect" not in err, err
        assert not (place / "e").exists() and not (place / CANARY).exists()


def test_features_that_somebody_put_into_the_cache(evaluate, place):
    assert evaluate("--cache", "cache")[0] == 0
    numbers = json.loads((place / "e" / "results.json").read_text())["numbers"]
    for kind, data in (
        ("pickled", None),
        ("empty", b""),
        ("short", b"\x93NUMPY"),
        ("other", b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'shape': (9999999999, 12)}"),
    ):
        for path in (place / "cache").rglob("*.npy"):
            if data is None:
                np.save(path, np.array([Bomb()], object), allow_pickle=True)
            else:
                path.write_bytes(data)
        code, err = evaluate("--cache", "cache", out=kind)
        assert code == 0, err
        found = json.loads((place / kind / "results.json").read_text())["numbers"]
        assert found == numbers


PROGRAMS = {
    "dies": "import sys; sys.exit('no memory')",
    "is killed": "import os; os.kill(os.getpid(), 9)",
    "says nothing": "pass",
    "says words": "print('loading', flush=True)",
    "says words for ever": "while True: print('loading')",
    "one endless line": "import sys\nwhile True: sys.stdout.write('x' * 65536)",
    "not numbers": 'print(\'{"key": "000000-0", "score": "high"}\', flush=True)',
    "no numbers": 'print(\'{"key": "000000-0", "score": NaN}\', flush=True)',
    "another's key": 'print(\'{"key": "../x", "score": 1}\', flush=True)',
    "half of them": (
        "import sys, json\nfor n, line in enumerate(sys.stdin):\n"
        " if n < 4: print(json.dumps({'key': json.loads(line)['key'], 'score': 1}), flush=True)"
    ),
}


@pytest.mark.parametrize("kind", PROGRAMS)
@pytest.mark.timeout(60)
def test_programs(evaluate, place, kind):
    (place / "score.py").write_text(PROGRAMS[kind])
    code, err = evaluate("--scorer", f"bad={sys.executable} score.py")
    assert code == 1 and "the scorer 'bad'" in err, err
    assert evaluate("--clip", "none")[0] == 0  # without it the evaluation goes on


@pytest.mark.timeout(60)
def test_a_program_that_never_answers(evaluate, place):
    (place / "score.py").write_text("import time; time.sleep(600)")
    words = ("--scorer", f"bad={sys.executable} score.py", "--scorer-timeout", "1")
    code, err = evaluate(*words)
    assert code == 1 and "the scorer 'bad' answered no more after 0 of 8" in err, err


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e9", "x", ""])
def test_limits_that_are_none(evaluate, place, seconds):
    code, err = evaluate("--scorer", "a=true", f"--scorer-timeout={seconds}")
    assert code == 2 and "scorer-timeout" in err, err
    assert not (place / "e").exists()


def test_a_full_disk(evaluate, place, monkeypatch):
    """Each write in turn finds the disk full; what is whole is kept, and the next run ends well."""
    flush, count = os.fsync, [0]

    def full(number):
        count[0] += 1
        if count[0] == fatal:
            raise OSError(28, "No space left on device")
        flush(number)

    monkeypatch.setattr(os, "fsync", full)
    failed = 0
    for fatal in range(1, 100):  # noqa: B007
        count[0] = 0
        shutil.rmtree(place / "e", ignore_errors=True)
        shutil.rmtree(place / ".cache", ignore_errors=True)
        before = len(list((place / "in").iterdir()))
        given = ["evaluate", "in", "-o", "e", "--suite", "suite.txt", "--reference", "real"]
        from calotype.cli import run

        code = run([*given, "--side", "16"])
        if code == 0:
            break
        failed += 1
        assert code == 1 and len(list((place / "in").iterdir())) == before
        whole = (place / "e" / "results.json").exists()
        assert not list(place.rglob("*.tmp"))
        if whole:  # the page alone may be missing
            json.loads((place / "e" / "results.json").read_text())
        assert whole or not (place / "e" / "index.html").exists()
        count[0] = -1000
        assert run([*given, "--side", "16"]) == 0
    assert failed > 12


def test_outputs(evaluate, place, command):
    (place / "file").write_text("mine")
    for out in ("file", "file/e", "/dev/null", "/proc/e"):
        code, told, err = command(
            "evaluate", "in", "--suite", "suite.txt", "-o", out, "--clip", "none", "--side", "16"
        )
        assert code in (1, 2) and told == "" and err.count("\n") == 1, (out, err)
        assert "defect" not in err, err
    assert (place / "file").read_text() == "mine"
    (place / "e" / "samples").mkdir(parents=True)
    (place / "e" / "samples" / "00000.parquet").write_text("mine")
    code, err = evaluate()
    assert code == 2 and "choose another folder" in err
    assert (place / "e" / "samples" / "00000.parquet").read_text() == "mine"


@pytest.mark.parametrize("source", ["suite.txt", "real/red.png", "nothing", "/dev/zero", ""])
def test_sources(evaluate, place, source):
    code, err = evaluate(source=source)
    assert code in (1, 2), err
    assert not (Path(place) / "e" / "samples").exists()


@pytest.mark.parametrize("thing", ["empty", "garbage", "deep json", "json null", "fifo", "device",
                                   "loop", "dangling", "folder", "odd columns", None])  # fmt: skip
@pytest.mark.timeout(60)
def test_studies_of_broken_sets(evaluate, command, place, thing):
    """What takes the place of a file of a sample set, or its absence, and `rate new` of the set."""
    assert evaluate("--clip", "none")[0] == 0
    for name in ("manifest.json", "00000.parquet"):  # captions are in shards, too
        path = place / "e" / "samples" / name
        path.rename(place / "away")
        if thing is not None:
            THINGS[thing](path)
        code, out, err = command(
            "rate", "new", "s", "--protocol", "caption", "--set", "a=e", "--raters", "1"
        )
        assert code in (1, 2) and out == "" and err.count("\n") == 1, (path.name, err)
        assert "defect" not in err and path.name in err, (path.name, err)
        assert not (place / "s").exists()
        if thing is not None:
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        (place / "away").rename(path)
    assert command("rate", "new", "s", "--protocol", "caption", "--set", "a=e")[0] == 0
