"""The commands of docs/interop.md need files that are not here: their options are checked."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from calotype.cli import app
from calotype.interop.imagen_pytorch.__main__ import _parser

PAGE = Path(__file__).parents[2] / "docs" / "interop.md"
BLOCKS = re.findall(r"^```text\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)
LINES = [line for block in BLOCKS for line in block.splitlines() if not line.startswith("{")]


@pytest.mark.parametrize("line", LINES)
def test_options_exist(line):
    program, *words = shlex.split(line)
    if program == "python":
        assert words[:2] == ["-m", "calotype.interop.imagen_pytorch"]
        _parser().parse_args(words[2:])
        return
    assert program == "calotype"
    command = typer.main.get_command(app).commands[words[0]]
    command.make_context("calotype", words[1:])


@pytest.mark.parametrize("family", ["if", "karlo", "glide", "my-imagen"])
def test_each_family_has_its_way_to_a_picture(family):
    joined = "\n".join(LINES)
    assert re.search(rf"convert .*-o {family}$", joined, re.M)
    assert re.search(rf"sample .*{family} .*-o \w+\.png$", joined, re.M)
