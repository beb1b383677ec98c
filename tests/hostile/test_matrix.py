"""Hostile inputs against every command that reads such a thing.

Whatever is in it: an exit code of 0, 1 or 2, at most three lines of error, no traceback, no
"defect", within limits of time and memory; and every byte outside `out` as it was before.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from apart import Outcome, in_child, tree
from things import CANARY, THINGS

from calotype.cli import run

pytestmark = pytest.mark.slow

TRAIN = "--out out/run --quiet --device cpu --dtype float32 --threads 1 --images 8"
SAMPLE = "--dtype float32 --device cpu --threads 1"
DRAW = f"sample left --model cascade -o out/a.png {SAMPLE}"
FIT = f"train micro.json --data images {TRAIN}"
NEW = "--protocol caption --suite captions-all.txt"

# The name of the thing, and the commands that read it; {} stands for its path.
COMMANDS = {
    "x.json": (
        f"train {{}} --data images {TRAIN}",
        "train {} --dry-run",
        "info {}",
    ),
    "cascade-x": (
        f"sample left --model {{}} -o out/a.png {SAMPLE}",
        f"upscale image.png --model {{}} -o out/a.png {SAMPLE}",
        "info {}",
        "export --model {} -o out/e",
        "assemble run -o {}",
        f"train micro.json --init {{}} --data images {TRAIN}",
    ),
    "x.txt": (f"sample --from-file {{}} --model cascade -o out/a.png {SAMPLE}",),
    "x.png": (
        f"sample left --like {{}} --model cascade -o out/a.png {SAMPLE}",
        f"upscale {{}} --model cascade -o out/a.png {SAMPLE}",
        "info {}",
    ),
    "x.safetensors": (
        f"sample left --lora {{}} --model cascade -o out/a.png {SAMPLE}",
        f"train micro.json --init {{}} --data images {TRAIN}",
    ),
    "x.pt": ("convert {} -o out/c", "convert {} -o out/c --text-encoder bytes:8", "info {}"),
    "run-x": (
        "train micro.json --data images --out {} --quiet",
        "train micro.json --data images --out {} --quiet --resume",
        "assemble {} -o out/c",
        "report {} -o out/r.html",
        "ema {} --length 0.1 -o out/ema.safetensors",
        "info {}",
    ),
    "data-x": (
        f"train micro.json --data {{}} {TRAIN}",
        "data verify {} --processes 1",
        "data verify {} --processes 1 --out out/v.json",
        "data stats {} --processes 1 -o out/s.svg",
        "data shard {} --out out/s --processes 1",
        "data shard images --out {} --processes 1",
        "data embed {} --encoder bytes:8 --out out/e --processes 1",
    ),
    "study-x": (
        f"rate new {{}} --set a=images {NEW}",
        f"rate new out/s --set a={{}} {NEW}",
        f"rate new out/s --set a=images {NEW.replace('captions-all.txt', '{}')}",
        f"rate new out/s --set a=images --consent {{}} {NEW}",
        f"rate new out/s --set a=images --best-of a=2:clip:{{}} {NEW}",
        "rate report {} -o out/r",
        "rate serve {} --port 0",
    ),
    "x.tar": (f"train micro.json --data {{}} {TRAIN}", "data verify {} --processes 1"),
    "x.parquet": (
        f"train micro.json --data {{}} {TRAIN}",
        "data verify {} --processes 1",
        "data shard {} --out out/s --processes 1",
    ),
}

# A folder of the world, a file in it that the thing takes the place of (or is put beside), and the
# commands that read the folder. What --resume writes into is its own output: it lies in `out`.
WITHIN = {
    ("images", "x.png"): (FIT, "data verify images"),
    ("images", "left.png"): (
        FIT,
        "data shard images --out out/s",
    ),
    ("images", "left.txt"): (
        FIT,
        "data shard images --out out/s",
    ),
    ("images", "metadata.jsonl"): (FIT, "data verify images"),
    ("images", "metadata.csv"): (FIT, "data verify images"),
    ("images", "x.tar"): (FIT, "data verify images"),
    ("images", "dataset_info.json"): (FIT,),
    ("shards", "00000.parquet"): (f"train micro.json --data shards {TRAIN}", "data verify shards"),
    ("cascade", "cascade.json"): (
        DRAW,
        "info cascade",
    ),
    ("cascade", "8/stage.json"): (DRAW, "info cascade"),
    ("cascade", "8/weights.safetensors"): (
        DRAW,
        f"train micro.json --init cascade --data images {TRAIN}",
    ),
    ("cascade", "README.md"): (DRAW,),
    ("study", "study.json"): ("rate report study -o out/r", "rate serve study --port 0"),
    ("study", "images/*.png"): ("rate report study -o out/r", "rate serve study --port 0"),
    ("out/study", "answers.sqlite"): ("rate report out/study -o out/r",),
    ("run", "recipe.json"): (
        "train micro.json --data images --out run --quiet",
        "report run -o out/r",
    ),
    ("run", "log.jsonl"): ("report run -o out/r.html", "assemble run -o out/c"),
    ("out/run", "log.jsonl"): ("train micro.json --data images --out out/run --resume --quiet",),
    ("out/run", "recipe.json"): ("train micro.json --data images --out out/run --resume --quiet",),
    ("out/run", "checkpoints/*/manifest.json"): (
        "train micro.json --data images --out out/run --resume --quiet",
        "ema out/run --length 0.1 -o out/ema.safetensors",
    ),
    ("out/run", "checkpoints/*/ema.safetensors"): (
        "train micro.json --data images --out out/run --resume --quiet",
        "assemble out/run -o out/c",
    ),
}


def command(words: Sequence[str], folder: Path, *, closed: Sequence[int] = ()) -> Outcome:
    """A command in a process of its own."""
    return in_child(lambda: run(list(words)), folder, closed=closed)


def check(outcome: Outcome, words: Sequence[str]) -> None:
    """What every outcome has to be."""
    line = " ".join(words)
    assert outcome.code is not None, f"{line} hangs: {outcome}"
    assert outcome.code in (0, 1, 2), f"{line}: {outcome}"
    assert "Traceback" not in outcome.err and "defect" not in outcome.err, f"{line}: {outcome}"
    if outcome.code:
        assert outcome.err.count("\n") <= 3 and outcome.err.strip(), f"{line}: {outcome}"


def check_whole(outcome: Outcome, line: str, folder: Path) -> None:
    """A study or a report is there as a whole, or not at all."""
    if line.startswith("rate"):
        for name, last in (("s", "study.json"), ("r", "report.html")):
            made = folder / "out" / name
            assert made.exists() == (made / last).exists(), f"{line}: {outcome}"
            assert outcome.code == 0 or not made.exists(), f"{line}: {outcome}"


def outside(folder: Path) -> dict[str, str]:
    """The tree without what commands were told to write."""
    return {name: what for name, what in tree(folder).items() if not name.startswith("out/")}


def _is_work(thing: str, line: str) -> bool:
    """Looking at ten million rows, one by one, takes minutes and says how far it is: no hang."""
    return thing == "many rows" and line.startswith(("data verify", "data shard"))


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_thing_by_its_name(place: Path, name: str, thing: str) -> None:
    made = in_child(lambda: THINGS[thing](place / name) or 0, place)
    assert made.code == 0, made
    before = outside(place)
    for line in COMMANDS[name]:
        if _is_work(thing, line):
            continue
        words = [word.replace("{}", name) for word in line.split()]
        outcome = command(words, place)
        check(outcome, words)
        check_whole(outcome, line, place)
        after = outside(place)
        # An empty folder is a fair target.
        changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
        if thing == "folder" and outcome.code == 0:
            changed = {key for key in changed if not key.startswith(name)}
            shutil.rmtree(place / name)
            (place / name).mkdir()
        if thing == "dangling" and outcome.code == 0:  # written where the link points to
            changed = {key for key in changed if not key.startswith("nowhere")}
            shutil.rmtree(place / "nowhere", ignore_errors=True)
        assert not changed, f"{' '.join(words)} changed {sorted(changed)}"
        assert not (place / CANARY).exists()
        shutil.rmtree(place / "out")
        (place / "out").mkdir()


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("where", WITHIN, ids="/".join)
def test_a_thing_in_the_place_of_a_file(place: Path, where: tuple[str, str], thing: str) -> None:
    folder, name = where
    for line in WITHIN[where]:
        if _is_work(thing, line):
            continue
        if folder.startswith("out"):
            shutil.copytree(place / Path(folder).name, place / folder, symlinks=True)
        # `latest` is a link to one of them.
        found = sorted({os.path.realpath(path) for path in (place / folder).glob(name)})
        for path in [Path(one) for one in found] or [place / folder / name]:
            if path.is_file() or path.is_symlink():
                path.unlink()
            assert in_child(lambda path=path: THINGS[thing](path) or 0, place).code == 0
        before = outside(place)
        words = line.split()
        outcome = command(words, place)
        check(outcome, words)
        check_whole(outcome, line, place)
        assert outside(place) == before, line
        assert not (place / CANARY).exists()
        shutil.rmtree(place / "out")
        (place / "out").mkdir()
        for path in list((place / folder).glob(name)):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


NUMBERS = (
    *("", "x", "-1", "0", "nan", "inf", "-inf", "1e300", "1e-300", "1e400", "0x10", "1_0", "٣"),
    *("9" * 400, "9" * 5000, str(2**63), "-0.0", "true", "[]", "null", "1e9999"),
)
NUMBER_COMMANDS = (
    *(
        f"{DRAW} --{name}={{}}"
        for name in (
            "steps",
            "guidance",
            "seed",
            "size",
            "variety",
            "threads",
            "width",
            "height",
        )
    ),
    *(
        f"{DRAW} --stage-option 8:{name}={{}}"
        for name in (
            "steps",
            "guidance_weight",
            "sigma_min",
            "sigma_max",
            "rho",
            "threshold_percentile",
            "guidance_rescale",
            "ddpm_interpolation",
            "guidance_interval",
            "timesteps",
            "sampler",
        )
    ),
    f"{DRAW} -n {{}} --grid",
    f"sample --from-file captions.txt --model cascade -o out/a.png {SAMPLE} --batch {{}}",
    *(
        f"{FIT} --set {name}={{}}"
        for name in (
            "batch_size",
            "optimizer.learning_rate",
            "optimizer.betas",
            "optimizer.eps",
            "optimizer.grad_clip_norm",
            "optimizer.warmup_images",
            "optimizer.decay_from",
            "optimizer.weight_decay",
            "levels.mean",
            "ema_halflife_images",
            "text_dropout",
            "checkpoint_images",
            "stage.data_std",
            "stage.network.text_dim",
            "stage.network.head_dim",
            "stage.network.embed_dim",
            "stage.resolution",
        )
    ),
    f"{FIT} --seed={{}}",
    "data shard images --out out/s --processes 1 --rows={}",
    "data embed images --out out/e --processes 1 --encoder bytes:{}",
    "ema run --length={} -o out/ema.safetensors",
    *(
        f"rate new out/s --set a=images {NEW} --{name}={{}}"
        for name in ("seed", "raters", "per-rater", "images", "size")
    ),
)


@pytest.mark.parametrize("line", NUMBER_COMMANDS)
def test_numbers(place: Path, line: str) -> None:
    before = outside(place)
    for number in NUMBERS:
        words = [word.replace("{}", number) for word in line.split()]
        check(command(words, place), words)
        shutil.rmtree(place / "out")
        (place / "out").mkdir()
    assert outside(place) == before


# Links to devices: were these run as root, a rename would take the device itself away.
NAMES = (
    *("", ".", "..", "/", "a\0b.png", "x" * 300 + ".png", "\udcff.png", ".png", "full.png"),
    *("null.png", "fifo.png", "no/such/folder.png", "../image.png/x.png", "\n.png", "-", "~"),
)
NAME_COMMANDS = (
    f"sample left --model cascade {SAMPLE} -o {{}}",
    f"sample --from-file captions.txt --model cascade {SAMPLE} -o {{}}",
    "assemble run -o {}",
    "data verify images --processes 1 --out {}",
    "data verify {} --processes 1",
    "data shard images --processes 1 --out {}",
    "report run -o {}",
    "info {}",
    "train micro.json --data images --quiet --device cpu --dtype float32 --out {}",
    "train {} --data images --out out/run",
    f"rate new {{}} --set a=images {NEW}",
    "rate report {} -o out/r",
)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("line", NAME_COMMANDS)
def test_names(place: Path, line: str, name: str) -> None:
    if name in ("", ".", "..", "/", "~", "-") and ("verify {}" in line or "shard" in line):
        pytest.skip("a folder of images or of the machine, which may be read and written to")
    (place / "here").mkdir()
    for device in ("full", "null"):
        (place / "here" / f"{device}.png").symlink_to(f"/dev/{device}")
    os.mkfifo(place / "here" / "fifo.png")
    before = outside(place)
    words = [word.replace("{}", name.replace(" ", "_")) for word in line.split()]
    words = [word.replace("images", "../images").replace("run", "../run") for word in words]
    words = [word.replace("cascade", "../cascade").replace("micro", "../micro") for word in words]
    words = [word.replace("captions", "../captions") for word in words]
    check(command(words, place / "here"), words)
    after = {key: what for key, what in outside(place).items() if not key.startswith("here")}
    assert after == {key: what for key, what in before.items() if not key.startswith("here")}


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (1, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize(
    "line",
    [
        DRAW,
        f"sample --from-file - --model cascade -o out/a.png {SAMPLE}",
        FIT,
        "info cascade",
        "nonsense",
        "data verify images --processes 1",
    ],
)
def test_31_closed_streams(place: Path, line: str, closed: tuple[int, ...]) -> None:
    outcome = command(line.split(), place, closed=closed)
    assert outcome.code in (0, 1, 2), outcome
    assert "Traceback" not in outcome.err and "defect" not in outcome.err, outcome


def test_a_name_that_is_not_utf_8(place: Path) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    shutil.copy(place / "images" / "left.png", place / "images" / name)
    for line in (
        FIT,
        "data shard images --out out/s --processes 1",
        "data verify images --processes 1 --out out/v.json",
        "data embed images --encoder bytes:8 --out out/e --processes 1",
    ):
        outcome = command(line.split(), place)
        check(outcome, line.split())
        assert outcome.code == 0, outcome
