import os
import subprocess
import sys
from importlib import import_module

import pytest
from typer.testing import CliRunner

import calotype
from calotype.cli import app
from calotype.errors import CalotypeError


def process(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "calotype", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=120,
        check=False,
    )


def test_help_names_every_command_and_loads_no_torch():
    code = "import sys, calotype.cli; assert 'torch' not in sys.modules; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for name in ("sample", "upscale", "train", "assemble", "data", "info"):
        assert name in result.output


def test_help_of_negative_says_when_it_has_no_effect():
    assert "no effect" in CliRunner().invoke(app, ["sample", "--help"]).output


def test_exit_codes_of_the_process(tmp_path):
    version = process("--version")
    assert (version.returncode, version.stdout.strip()) == (0, f"calotype {calotype.__version__}")
    missing = process("sample", "x", "-o", str(tmp_path / "no" / "a.png"))
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1 and "make it first" in missing.stderr
    assert process("sample", "x", "--steps", "many").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["nonsense"], ["sample", "--seed", "x", "a"], ["upscale"], ["data", "emoji"]],
)
def test_wrong_usage_is_one_line_and_code_2(command, arguments):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("calotype: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (CalotypeError("two\nlines"), 1, "two lines"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("[enforce] can't allocate memory: you tried"), 1, "out of memory"),
        (OSError(28, "No space left on device"), 1, "No space left"),
        (ZeroDivisionError("oops"), 1, "CALOTYPE_DEBUG=1"),
    ],
)
def test_any_error_becomes_one_line(command, monkeypatch, error, code, text):
    def fail(name):
        raise error

    monkeypatch.setattr(import_module("calotype.cli.info"), "_describe", fail)
    got, out, err = command("info", "x")
    assert got == code and text in err and err.count("\n") == 1 and out == ""


def test_an_interrupt_is_130_without_a_traceback(command, monkeypatch):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(import_module("calotype.cli.info"), "_describe", interrupt)
    code, out, err = command("info", "x")
    assert (code, out, err) == (130, "", "calotype: interrupted\n")


def test_debug_shows_the_traceback(command, monkeypatch):
    monkeypatch.setenv("CALOTYPE_DEBUG", "1")
    with pytest.raises(CalotypeError):
        command("info", "nothing-of-the-kind")
