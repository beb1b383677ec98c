"""`calotype evaluate` as a user calls it, with extractors that see colours alone."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from calotype.evaluation.results import read_results
from calotype.evaluation.samples import open_samples

PROMPTS = (
    "a red $5 square",
    "<script>alert('red')</script>",
    "\u202ea green square\u202c",
    "a blue square; rm -rf ~",
    "🟨 yellow",
    "{{ cyan }} {% raw %}",
    "x" * 4000 + " pink",
    "grey\u2028square",
)
QUICK = ("--threads", "1", "--dtype", "float32", "--size", "8")


@pytest.fixture
def suite(tmp_path):
    """A suite whose name and prompts are not harmless."""
    path = tmp_path / "s$ <script>alert(1)</script>\u202e.txt".replace("/", "∕")
    path.write_text("".join(f"{caption}\n" for caption in PROMPTS))
    return path


@pytest.fixture
def evaluate(command, eyes, colours, model, suite):
    def run(*words, source=model, out="e"):
        given = ["evaluate", str(source), "-o", out, *words]
        if "--suite" not in words:
            given += ["--suite", str(suite)]
        if "--reference" not in words:
            given += ["--reference", str(colours / "real")]
        return command(*given)

    return run


def test_a_model_is_sampled_and_measured_and_a_rerun_keeps_everything(
    evaluate, tmp_path, monkeypatch
):
    code, out, err = evaluate(*QUICK, "-n", "2")
    assert code == 0, err
    assert "FID[lite0, N=16, 8px]" in out and "CLIP score[clip-colours, N=16, 8px]" in out
    assert out.endswith("e/index.html\n") and "sampling 16 images of 8 prompts" in err
    shards = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.parquet")}
    numbers = json.loads((tmp_path / "e" / "results.json").read_text())

    def never(*args, **options):
        raise AssertionError("loaded")

    monkeypatch.setattr("calotype.cascade.Cascade.load", never)
    again = evaluate(*QUICK, "-n", "2")
    assert again[:2] == (0, out)
    for path, (data, written) in shards.items():
        assert path.read_bytes() == data
        assert path.name == "scores.parquet" or path.stat().st_mtime_ns == written
    assert json.loads((tmp_path / "e" / "results.json").read_text()) == numbers


def test_nothing_of_a_prompt_is_run_by_a_page_or_a_terminal(evaluate, tmp_path):
    code, out, err = evaluate(*QUICK)
    assert code == 0, err
    html = (tmp_path / "e" / "index.html").read_text()
    assert "<script" not in html and "&lt;script&gt;alert(&#39;red&#39;)" in html
    assert not re.search(r"https?://|@import|url\(", html)
    assert "{{ cyan }} {% raw %}" in html and "$5" in html
    assert "\u202e" not in out + err and "\x1b" not in out + err
    samples = open_samples(tmp_path / "e")
    assert tuple(sample.caption for sample in samples.samples) == PROMPTS


def test_json_is_all_that_is_printed(evaluate):
    code, out, err = evaluate(*QUICK, "--json", "--clip", "none")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["page"] == "e/index.html"
    by_metric = {number["metric"]: number for number in found["numbers"]}
    assert by_metric["FID"]["features"] == "lite0" and by_metric["FID"]["count"] == 8


def test_a_clip_that_chose_among_several_is_no_judge(evaluate):
    code, out, err = evaluate(*QUICK, "--best-of", "2")
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if line.startswith("CLIP score"))
    assert "no judge: it chose each image among 2" in line
    (line,) = (line for line in out.splitlines() if line.startswith("FID["))
    assert "no judge" not in line


def test_an_evaluation_is_measured_again_where_it_lies(evaluate, colours, tmp_path):
    assert evaluate(*QUICK)[0] == 0
    code, _, err = evaluate("--side", "16", source=tmp_path / "e", out="again")
    assert code == 0, err
    assert sorted(p.name for p in (tmp_path / "again").iterdir()) == [
        "index.html", "results.json", "scores.parquet",
    ]  # fmt: skip
    results, _ = read_results(tmp_path / "again")
    assert results.side == 16 and results.options["samples"] == str(tmp_path / "e" / "samples")
    suite = str(colours / "suite.txt")
    code, _, err = evaluate("--suite", suite, source=tmp_path / "e", out="other")
    assert code == 2 and "give --suite what they are of" in err


def test_what_cannot_be_measured_is_refused_before_it_is_sampled(evaluate, colours, tmp_path):
    (tmp_path / "few.txt").write_text("a\nb\nc\n")
    (tmp_path / "weights.pth").write_bytes(b"\x80\x02cos\nsystem\n(S'touch ran'\ntR.")
    (tmp_path / "one").mkdir()
    shutil.copy(colours / "real" / "red.png", tmp_path / "one")
    for words, message in (
        (("--suite", "few.txt"), "got a set of 3; expected at least 4 samples"),
        (("--features", "inception=weights.pth"), "weights.pth"),
        (("--features", "inception"), "inception=PATH"),
        (("--features", "dinov2=one"), "one"),
        (("--alexnet", "weights.pth"), "7be5be79"),
        (("--reference", "one"), "got 1 images of one; expected at least 6"),
        (("--reference", "nowhere"), "does not exist"),
        (("--reference-images", "5"), "expected at least 6"),
        (("--reference-split", "val"), "has no splits"),
        (("--training", "one"), "expected at least 2"),
        (("--scorer", "a=no-such-program"), "no program here"),
        (("--scorer", "seed=true"), "a name of its own"),
        (("--scorer", "a\tb=true"), "printable"),
        (("--scorer", "a=true", "--scorer", "a=false"), "two of one name"),
        (("--side", "7"), "expected 8 to 4096"),
        (("-n", "0"), "expected 1 to 10000"),
        (("--workers", "0"), "expected 1 to 4096"),
        (("--features", "colours"), "expected one of lite0"),
    ):
        code, out, err = evaluate(*QUICK, *words)
        assert code in (1, 2) and out == "" and err.count("\n") == 1, err
        assert message in err and "defect" not in err, err
        assert not (tmp_path / "e").exists(), words
    assert not (tmp_path / "ran").exists()


def test_another_suite_in_the_same_place_once_the_first_was_wrong(evaluate, colours, tmp_path):
    """What failed before anything was taken leaves nothing behind that would be in the way."""
    source = colours / "real"
    code, _, err = evaluate(source=source)
    assert code == 2 and "none of a prompt of" in err
    code, _, err = evaluate("--suite", str(colours / "suite.txt"), source=source)
    assert code == 0, err
    results, _ = read_results(tmp_path / "e")
    assert results.side == 16  # that of the images


def test_other_settings_need_another_folder(evaluate, tmp_path):
    assert evaluate(*QUICK)[0] == 0
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    code, _, err = evaluate(*QUICK, "--steps", "1")
    assert code == 2 and "choose another folder" in err
    kept = {p: d for p, d in before.items() if ".cache" not in p.parts}
    assert all(p.read_bytes() == data for p, data in kept.items())


def test_width_and_height_are_kept_as_other_settings_are(evaluate, tmp_path):
    quick = ("--threads", "1", "--dtype", "float32", "--clip", "none")
    code, _, err = evaluate(*quick, "--width", "16", "--height", "8")
    assert code == 0, err
    manifest = open_samples(tmp_path / "e").manifest
    last = manifest.recipe["stages"][-1]
    assert manifest.size == (8, 16) == (last["height"], last["width"])
    assert evaluate(*quick, "--size", "16x8")[0] == 0  # the same
    code, _, err = evaluate(*quick, "--width", "8", "--height", "16")
    assert code == 2 and "choose another folder" in err
    code, _, err = evaluate(*quick, "--size", "8", "--width", "8", out="other")
    assert code == 2 and "got --size and --width" in err and not (tmp_path / "other").exists()


@pytest.mark.slow
def test_a_killed_evaluation_costs_the_shard_in_hand(evaluate, colours, model, suite, tmp_path):
    """A process of its own is killed when its first shard of three is there."""
    words = [
        "evaluate", str(model), "--suite", str(suite), "--reference", str(colours / "real"),
        "-n", "20", "-o", "e", *QUICK, "--clip", "none",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "calotype", *words], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    first = tmp_path / "e" / "samples" / "00000.parquet"
    while not first.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = sorted(path.name for path in first.parent.glob("0*.parquet"))
    assert there[0] == "00000.parquet" and len(there) < 3, there
    written = first.stat().st_mtime_ns
    code, _, err = evaluate(*QUICK, "-n", "20", "--clip", "none")
    assert code == 0 and first.stat().st_mtime_ns == written, err
    code, _, err = evaluate(*QUICK, "-n", "20", "--clip", "none", out="whole")
    assert code == 0, err
    for path in sorted((tmp_path / "whole" / "samples").glob("*.parquet")):
        assert path.read_bytes() == (first.parent / path.name).read_bytes()
    numbers = [read_results(tmp_path / name)[0].numbers for name in ("e", "whole")]
    assert numbers[0] == numbers[1]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write")
def test_a_folder_that_cannot_be_written_to(evaluate, tmp_path):
    (tmp_path / "no").mkdir(mode=0o500)
    code, out, err = evaluate(*QUICK, out="no/e")
    assert (code, out, err.count("\n")) == (1, "", 1) and "may write to" in err
