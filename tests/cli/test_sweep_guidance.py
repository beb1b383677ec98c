"""`calotype sweep-guidance` as a user calls it."""

import json
import re

import pytest
import torch

from calotype.config.clip import ClipConfig, ImageTowerConfig, NoiseConfig, TextTowerConfig
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.options import MeasureOptions
from calotype.evaluation.samples import open_samples
from calotype.evaluation.sweep.guidance import GuidanceSweep, plan_points
from calotype.generation.request import GuideRequest, Request
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.vision.clip import ClipFile, ClipModel, find_clip, save_clip

QUICK = ("--threads", "1", "--dtype", "float32", "--features", "clip")
GRID = ("--weights", "1,3", "--scales", "0,20", "--samples", "8", "--steps", "2")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Folders of CLIPs with random weights: one knows noise."""
    root = tmp_path_factory.mktemp("clips")
    tower = {"width": 16, "layers": 1, "heads": 2}
    for seed, (name, noise) in enumerate((("guide", NoiseConfig()), ("judge", None))):
        config = ClipConfig(
            image=ImageTowerConfig(resolution=8, patch=4, **tower),
            text=TextTowerConfig(states=16, context=16, **tower),
            embed_dim=8,
            noise=noise,
        )
        file = ClipFile(
            format=1, name=name, text_encoder="bytes:16", sha256="", clip=config,
            text_fingerprint=ByteTextEncoder(16).fingerprint,
        )  # fmt: skip
        torch.manual_seed(seed)
        save_clip(root / name, ClipModel(file, Clip(config)))
    return root


@pytest.fixture
def sweep(command, clips, images, model):
    """Compare; (exit code, stdout, stderr)."""

    def run(*words, guide="guide", judge="judge", data=images):
        roles = ("--clip", str(clips / guide), "--judge", str(clips / judge), "--data", str(data))
        return command("sweep-guidance", str(model), *roles, "-o", "g", *QUICK, *GRID, *words)

    return run


@pytest.mark.slow
def test_the_command_compares_and_goes_on(sweep, tmp_path):
    code, out, err = sweep()
    assert code == 0, err
    assert "point 3 of 3: clip-20" in err and out.endswith("g/index.html\n")
    lines = out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines[:4]] == [
        "real images", "unguided", "free-3", "clip-20",
    ]  # fmt: skip
    assert all("guide's CLIP score" in line and "judge's" in line for line in lines[:4])
    assert "KID" in lines[1] and lines[4].startswith("adversarial: ")
    sets = [open_samples(tmp_path / "g" / "points" / name) for name in ("unguided", "clip-20")]
    assert [s.seed for s in sets[0].samples] == [s.seed for s in sets[1].samples]
    page = (tmp_path / "g" / "index.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "clip-emoji" in page
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "g").rglob("00000.parquet")}
    code, out, err = sweep("--json")
    assert code == 0 and err == "", err
    assert json.loads(out).keys() == {"page", "adversarial", "overrated"}
    assert len(written) == 4
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())
    code, _, err = sweep("--seed", "1")
    assert code == 2 and "choose another folder" in err


@pytest.mark.parametrize(
    ("words", "roles", "message"),
    [
        ((), {"guide": "judge"}, "never saw noise"),
        ((), {"judge": "guide"}, "as guide and as judge"),
        ((), {"judge": "nothing"}, "expected a folder with clip.json"),
        (("--weights", "1,a"), {}, "got --weights '1,a'; expected numbers"),
        (("--scales", "0"), {}, "expected at least one above 0"),
        (("--samples", "9"), {}, "got 8 images"),
        (("--samples", "0"), {}, "got --samples 0"),
        (("--guidance-form", "mean", "--sampler", "ddim"), {}, "whose steps have no variance"),
        (("--features", "lite1"), {}, "got --features 'lite1'"),
        (("--split", "train"), {}, "no splits"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(sweep, tmp_path, words, roles, message):
    code, out, err = sweep(*words, **roles)
    assert code != 0 and out == "" and err.count("\n") == 1 and message in err, err
    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(("asked", "steps"), [(20, 20), (None, 32)])
def test_all_points_of_a_base_with_a_draft_start_alike(asked, steps):
    """The embedded base starts from its draft, but where a guide pulls: so does no other point."""
    judge = ExtractorSpec("clip", find_clip(None))
    options = MeasureOptions(side=64, extractors=(), judge=judge)
    request = Request(steps=asked, guides=GuideRequest(clip_scale=1.0))
    sweep = GuidanceSweep(request, plan_points([1, 3], [2]), options)
    bases = [job.sampling[64] for job in sweep.jobs]
    assert [(base.start, base.variety, base.steps) for base in bases] == 3 * [("draft", 1.0, steps)]
    assert [base.guidance_weight for base in bases] == [1, 3, 1]
    assert [[guide.note.name for guide in job.guides] for job in sweep.jobs] == [
        [], [], ["clip-emoji-noised"],
    ]  # fmt: skip
