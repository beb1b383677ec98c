"""Findings 21, 24, 31, 32 and 35: odd files, homes, streams and words at the command line."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from calotype.cli import run
from calotype.storage import headers, reading

SMALL = ("--size", "8", "--steps", "1")


def fifo(path):
    os.mkfifo(path)
    return path.name


def device(path):
    path.symlink_to("/dev/zero")
    return path.name


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [fifo, device])
@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--from-file", "{}"],
        ["sample", "--like", "{}"],
        ["sample", "a", "--lora", "{}"],
        ["sample", "a", "--model", "{}"],
        ["upscale", "{}"],
        ["info", "{}"],
        ["train", "{}", "--dry-run"],
        ["convert", "{}", "-o", "out"],
        ["report", "{}"],
    ],
    ids=" ".join,
)
def test_21_no_command_waits_for_what_is_no_file(command, tmp_path, make, words):
    name = make(tmp_path / "x.png")
    code, out, err = command(*[word.format(name) for word in words])
    assert code in (1, 2) and out == "" and err.count("\n") == 1, err
    assert "defect" not in err


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["cascade.json", "8/stage.json", "8/weights.safetensors"])
def test_21_no_cascade_makes_its_reader_wait(command, tmp_path, model, name):
    for path in sorted(model.rglob("*")):
        target = tmp_path / "m" / path.relative_to(model)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path)
    (tmp_path / "m" / name).unlink()
    fifo(tmp_path / "m" / name)
    code, out, err = command("sample", "a", "--model", "m")
    assert code in (1, 2) and out == "" and err.count("\n") == 1, err
    assert "defect" not in err


def test_21_settings_of_gigabytes_are_not_read(command, tmp_path):
    with (tmp_path / "r.json").open("wb") as file:
        file.truncate(2**33)
    code, _, err = command("info", "r.json")
    assert code == 2 and "expected at most 10,000,000" in err


def test_24_no_home_and_no_name_of_the_user(command, monkeypatch):
    def nobody(*args, **kwargs):
        raise RuntimeError("Could not determine home directory.")

    for name in ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr(Path, "expanduser", nobody)
    monkeypatch.setattr("getpass.getuser", nobody)
    assert command("sample", "a", *SMALL) == (0, "a-0.png\n", "")
    assert command("info")[0] == 0


def closed(words, *numbers):
    """Run a command as a shell does with `NUMBER>&-`; (exit code, stdout, stderr)."""
    command = [sys.executable, "-m", "calotype", *words]
    shell = "exec " + '"$@"' + "".join(f" {number}>&-" for number in numbers)
    done = subprocess.run(
        ["sh", "-c", shell, "sh", *command], capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("numbers", [(1,), (2,), (0, 1, 2)])
def test_31_a_process_without_streams_has_its_exit_code(tmp_path, numbers):
    assert closed(["--version"], *numbers)[0] == 0
    assert closed(["info", str(tmp_path / "no.png")], *numbers)[0] == 2


@pytest.mark.parametrize("name", ["stdin", "stdout", "stderr"])
def test_31_closed_streams_are_as_the_null_device(command, tmp_path, monkeypatch, name):
    (tmp_path / "empty").touch()
    monkeypatch.setattr(os, "devnull", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, name, None)
    words = ["--from-file", "-"] if name == "stdin" else ["a", "-o", "a.png"]
    code, _, err = command("sample", *words, *SMALL)
    assert code == (2 if name == "stdin" else 0)
    assert name != "stdin" or "holds no caption" in err


def test_32_words_that_look_like_one_caption(command):
    code, out, err = command("sample", "a", "cat", "sitting", "--grid", "-o", "g.png", *SMALL)
    assert (code, out, err.count("\n")) == (0, "g.png\n", 1)
    assert "3 captions of one word" in err and 'calotype sample "a cat sitting"' in err
    assert command("sample", "cat", "dog", *SMALL)[2] == ""
    assert command("sample", "a cat", "dog", "cow", *SMALL)[2] == ""


@pytest.mark.parametrize(
    ("command_name", "needed"),
    [
        ("sample", ["a"]),
        ("upscale", ["a.png"]),
        ("train", ["tiny"]),
        ("assemble", ["run"]),
        ("ema", ["run", "--length", "0.1"]),
        ("report", ["run"]),
        ("convert", ["x"]),
        ("export", []),
    ],
)
def test_35_every_command_takes_o_out_and_output(command_name, needed):
    import typer

    from calotype.cli import app

    command = typer.main.get_command(app).commands[command_name]
    for words in (["-o", "y"], ["--out", "y"], ["--output", "y"], ["--output=y"]):
        context = command.make_context(command_name, [*needed, *words])
        assert str(context.params["out"]) == "y"
    context = command.make_context(command_name, [*needed, "-o", "y"])
    assert "--output" not in command.get_help(context)


def test_35_a_caption_may_be_called_output():
    import typer

    from calotype.cli import app

    command = typer.main.get_command(app).commands["sample"]
    assert command.make_context("sample", ["--", "--output"]).params["captions"] == ["--output"]


def test_35_width_and_height(command, tmp_path):
    for words, size in [
        (["--width", "64"], (64, 32)),
        (["--height", "64"], (32, 64)),
        (["--width", "16", "--height", "8"], (16, 8)),
    ]:
        code, out, err = command("sample", "a", "--steps", "1", "-o", "a.png", *words)
        assert code == 0, err
        with Image.open(tmp_path / "a.png") as image:
            assert image.size == size
    for words in (["--size", "8", "--width", "8"], ["--width", "7"], ["--height", "-8"]):
        code, out, err = command("sample", "a", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
    command("sample", "a", "--width", "16", "--height", "8", "--steps", "1", "-o", "w.png")
    command("sample", "--like", "w.png", "--width", "8", "-o", "v.png")
    with Image.open(tmp_path / "v.png") as image:
        assert image.size == (8, 8)


def test_35_sampler_is_of_the_base_and_errors_list_the_known_ones(command, tmp_path):
    assert command("sample", "a", *SMALL, "--sampler", "ddim", "-o", "a.png")[0] == 0
    from calotype.cascade.png import read_recipe

    assert read_recipe(tmp_path / "a.png")["stages"][0]["sampling"]["sampler"] == "ddim"
    code, _, err = command("sample", "a", *SMALL, "--sampler", "euler")
    assert code == 2 and "'ddpm', 'ddim', 'dpmpp_2m', 'dpmpp_2m_sde', 'heun'" in err


def test_35_a_shell_completes_commands():
    environment = {"_CALOTYPE_COMPLETE": "complete_bash", "COMP_WORDS": "calotype sa"}
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; sys.argv[0] = 'calotype'\nimport calotype.cli as c\n"
            "assert 'torch' not in sys.modules; c.run()",
        ],
        env={**os.environ, **environment, "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout.split() == ["sample"], done.stderr


def test_35_a_refused_pickle_is_told_in_our_words(tmp_path):
    import argparse

    from calotype.interop.pickle_worker import main

    torch.save({"a": argparse.Namespace(x=1)}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(b"\x80\x02garbage")
    for name, text in [("x.pt", "it holds argparse.Namespace, which"), ("y.pt", "damaged")]:
        printed = io.StringIO()
        stdout, sys.stdout = sys.stdout, printed
        try:
            assert main([str(tmp_path / name), str(tmp_path), str(2**40)]) == 1
        finally:
            sys.stdout = stdout
        reason = json.loads(printed.getvalue())["error"]
        assert text in reason and "weights_only" not in reason


def test_a_weights_file_is_read_as_what_it_is(tmp_path):
    """Finding 21: headers and hashes."""
    from calotype.errors import CalotypeError

    fifo(tmp_path / "w.safetensors")
    for read in (headers.read_header, reading.file_sha256):
        with pytest.raises(CalotypeError, match="is a FIFO"):
            read(tmp_path / "w.safetensors")
    assert run(["info", str(tmp_path / "w.safetensors")]) == 2


def test_an_input_without_an_end_is_refused_and_not_kept(monkeypatch, tmp_path):
    import io
    import types

    from calotype.errors import UsageError
    from calotype.generation import prompts

    monkeypatch.setattr(prompts, "_MOST_INPUT_BYTES", 3 << 20)
    monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=io.BytesIO(bytes(9 << 20))))
    with (
        pytest.raises(UsageError, match="got more than"),
        prompts.open_prompts(Path("-"), shared=tmp_path),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_input_is_not_left_behind_by_a_signal(tmp_path, number):
    script = (
        "import sys; from pathlib import Path\n"
        "from calotype.generation.prompts import open_prompts\n"
        "with open_prompts(Path('-'), shared=Path(sys.argv[1])): pass\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE)
    process.stdin.write(bytes(3 << 20))
    process.stdin.flush()
    while not list(tmp_path.glob(".prompts-*/input.txt")):
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert list(tmp_path.iterdir()) == []
