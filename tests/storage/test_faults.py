"""A fault at any file operation leaves the old state or the new one, and the run can go on.

The faults: a kill, a full disk, an I/O error, a permission that is missing; `file_faults` makes
them. Of a command not every operation has its turn every time, but CALOTYPE_FAULT_POINTS of them,
spread evenly.
"""

import dataclasses
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from calotype.config.recipe import Recipe
from calotype.config.typed_json import to_dict
from calotype.errors import CalotypeError
from calotype.storage.files import new_folder, write_file
from calotype.training.recipes import load_recipe

sys.path.insert(0, str(Path(__file__).parent))  # for what tests share with other processes
from file_faults import KILLED, Faults

KINDS = ("kill", "ENOSPC", "EIO", "EACCES")
LEFTOVER = re.compile(r"(^|/)\.[^/]*\.(tmp|old)(/|$)|\.parquet\.partial|(^|/)\.(lock|tmp-)")
SECONDS = 60


def tree(folder: Path) -> dict[str, str]:
    """Hash of every file, by name; what killed writers leave under temporary names is apart."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not LEFTOVER.search(path.relative_to(folder).as_posix())
    }


class Server:
    """Commands with faults; see `fault_server`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(folder / "x")}
        environment.pop("CALOTYPE_DEBUG", None)
        script = Path(__file__).with_name("fault_server.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __call__(
        self, words: list[str], root: Path, *, fatal: int = 0, kind: str = "kill"
    ) -> tuple[int, int, str]:
        """Exit code, operations below `root` (of a command that was not killed), what it said."""
        output = self.folder / "output.txt"
        # An image that cannot be read is broken, and is left out of shards and told.
        watched = str(root / "shards") if "shard" in words else f"{root}{os.sep}"
        request = {"words": words, "root": str(root), "watched": watched, "fatal": fatal}
        request["kind"] = kind
        print(json.dumps({**request, "output": str(output)}), file=self.process.stdin, flush=True)
        assert select.select([self.process.stdout], [], [], SECONDS)[0], f"hangs: {words} {fatal}"
        answer = json.loads(self.process.stdout.readline())
        said = output.read_text(errors="replace")
        return answer["code"], answer["operations"], said


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("server"))
    yield started
    started.process.stdin.close()
    started.process.wait(10)


@pytest.fixture(scope="module")
def start(tmp_path_factory, server) -> Path:
    """What the commands begin with: images, a recipe, a run, outputs of before, a user's file."""
    root = tmp_path_factory.mktemp("start")
    (root / "images").mkdir()
    for number, colour in enumerate(("red", "blue", "green", "black")):
        Image.new("RGB", (8, 8), colour).save(root / "images" / f"{number}.png")
        (root / "images" / f"{number}.txt").write_text(colour)
    quick = {"grid_images": 8, "validation_images": 8, "trackers": (), "checkpoint_images": 8}
    stage = dataclasses.replace(load_recipe("tiny").stages[0], total_images=16, **quick)
    recipe = Recipe(name="faults", stages=(stage,))
    (root / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    code, _, said = server(TRAIN("run"), root)
    assert code == 0, said
    for words in (["assemble", "run", "-o", "cascade", "--name", "old"], ["convert-imagen", "im"]):
        code, _, said = server(words, root)
        assert code == 0, said
    (root / "cascade" / "README.md").write_text("mine")
    (root / "report.json").write_text("old")
    (root / "captions.txt").write_text("red\nblue\n")
    (root / "mine.txt").write_text("mine")
    (root / ".mine.tmp").write_text("mine")
    return root


def TRAIN(out: str) -> list[str]:
    common = ["--quiet", "--device", "cpu", "--dtype", "float32", "--threads", "1"]
    return ["train", "recipe.json", "--data", "images", "--out", out, "--resume", *common]


SAMPLE = ["sample", "--from-file", "captions.txt", "-o", "p.png", "--model", "cascade"]
COMMANDS = {
    "train": TRAIN("new"),
    "assemble": ["assemble", "run", "-o", "cascade", "--name", "fresh"],
    "convert": ["convert-imagen", "./im"],
    "shard": ["data", "shard", "images", "--out", "shards", "--rows", "2", "--processes", "1"],
    "sample": [*SAMPLE, "--device", "cpu", "--dtype", "float32", "--threads", "1"],
    "verify": ["data", "verify", "images", "--out", "report.json", "--processes", "1"],
}
# Files that stand for themselves; all others of a command change together or not at all.
SINGLE = ("shard", "sample")


def check_faults(server: Server, start: Path, tmp_path: Path, name: str, *, points: int) -> None:
    words, before = COMMANDS[name], tree(start)
    whole = tmp_path / "whole"
    shutil.copytree(start, whole, symlinks=True)
    code, operations, said = server(words, whole)
    assert code == 0, said
    after = tree(whole)
    assert operations > 3 and after != before
    changed = {path for path in after if after[path] != before.get(path)}
    for turn in range(points):
        fatal, kind = 1 + turn * operations // points, KINDS[turn % len(KINDS)]
        where = f"{name}, {kind} at operation {fatal} of {operations}"
        root = tmp_path / str(turn)
        shutil.copytree(start, root, symlinks=True)
        code, _, said = server(words, root, fatal=fatal, kind=kind)
        check_end(code, said, kind=kind, where=where)
        found = tree(root)
        theirs = {path: digest for path, digest in before.items() if path not in changed}
        assert {path: found.get(path) for path in theirs} == theirs, where
        if name in SINGLE:
            ours = {path: found[path] for path in found if path not in theirs}
            assert ours.items() <= after.items(), where
        elif name == "verify" and code == 0:  # an image that could not be read is told, too
            assert {**found, "report.json": ""} == {**after, "report.json": ""}, where
            assert json.loads((root / "report.json").read_text())["examples"] == 4, where
        elif name != "train":
            assert found in (before, after), where
        code, _, said = server(words, root)
        assert code == 0, f"{where}: {said}"
        if not (root / "new" / "data.json").exists():  # an image that could not be read is told
            check_whole(tree(root), after, name, where=where)
        shutil.rmtree(root)


def check_end(code: int, said: str, *, kind: str, where: str) -> None:
    """An end that people can bear."""
    if kind == "kill":
        assert code in (KILLED, 0), f"{where}: {code} {said}"  # 0: the last operations did not come
        return
    assert code in (0, 1, 2), f"{where}: {code} {said}"
    assert "defect of calotype" not in said and "Traceback" not in said, f"{where}: {said}"
    lines = [line for line in said.splitlines() if line.startswith("calotype:")]
    lines = [line for line in lines if not line.startswith("calotype: data:")]  # said beforehand
    assert code == 0 or len(lines) == 1, f"{where}: {said}"


def check_whole(found: dict[str, str], after: dict[str, str], name: str, *, where: str) -> None:
    """The state that the command would have left without a fault."""
    if name == "train":  # logs tell the time
        weights = re.compile(r"new/checkpoints/.*safetensors|new/grids/.*")
        found = {path: digest for path, digest in found.items() if weights.match(path)}
        after = {path: digest for path, digest in after.items() if weights.match(path)}
        assert after
    assert found == after, where


def in_child(work, root: Path, fatal: int, kind: str) -> tuple[int, int]:
    """Exit code and operations of `work` in a process of its own."""
    number = os.fork()
    if number == 0:
        faults = Faults(f"{root}{os.sep}", fatal, kind)
        try:
            faults.install()
            work()
            code = 0
        except CalotypeError:
            code = 1
        except BaseException:
            code = 99
        faults.busy = True
        (root.parent / "count").write_text(str(faults.count))
        os._exit(code)
    _, status = os.waitpid(number, 0)
    count = root.parent / "count"
    return os.waitstatus_to_exitcode(status), int(count.read_text()) if count.is_file() else 0


def write_one(root: Path) -> None:
    write_file(root / "old.txt", b"new")


def write_some(root: Path) -> None:
    with new_folder(root / "old") as temporary:
        (temporary / "sub").mkdir()
        write_file(temporary / "sub" / "a.txt", b"new")
        (temporary / "b.txt").write_text("new")


@pytest.mark.slow
@pytest.mark.parametrize("work", [write_one, write_some])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_or_folder_is_the_old_or_the_new_one(tmp_path, work, kind):
    def begin(name):
        root = tmp_path / name / "root"
        (root / "old" / "sub").mkdir(parents=True)
        for file in ("old.txt", "old/sub/c.txt", ".mine.tmp"):
            (root / file).write_text("old")
        return root

    whole = begin("whole")
    before = tree(whole)
    code, operations = in_child(lambda: work(whole), whole, 0, kind)
    after = tree(whole)
    assert code == 0 and operations >= 5 and before != after
    for fatal in range(1, operations + 1):
        root = begin(str(fatal))
        code, _ = in_child(lambda root=root: work(root), root, fatal, kind)
        assert code in ((KILLED,) if kind == "kill" else (0, 1)), f"operation {fatal}: {code}"
        assert tree(root) in (before, after), f"operation {fatal}"
        if kind == "ENOSPC":
            left = {path.name for path in root.iterdir()}
            assert left == {"old", "old.txt", ".mine.tmp"}, f"operation {fatal}"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_faults_everywhere(server, start, tmp_path, name):
    points = int(os.environ.get("CALOTYPE_FAULT_POINTS", "5"))  # no multiple of the kinds
    check_faults(server, start, tmp_path, name, points=points)
