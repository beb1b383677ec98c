"""Guidance compared: every number against direct computation, resuming, and who is refused."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from calotype.cascade import Cascade
from calotype.cascade.guide import Pull
from calotype.config.clip import (
    ClipConfig,
    ConvTowerConfig,
    ImageTowerConfig,
    NoiseConfig,
    TextTowerConfig,
)
from calotype.data.grammar import CaptionGrammar
from calotype.errors import UsageError
from calotype.evaluation.features.extractor import ExtractorSpec
from calotype.evaluation.measure import Measured
from calotype.evaluation.metrics.kernels import kid
from calotype.evaluation.metrics.manifold import manifold, reference_balls
from calotype.evaluation.options import MeasureOptions, options_of
from calotype.evaluation.report.guidance_page import write_guidance_page
from calotype.evaluation.results import read_results
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.job import seed_of
from calotype.evaluation.samples.real import real_suite
from calotype.evaluation.sweep.guidance import ANY, GuidanceSweep, Point, plan_points
from calotype.evaluation.sweep.guidance_found import GUIDE, JUDGE, guidance_results
from calotype.generation.request import GuideRequest, Request
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.vision.clip import ClipFile, ClipModel, load_clip, save_clip
from calotype.vision.guides import ClipGuide

GRAMMAR = CaptionGrammar(lambda *parts, **how: (), version=1)
POINTS = (Point(), Point(weight=3), Point(scale=30))
SEED = 7


def save_random_clip(folder, seed, *, noise=None, conv=False, resolution=8):
    tower = {"width": 16, "layers": 1, "heads": 2}
    image = ImageTowerConfig(resolution=resolution, patch=4, **tower)
    if conv:
        image = ConvTowerConfig(resolution=resolution, patch=2, channels=(32,), blocks=1)
    text = TextTowerConfig(states=16, context=16, **tower)
    config = ClipConfig(image=image, text=text, embed_dim=8, noise=noise)
    file = ClipFile(
        format=1, name=folder.name, text_encoder="bytes:16", sha256="", clip=config,
        text_fingerprint=ByteTextEncoder(16).fingerprint,
    )  # fmt: skip
    torch.manual_seed(seed)
    save_clip(folder, ClipModel(file, Clip(config)))
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """A guide, a judge, one that does neither, and such as are refused."""
    root = tmp_path_factory.mktemp("clips")
    return {
        "guide": save_random_clip(root / "guide", 1, noise=NoiseConfig()),
        "judge": save_random_clip(root / "judge", 2, conv=True),
        "other": save_random_clip(root / "other", 3),
        "large": save_random_clip(root / "large", 4, noise=NoiseConfig(), resolution=16),
    }


@pytest.fixture(scope="module")
def planned(clips, images, model, tmp_path_factory):
    """Plan a comparison of a model of 8 pixels; keywords name other CLIPs."""
    cache = tmp_path_factory.mktemp("features")

    def plan(points=POINTS, *, form=None, sampler=None, **roles):
        named = {**clips, **{role: clips[name] for role, name in roles.items()}}
        request = Request(
            model=str(model), steps=2, sampler=sampler, threads=1, dtype="float32",
            clip=str(named["guide"]), guides=GuideRequest(clip_scale=1.0, form=form),
        )  # fmt: skip
        specs = {role: ExtractorSpec("clip", named[role]) for role in ("judge", "other")}
        options = MeasureOptions(
            side=8, extractors=(specs["other"],), clip=specs["other"], judge=specs["judge"],
            reference=images, root=cache,
            checks={ANY: lambda image, prompt: prompt.caption.startswith("red")},
        )  # fmt: skip
        return GuidanceSweep(request, points, options, seed=SEED)

    return plan


@pytest.fixture(scope="module")
def real(images):
    return real_suite(images, 8, side=8, split=None, grammar=GRAMMAR)


@pytest.fixture(scope="module")
def ran(planned, real, tmp_path_factory):
    """A comparison: its folder, and what was found."""
    folder = tmp_path_factory.mktemp("comparison")
    return folder, planned().run(folder, real)


def floats(samples):
    return samples.pixels(range(len(samples))).float() / 127.5 - 1


def test_every_number_is_what_direct_computation_gives(ran, real, clips, model):
    folder, found = ran
    models = {role: load_clip(clips[role]) for role in ("guide", "judge", "other")}
    captions = [prompt.caption for prompt in real.suite.prompts]
    seeds = [seed_of(prompt.id, 0, seed=SEED) for prompt in real.suite.prompts]
    cascade = Cascade.load(model, stop_at=8)
    sampling = dataclasses.replace(cascade.stages[0].config.sampling, steps=2)
    truth = {"real": floats(open_samples(folder / "real"))}
    for point in POINTS:
        pulls = [Pull(ClipGuide(models["guide"]), point.scale)] if point.scale else []
        own = dataclasses.replace(sampling, guidance_weight=point.weight)
        images = cascade.sample(
            captions, seeds=seeds, stop_at=8, sampling={8: own}, pulls=pulls
        ).images[0]
        samples = floats(open_samples(folder / "points" / point.name))
        assert (samples - images.clamp(-1, 1)).abs().max() < 2 / 255, point
        truth[point.name] = samples
    assert (truth["unguided"] - truth["clip-30"]).abs().mean() > 0.02
    assert (truth["unguided"] - truth["free-3"]).abs().mean() > 0.02
    scores = {
        (role, name): models[role].scores(images, captions).double()
        for role in models
        for name, images in truth.items()
    }
    features = {name: models["other"].embed_images(images) for name, images in truth.items()}
    for one in found.points:
        for role, metric in (("guide", GUIDE), ("judge", JUDGE), ("other", "CLIP score")):
            expected = float(scores[role, one.name].mean())
            assert one.number(metric).value == pytest.approx(expected, abs=1e-3), (one.name, role)
        sampled, reals = features[one.name], features["real"]  # all real images have a caption
        assert one.number("KID").value == pytest.approx(kid(reals, sampled).value, abs=1e-6)
        distances = manifold(reference_balls(reals), sampled)
        assert one.number("precision").value == pytest.approx(distances.precision.value)
        assert one.number("recall").value == pytest.approx(distances.recall.value)
        assert one.number("found").value == pytest.approx(0.25)
        for role in ("guide", "judge"):
            for name, key in (("real", "real"), ("unguided", "unguided"), ("weaker", "unguided")):
                if (role, name) == ("guide", "weaker"):
                    continue
                difference = getattr(one.differences, f"{role}_from_{name}")
                each = scores[role, one.name] - scores[role, key]
                assert difference.value == pytest.approx(float(each.mean()), abs=1e-3)
                half = 2.3646 * float(each.std()) / 8**0.5  # Student's t of 7
                if name == "real":
                    assert difference.high - difference.value == pytest.approx(half, rel=1e-3)
    assert {one.metric for one in found.real} >= {GUIDE, JUDGE, "CLIP score", "found"}
    real_guide = next(one for one in found.real if one.metric == GUIDE)
    assert real_guide.value == pytest.approx(float(scores["guide", "real"].mean()), abs=1e-3)
    # The guide moved what it looks at, and says so of itself.
    guided, unguided = (found.points[place].number(GUIDE) for place in (2, 0))
    assert guided.value > unguided.value and not guided.is_judge and unguided.is_judge
    assert found.points[2].number(JUDGE).is_judge


def test_files_page_and_sheets(ran):
    folder, found = ran
    data = json.loads((folder / "guidance.json").read_text())
    assert [one["name"] for one in data["points"]] == ["unguided", "free-3", "clip-30"]
    assert data["form"] == "score" and data["adversarial"] == list(found.adversarial)
    best = min(found.points, key=lambda one: one.number("KID").value)
    assert best.name in data["fronts"]["kid-guide"]
    lines = list(csv.DictReader((folder / "guidance.csv").open()))
    assert {line["point"] for line in lines} == {"real", "unguided", "free-3", "clip-30"}
    svg = (folder / "guide-judge.svg").read_text()
    assert "by CLIP, scale" in svg and "classifier-free" in svg and svg.count("real images") == 2
    sets = {"real": open_samples(folder / "real")}
    sets |= {one.name: open_samples(folder / "points" / one.name) for one in found.points}
    write_guidance_page(folder, found, sets)
    page = (folder / "index.html").read_text()
    assert page.count("<figure") == len(data["fronts"]) == 6
    assert {path.stem for path in (folder / "sheets").iterdir()} == set(sets)
    from PIL import Image

    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width > 4 * 64


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(ran, planned, real, tmp_path, monkeypatch):
    shutil.copytree(ran[0], tmp_path, dirs_exist_ok=True)
    files = ("guidance.csv", "kid-judge.svg")
    before = {name: (tmp_path / name).read_bytes() for name in files}
    points = json.loads((tmp_path / "guidance.json").read_text())["points"]
    shard = tmp_path / "points" / "clip-30" / "samples" / "00000.parquet"
    images = shard.read_bytes()
    shard.unlink()
    sampled, generate = [], Cascade.generate

    def counted(self, plan):
        sampled.append(len(plan.captions))
        return generate(self, plan)

    monkeypatch.setattr(Cascade, "generate", counted)
    planned().run(tmp_path, real)
    assert sampled == [8]  # one point alone
    assert shard.read_bytes() == images
    assert {name: (tmp_path / name).read_bytes() for name in files} == before
    assert json.loads((tmp_path / "guidance.json").read_text())["points"] == points
    with pytest.raises(UsageError, match="choose another folder"):
        planned(sampler="ddim").run(tmp_path, real)


def test_the_mean_is_moved_where_steps_have_one(planned):
    *others, guided = planned(form="mean", sampler="ddpm").jobs
    assert [job.guides for job in others] == [(), ()]
    (guide,) = guided.guides
    assert (guide.note.form, guide.note.scale) == ("mean", 30)
    with pytest.raises(UsageError, match="whose steps have no variance"):
        planned(form="mean")


def test_what_is_refused(planned, clips):
    for roles, message in (
        ({"guide": "other"}, "never saw noise"),
        ({"guide": "large"}, "16x16 for a base that samples 8x8"),
        ({"judge": "guide"}, "as guide and as judge; expected a judge that was trained apart"),
        ({"other": "guide"}, "as guide and for features"),
        ({"other": "judge"}, "as judge and for features"),
    ):
        with pytest.raises(UsageError, match=message):
            planned(**roles)


def test_points(images):
    assert plan_points([1, 2], [0, 3]) == (Point(), Point(weight=2), Point(scale=3))
    for weights, scales, message in (
        ([1, 2, 2], [1], "expected each once"),
        ([1], [0], "at least one above 0"),
        ([-1], [1], "got --weights -1"),
        ([1], [float("nan")], "got --scales nan"),
    ):
        with pytest.raises(UsageError, match=message):
            plan_points(weights, scales)


def test_captions_of_real_images(images, tmp_path):
    real = real_suite(images, 3, side=8, split=None, grammar=GRAMMAR)
    more = real_suite(images, 5, side=8, split=None, grammar=GRAMMAR)
    assert {one.id for one in real.suite.prompts} < {one.id for one in more.suite.prompts}
    for prompt in real.suite.prompts:
        assert prompt.caption == (images / prompt.id).with_suffix(".txt").read_text()
    with pytest.raises(UsageError, match="got 8 images"):
        real_suite(images, 9, side=8, split=None, grammar=GRAMMAR)
    with pytest.raises(UsageError, match="no splits"):
        real_suite(images, 3, side=8, split="train", grammar=GRAMMAR)
    (tmp_path / "bare.png").write_bytes((images / "red-left.png").read_bytes())
    with pytest.raises(UsageError, match="without a caption"):
        real_suite(tmp_path, 1, side=8, split=None, grammar=GRAMMAR)


def test_the_verdict(ran):
    """Of scores that were made up: what is fooled, what is merely liked, and what is unsure."""
    folder, _ = ran
    folders = [folder / "real", *(folder / "points" / point.name for point in POINTS)]
    measured = [Measured(*read_results(folder)) for folder in folders]

    def judged(one, guide, judge, *, spread=0.1):
        columns = {
            name: np.linspace(-spread, spread, 8) * (1 if name.startswith(GUIDE) else -1)
            + (guide if name.startswith(GUIDE) else judge)
            for name in one.scores.columns
            if name.startswith((GUIDE, JUDGE))
        }
        return Measured(one.results, dataclasses.replace(one.scores, columns=columns))

    def verdicts(*pairs, spread=0.1):
        reals, *points = (
            judged(one, *pair, spread=spread if place > 1 else 0.1)
            for place, (one, pair) in enumerate(zip(measured, pairs, strict=True))
        )
        return guidance_results(POINTS, points, reals, form="score")

    found = verdicts((30, 30), (20, 25), (29, 29), (35, 22))
    assert found.adversarial == found.overrated == ("clip-30",)
    found = verdicts((30, 30), (20, 25), (29, 29), (35, 28))  # over both, yet better than before
    assert found.adversarial == () and found.overrated == ("clip-30",)
    assert found.points[2].verdict.judge_under_real and not found.points[2].verdict.judge_fell
    found = verdicts((30, 30), (20, 25), (29, 29), (29, 22))  # worse, but nobody is fooled
    assert found.adversarial == found.overrated == ()
    found = verdicts((30, 30), (20, 25), (29, 29), (35, 31))
    assert found.adversarial == found.overrated == ()
    found = verdicts((30, 30), (20, 25), (29, 29), (35, 22), spread=90)  # all within intervals
    assert found.adversarial == found.overrated == ()


def test_the_judge_falls_from_where_it_was_highest(ran):
    folder, _ = ran
    one = Measured(*read_results(folder / "points" / "unguided"))
    points = (Point(), Point(scale=1), Point(weight=2), Point(scale=2), Point(scale=4))
    highs = {Point(scale=1): 8, Point(weight=2): 20, Point(scale=2): 7, Point(scale=4): 3}

    def judged(point):
        columns = {
            name: np.linspace(-0.1, 0.1, 8) * len(name) + highs.get(point, 5)
            for name in one.scores.columns
            if name.startswith((GUIDE, JUDGE))
        }
        return Measured(one.results, dataclasses.replace(one.scores, columns=columns))

    found = guidance_results(points, [judged(p) for p in points], judged(Point()), form="mean")
    falls = [each.differences.judge_from_weaker.value for each in found.points]
    assert falls == pytest.approx([0, 3, 15, -1, -5])  # scale 4 from scale 1, not from weight 2
    assert not Point(weight=0.5).is_weaker(Point(weight=2)) and Point().is_weaker(Point(scale=1))


def test_results_say_how_to_measure_the_same_again(ran):
    results, scores = read_results(ran[0] / "points" / "clip-30")
    options = options_of(results.options)
    assert [whose for whose, _ in options.clips] == ["", "guide's ", "judge's "]
    assert f"{GUIDE} guide" in scores.columns and f"{JUDGE} judge" in scores.columns
    before = {key: value for key, value in results.options.items() if key not in ("guide", "judge")}
    assert options_of(before).clips == options.clips[:1]  # of an earlier version
