"""Other people's programs score images; they may also die or talk nonsense."""

import sys

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


def test_commands_that_are_none(samples, tmp_path):
    assert parse_scorer("a=python -c 'x y'") == Scorer("a", ("python", "-c", "x y"))
    for text in ("a", "a=", "=b", "a='b"):
        with pytest.raises(UsageError, match="scorer"):
            parse_scorer(text)
    missing = Scorer("a", ("/no/such/program",))
    with pytest.raises(UsageError, match="cannot start"):
        score_samples(samples, missing, tmp_path / "kept", on_shard=lambda n: None)
