"""`calotype sweep` as a user calls it: what is sampled in all cells, and what a rerun refuses."""

import json

import pytest

from calotype.evaluation.samples import open_samples

QUICK = ("--threads", "1", "--dtype", "float32", "--clip", "none")


@pytest.fixture
def coco(tmp_path):
    """COCO's captions of twelve images, every fourth with a person."""
    images = [{"id": n, "file_name": f"COCO_val2014_{n:012d}.jpg"} for n in range(12)]
    captions = [
        {"id": n, "image_id": n, "caption": f"a {'man' if n % 4 == 0 else 'red'} square {n}"}
        for n in range(12)
    ]
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps({"images": images, "annotations": captions}))
    (tmp_path / "list.txt").write_text("1\n2\n3\n")
    return path


@pytest.fixture
def sweep(command, eyes, model, coco):
    """Sweep two guidance weights of the base; (exit code, stdout, stderr)."""

    def run(*words, source=model, suite=coco):
        own = ("--suite", str(suite), "--axis", "8:guidance_weight=1,2", "-o", "s", *QUICK)
        return command("sweep", str(source), *own, *words)

    return run


def cells(tmp_path):
    return [open_samples(path) for path in sorted((tmp_path / "s" / "cells").glob("8-*"))]


def test_all_cells_have_the_size_and_the_prompts_that_are_asked_for(sweep, tmp_path):
    words = ("--coco-list", "list.txt", "--width", "16", "--height", "8")
    code, out, err = sweep(*words)
    assert code == 0 and out.endswith("s/index.html\n"), err
    found = cells(tmp_path)
    assert len(found) == 2
    for samples in found:
        assert samples.manifest.size == (8, 16) and len(samples) == 3
        last = samples.manifest.recipe["stages"][-1]
        assert (last["height"], last["width"]) == (8, 16)
        assert "list.txt" in samples.manifest.suite.choices["images"]
    assert found[0].manifest.suite.sha256 == found[1].manifest.suite.sha256
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("00000.parquet")}
    assert sweep(*words)[0] == 0
    for other in (
        ("--coco-list", "list.txt", "--width", "8", "--height", "16"),
        ("--coco-list", "list.txt", "--size", "8"),
        ("--without-people", "words", "--width", "16", "--height", "8"),
    ):
        code, _, err = sweep(*other)
        assert code == 2 and "choose another folder" in err, (other, err)
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--size", "8", "--width", "16"), "got --size and --width or --height"),
        (("--variety", "0.5"), "got --variety 0.5 for a base that starts from noise"),
        (("--without-people", "none.json"), "none.json"),
        (("--scorer", "a=true", "--scorer-timeout", "0"), "got --scorer-timeout 0"),
    ],
)
def test_what_does_not_fit_is_refused_beforehand(sweep, tmp_path, words, message):
    code, out, err = sweep(*words)
    assert code == 2 and out == "" and err.count("\n") == 1 and message in err, err
    assert not (tmp_path / "s").exists()


def test_coco_options_are_of_coco(sweep, tmp_path):
    code, _, err = sweep("--coco-list", "list.txt", suite="emoji-11")
    assert code == 2 and "they are of COCO" in err and not (tmp_path / "s").exists()
