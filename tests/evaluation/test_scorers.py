"""Other people's programs score images; they may also die or talk nonsense."""

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.scorers import Scorer, parse_scorer, score_samples
from calotype.evaluation.suites.suite import Prompt, Suite

GOOD = """
import json, sys
from PIL import Image
for line in sys.stdin:
    asked = json.loads(line)
    red = Image.open(asked["image"]).convert("RGB").getpixel((0, 0))[0]
    print(json.dumps({"key": asked["key"], "score": red + len(asked["caption"]) / 100}), flush=True)
"""


@pytest.fixture
def samples(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(70):  # two shards
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    suite = Suite("s", tuple(Prompt(f"p{n}", "x" * (n + 1)) for n in range(70)), "0" * 64)
    import_samples(folder, suite, tmp_path / "set")
    return open_samples(tmp_path / "set")


def scorer(program):
    return Scorer("red", (sys.executable, "-c", program))


def test_every_image_is_scored_once(samples, tmp_path):
    seen = []
    found = score_samples(samples, scorer(GOOD), tmp_path / "kept", on_shard=seen.append)
    assert seen == [64, 6]
    assert found == pytest.approx([n + (n + 1) / 100 for n in range(70)])
    marked = GOOD.replace("for line", "raise SystemExit(3)\nfor line")
    kept = Scorer("red", (sys.executable, "-c", GOOD))
    assert score_samples(samples, kept, tmp_path / "kept", on_shard=seen.append) == found
    with pytest.raises(CalotypeError):  # another command has scores of its own
        score_samples(samples, scorer(marked), tmp_path / "kept", on_shard=seen.append)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import sys; sys.exit('no memory')", "ended after 0 of 64.*exit code 1.*no memory"),
        ("print('hello')", "wrote b'hello"),
        ("print('[1]')", "wrote"),
        ('print(\'{"key": "other", "score": 1}\')', "gave 1.0 to 'other'"),
        ('print(\'{"key": "000000-0", "score": NaN}\')', "gave nan"),
    ],
)
def test_programs_that_die_or_talk_nonsense(samples, tmp_path, program, message):
    with pytest.raises(CalotypeError, match=message) as caught:
        score_samples(samples, scorer(program), tmp_path / "kept", on_shard=lambda n: None)
    assert "\n" not in str(caught.value)


SILENT = {
    "never answers": "import time; time.sleep(600)",
    "reads and never answers": "import sys, time\nfor line in sys.stdin: pass\ntime.sleep(600)",
    "empty lines": "import time\nwhile True: print(flush=True); time.sleep(0.01)",
    "one answer again and again": (
        "import time\nwhile True:\n"
        ' print(\'{"key": "000000-0", "score": 1}\', flush=True); time.sleep(0.01)'
    ),
    "half a line": "import sys, time; print('{\"key\"', end='', flush=True); time.sleep(600)",
    "a child that holds its output": (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time;"
        " time.sleep(600)'])"
    ),
}


@pytest.mark.parametrize("kind", SILENT)
@pytest.mark.timeout(60)
def test_programs_that_do_not_answer_are_ended_in_time(samples, tmp_path, kind):
    waits = replace(scorer(SILENT[kind]), timeout_seconds=0.5)
    with pytest.raises(
        CalotypeError, match=r"answered no more after [01] of 64.*0\.5 sec"
    ) as caught:
        score_samples(samples, waits, tmp_path / "kept", on_shard=lambda n: None)
    assert "\n" not in str(caught.value) and "--scorer-timeout" in str(caught.value)


@pytest.mark.timeout(60)
@pytest.mark.slow
def test_whatever_the_program_started_ends_with_it(samples, tmp_path):
    note = tmp_path / "pid"
    child = f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    program = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    waits = replace(scorer(program), timeout_seconds=2.0)
    with pytest.raises(CalotypeError, match="answered no more"):
        score_samples(samples, waits, tmp_path / "kept", on_shard=lambda n: None)
    number = int(note.read_text())
    for _ in range(200):  # its new parent may not have noticed yet
        state = Path(f"/proc/{number}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {number} goes on")


@pytest.mark.slow
def test_the_limit_is_for_each_answer_and_changes_no_score(samples, tmp_path):
    slow = GOOD.replace("import json, sys", "import json, sys, time").replace(
        "    print", "    time.sleep(0.03)\n    print"
    )
    one = replace(scorer(slow), timeout_seconds=1.5)  # 70 answers take longer
    found = score_samples(samples, one, tmp_path / "kept", on_shard=lambda n: None)
    assert len(found) == 70
    other = replace(one, timeout_seconds=0.001)  # scores are found that were made with another
    assert score_samples(samples, other, tmp_path / "kept", on_shard=lambda n: None) == found


@pytest.mark.timeout(60)
def test_answers_to_questions_that_were_not_read(samples, tmp_path):
    """A program that knows the keys, and leaves the questions in the pipe."""
    folder = tmp_path / "in2"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "0.png")
    import_samples(folder, Suite("s", (Prompt("p", "x" * 100_000),), "0" * 64), tmp_path / "set2")
    program = 'import time; print(\'{"key": "000000-0", "score": 1}\', flush=True); time.sleep(99)'
    waits = replace(scorer(program), timeout_seconds=0.5)
    with pytest.raises(CalotypeError, match="read nothing more after 1 answers"):
        score_samples(
            open_samples(tmp_path / "set2"), waits, tmp_path / "k", on_shard=lambda n: None
        )


def test_commands_that_are_none(samples, tmp_path):
    assert parse_scorer("a=python -c 'x y'") == Scorer("a", ("python", "-c", "x y"))
    for text in ("a", "a=", "=b", "a='b"):
        with pytest.raises(UsageError, match="scorer"):
            parse_scorer(text)
    missing = Scorer("a", ("/no/such/program",))
    with pytest.raises(UsageError, match="cannot start"):
        score_samples(samples, missing, tmp_path / "kept", on_shard=lambda n: None)
