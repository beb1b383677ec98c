"""Every command and every Python block that the pages show, run as it is printed.

A page is a story: its blocks run in order in one folder. `<!-- slow -->` above a block leaves it to
the slow tests; `<!-- not run: REASON -->` has its options checked and no more. The blocks of a page
under `<!-- served -->` are a story of their own, told to a server in the place of 127.0.0.1:8000.
"""

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

from calotype.cascade import find
from calotype.cli import app, run

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")],
    key=lambda page: page.name,
)
# Everything that is not run, and why.
REASONS = {
    "hours",
    "about half an hour on two cores",
    "serves until Ctrl-C",
    "needs a server",
    "installs packages",
    "needs a cascade of IF's architecture",
    "needs published weights",
    "needs a Ray cluster",
    "needs Docker",
    "needs npm, and renders for about half an hour",
    "trains the embedded base for minutes",
    "writes into docs",
}
# The README's two commands are run, as they are, in a fresh environment by .ci/run.
FIRST_COMMANDS = ("pip install . && ", "pip install '.[dev]' && pytest")
BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclass(frozen=True)
class Block:
    """A block of code: "bash" or "python", what is said above it, its text."""

    kind: str
    note: str
    text: str

    @property
    def is_slow(self):
        return self.note == "slow"

    @property
    def is_served(self):
        return self.note == "served"

    @property
    def is_run(self):
        return not self.note.startswith("not run") and not self.is_served

    @property
    def lines(self):
        return [line for line in self.text.replace("\\\n", " ").splitlines() if line.strip()]


def blocks(page):
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    all_blocks = [Block(m["kind"], m["note"] or "", m["text"]) for m in found]
    return [block for block in all_blocks if block.kind != "text"]


def perform(block, names):
    """Run a block; Python blocks of a page share their names."""
    if block.kind == "python":
        exec(compile(block.text, "page", "exec"), names)
        return
    for line in block.lines:
        if line == FIRST_COMMANDS[1]:
            continue
        words = shlex.split(line.removeprefix(FIRST_COMMANDS[0]))
        if words[0] == "calotype":
            assert run(words[1:]) == 0, line
        else:
            subprocess.run(line, shell=True, check=True, timeout=600)


def perform_served(block, names, address):
    """Run a block against a server; lines of the shell share their variables."""
    text = block.text.replace("127.0.0.1:8000", address.removeprefix("http://"))
    if block.kind == "python":
        exec(compile(text, "page", "exec"), names)
    else:
        subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True, timeout=600)


def check_options(line):
    """Parse a command without running it."""
    words = shlex.split(line.removeprefix(FIRST_COMMANDS[0]))
    if words[0] != "calotype":
        return
    command, words = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    command.make_context("calotype", list(words))


def test_blocks_are_of_known_kinds():
    everything = [block for page in PAGES for block in blocks(page)]
    assert len(everything) > 40
    for block in everything:
        assert block.kind in ("bash", "python"), block
        known = ("", "slow", "served")
        assert block.note in known or block.note.removeprefix("not run: ") in REASONS, block


def test_the_first_two_commands_come_first():
    first, second = blocks(ROOT / "README.md")[:2]
    prompt = "a slice of pizza, glossy gradient style"
    command = f'{FIRST_COMMANDS[0]}calotype sample "{prompt}" -o pizza.png\n'
    assert (first.text, second.text) == (command, FIRST_COMMANDS[1] + "\n")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page):
    for block in blocks(page):
        if block.kind == "bash":
            for line in block.lines:
                check_options(line)
        else:
            compile(block.text, page.name, "exec")


TRAINING = [page for page in PAGES if any(block.is_slow for block in blocks(page))]
LONG = {
    "README.md", "editing.md", "evaluation.md", "interop.md", "python-api.md", "rating.md",
    "sampling.md",
}  # fmt: skip
# What trains runs all blocks of its page, so that a long page need not be run twice.
TWICE = {page for page in TRAINING if page.name in LONG}
STORIES = [
    page
    for page in PAGES
    if page not in TWICE and any(b.is_run and not b.is_slow for b in blocks(page))
]
SERVED = [page for page in PAGES if any(block.is_served for block in blocks(page))]


def _story(page):
    marks = [pytest.mark.slow] if page.name in LONG else []
    return pytest.param(page, marks=marks, id=page.name)


@pytest.mark.parametrize("page", [_story(page) for page in STORIES])
def test_commands_run(page, prepared):
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.is_run and not block.is_slow:
            perform(block, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", TRAINING, ids=lambda page: page.name)
def test_commands_that_train_run(page, workplace, stand_in, monkeypatch):
    if not (Path(find.__file__).parents[1] / "assets" / "default" / find.CASCADE_FILE).is_file():
        monkeypatch.setattr(find, "__file__", str(stand_in / "cascade" / "find.py"))
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.is_run:
            perform(block, names)


@pytest.mark.slow
@pytest.mark.parametrize("page", SERVED, ids=lambda page: page.name)
def test_commands_to_a_server_run(page, workplace, served, monkeypatch):
    (workplace / ".curlrc").write_text("fail-with-body\nmax-time = 300\n")
    monkeypatch.setenv("CURL_HOME", str(workplace))
    names = {"__name__": "page"}
    for block in blocks(page):
        if block.is_served:
            perform_served(block, names, served)
