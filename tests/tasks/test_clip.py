"""CLIP in training: it learns, stops and resumes to the bit, and refuses what does not fit."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from killed import TwoProcesses, assert_same_bits
from micro_recipes import COLOURS, noised, noised_in_parts, write_captioned
from micro_recipes import micro_clip as micro
from PIL import Image
from safetensors.torch import load_file

from calotype.cli import run as command
from calotype.config.augmentation import ImageAugmentation
from calotype.config.clip import (
    ConvTowerConfig,
)
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.config.typed_json import from_dict, override, to_dict
from calotype.errors import ConfigError
from calotype.networks.clip import Clip
from calotype.tasks.augmentation import augmented
from calotype.tasks.clip_numbers import clip_numbers
from calotype.tasks.clip_retrieval import Shown, make_pools, retrieval
from calotype.tasks.cost import training_flops
from calotype.tasks.factory import Tasks
from calotype.text import build_text_encoder
from calotype.training import trainer
from calotype.training.recipes import load_recipe
from calotype.training.run import RunOptions, run_recipe
from calotype.vision.clip import ClipFile, ClipModel, load_clip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_captioned(tmp_path_factory.mktemp("clip-images"))


def train(recipe, out, data, *, quiet=True, **options):
    options = RunOptions(quiet=quiet, threads=1, dtype="float32", device="cpu", **options)
    return run_recipe(recipe, data=data, out=out, options=options, tasks=Tasks())


def lines(run, name="log"):
    return [json.loads(line) for line in (run / f"{name}.jsonl").read_text().splitlines()]


def stopped_and_resumed(recipe, images, folder, monkeypatch):
    """Train twice, the second time stopped amid it: the same weights. Returns the losses."""
    assert train(recipe, folder / "whole", images) == 0
    real, steps = trainer.train_step, []

    def step(state, batch):
        steps.append(state.images_seen)
        if len(steps) == 37:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(state, batch)

    monkeypatch.setattr(trainer, "train_step", step)
    assert train(recipe, folder / "stopped", images) == 0
    monkeypatch.undo()
    assert train(recipe, folder / "stopped", images, resume=True) == 0
    for name in ("weights", "ema", "optimizer"):
        whole, stopped = (
            load_file(folder / run / f"checkpoints/800/{name}.safetensors")
            for run in ("whole", "stopped")
        )
        assert all(torch.equal(whole[key], stopped[key]) for key in whole)
    return [line["loss"] for line in lines(folder / "whole")]


@pytest.mark.slow
def test_it_learns_stops_and_resumes_to_the_bit(images, tmp_path, monkeypatch):
    losses = stopped_and_resumed(micro(), images, tmp_path, monkeypatch)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert "scale" in lines(tmp_path / "whole")[0]
    found = lines(tmp_path / "whole", "validation")[-1]
    assert found["trained"]["R@1"] > 0.7
    model = load_clip(tmp_path / "whole")
    red = torch.ones(1, 3, 16, 16)
    red[:, 1:, :8] = -1
    scores = {c: float(model.scores(red, [c])) for c in ("red top", "blue bottom", "black top")}
    assert max(scores, key=scores.__getitem__) == "red top"
    weights = tmp_path / "whole/checkpoints/800/clip/weights.safetensors"
    start = train(micro(total_images=8), tmp_path / "more", images, init=tmp_path / "whole")
    assert start == 0 and weights.is_file()
    assert lines(tmp_path / "more")[0]["loss"] < losses[0]


@pytest.mark.slow
def test_that_of_noise_stops_and_resumes_to_the_bit(images, tmp_path, monkeypatch):
    recipe = noised_in_parts("logsnr")
    losses = stopped_and_resumed(recipe, images, tmp_path, monkeypatch)
    assert sum(losses[-10:]) < sum(losses[:10])
    measures = lines(tmp_path / "whole", "validation")[-1]["trained"]
    assert list(measures)[:3] == ["R@1", "R@5", "R@1 at sigma/alpha 0.2"]


@pytest.mark.slow
def test_that_of_noise_finds_in_little_noise_and_guesses_in_pure_noise(images, tmp_path):
    recipe = noised(micro(total_images=4000, validation_images=4000), "logsnr")
    assert train(recipe, tmp_path / "run", images) == 0
    model = load_clip(tmp_path / "run")
    names = [f"{name} {half}" for name in COLOURS for half in ("top", "bottom")]
    pixels = [np.asarray(Image.open(images / f"{name.replace(' ', '-')}.png")) for name in names]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1
    each = [Shown(image, name, name, "s") for image, name in zip(x, names, strict=True)]
    ratios = (0.1, 0.5, 2e4)
    found = retrieval(model, make_pools(each, []), ratios=ratios)
    clean, little, some, pure = (
        found[f"R@1{at}"] for at in ("", *(f" at sigma/alpha {ratio:g}" for ratio in ratios))
    )
    assert min(clean, little) >= 0.9 and some >= 0.8
    assert pure <= 0.25  # chance is one of eight


def test_convolutions_learn(images, tmp_path):
    (config,) = micro(total_images=160).stages
    tower = ConvTowerConfig(resolution=16, patch=4, channels=(16, 16), blocks=1)
    clip = dataclasses.replace(config.clip, image=tower)
    recipe = Recipe(name="conv", stages=(dataclasses.replace(config, clip=clip),))
    assert train(recipe, tmp_path / "run", images) == 0
    losses = [line["loss"] for line in lines(tmp_path / "run")]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    with pytest.raises(ConfigError, match="convolutions, which look at all of an image"):
        override(recipe.stages[0], ["patch_dropout=0.5"])


def test_parts_have_the_log_of_the_whole(images, tmp_path):
    assert train(micro(total_images=80), tmp_path / "whole", images) == 0
    parts = OptimizerConfig(learning_rate=3e-3, warmup_images=32, accumulation=4)
    assert train(micro(total_images=80, optimizer=parts), tmp_path / "parts", images) == 0
    whole, in_parts = (
        [line["loss"] for line in lines(tmp_path / run)] for run in ("whole", "parts")
    )
    assert in_parts == pytest.approx(whole, rel=1e-3)


def test_recipes_name_their_kind():
    data = to_dict(load_recipe("emoji-64"))
    del data["stages"][0]["kind"]
    assert from_dict(data, Recipe) == load_recipe("emoji-64")
    data["stages"][0]["kind"] = "gan"
    with pytest.raises(
        ConfigError, match=r"kind='gan'; expected one of \['diffusion', 'clip', 'classifier'\]"
    ):
        from_dict(data, Recipe)
    data["stages"][0]["kind"] = "clip"
    with pytest.raises(ConfigError, match="unknown key 'stage' in ClipTraining"):
        from_dict(data, Recipe)
    clip = to_dict(load_recipe("clip-emoji"))
    clip["stages"] *= 2
    with pytest.raises(ConfigError, match="several stages of diffusion alone"):
        from_dict(clip, Recipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch_size=1", "batch_size=1 for CLIP"),
        ("data.crop=32", "data.crop for CLIP"),
        ("clip.image.patch=7", "patch=7"),
        ("clip.image.heads=5", "heads=5"),
        ("clip.text.vocabulary=100", "vocabulary=100"),
        ("clip.loss=hinge", "expected one of"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        override(load_recipe("clip-emoji").stages[0], [change])


def test_data_of_one_concept_are_refused(tmp_path):
    for number in range(4):
        Image.new("RGB", (16, 16), (number * 60, 0, 0)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text("a thing")
    with pytest.raises(ConfigError, match="one concept"):
        train(micro(), tmp_path / "run", tmp_path)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--parallel", "stages"), "got --parallel stages for micro-clip"),
        (("--only", "draft"), "got --only draft for micro-clip, whose first stage trains no draft"),
        (("--init", "default"), "got CLIP 'default'; expected a folder with clip.json"),
        (("--set", "lora.rank=4"), "unknown key 'lora'"),
        (("--set", "draft.images=8"), "unknown key 'draft'"),
        (("--set", "grid_captions=[]"), "unknown key 'grid_captions' in ClipTraining"),
    ],
)
def test_options_of_cascades_are_refused_in_one_line(images, tmp_path, capsys, words, message):
    recipe, out = tmp_path / "clip.json", tmp_path / "run"
    recipe.write_text(json.dumps(to_dict(micro())))
    assert command(["train", str(recipe), "--data", str(images), "--out", str(out), *words]) != 0
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line and not out.exists()


def test_a_run_of_clip_makes_no_cascade(images, tmp_path, capsys):
    """Its checkpoints hold a CLIP, its display names it, and it is not joined with stages."""
    run = tmp_path / "run"
    assert train(micro(total_images=8, posthoc_ema_images=8), run, images, quiet=False) == 0
    told = capsys.readouterr()
    assert "micro-clip clip: " in told.err and "score with --clip" in told.out
    names = {path.name for path in (run / "checkpoints/8").iterdir()}
    assert "clip" in names and "cascade" not in names
    for words in (["assemble"], ["ema", "--length", "0.1"]):
        assert command([*words, str(run), "-o", str(tmp_path / "joined")]) != 0
        (line,) = capsys.readouterr().err.splitlines()
        assert "CLIP" in line


def test_augmentation_that_is_off_changes_nothing():
    config = micro(
        augmentation=ImageAugmentation(
            smallest_crop=1.0, stretch=1.0, flip=False, blur=0.0, colour=0.0, noise=0.0
        )
    ).stages[0]
    x = torch.rand(4, 3, 16, 16) * 2 - 1
    numbers = clip_numbers(config, 0, x.shape)
    torch.testing.assert_close(
        augmented(x, numbers.augmentation, config.augmentation), x, rtol=0, atol=1e-5
    )


def test_augmentation_is_a_function_of_seed_and_position():
    config = micro(patch_dropout=0.5, text_noise=0.1).stages[0]
    x = torch.rand(8, 3, 16, 16) * 2 - 1
    first, again, other = (clip_numbers(config, p, x.shape) for p in (0, 0, 8))
    one, two, three = (
        augmented(x, d.augmentation, config.augmentation, eps=d.eps) for d in (first, again, other)
    )
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert one.abs().max() <= 1
    rows = torch.tensor([6, 1])
    some = first[rows]
    again = augmented(x[rows], some.augmentation, config.augmentation, eps=some.eps)
    assert torch.equal(again, one[rows])
    assert first.patches.shape == (8, 2) and first.text.shape == (8, 16)


def test_crops_stay_within_and_mirror():
    """On an image whose value is its column, crops are rising, or falling if mirrored."""
    config = ImageAugmentation(
        smallest_crop=0.3, stretch=1.0, flip=True, blur=0.0, colour=0.0, noise=0.0
    )
    recipe = micro(augmentation=config).stages[0]
    x = torch.linspace(-1, 1, 16).expand(64, 3, 16, 16)
    numbers = clip_numbers(recipe, 3, x.shape).augmentation
    found = augmented(x, numbers, config)
    slopes = found[:, 0, 8, 12] - found[:, 0, 8, 3]
    assert 0 < (slopes > 0).sum() < 64 and (slopes != 0).all()
    assert found.min() >= -1 and found.max() <= 1


class _Known:
    """Embeds images by their first pixel, and captions by the number they are."""

    def embed_images(self, images):
        return torch.nn.functional.one_hot(images[:, 0, 0, 0].long(), 60).float()

    def embed_texts(self, captions):
        return torch.nn.functional.one_hot(torch.tensor([int(c) for c in captions]), 60).float()


def shown(number, concept=None, style="s", says=None):
    x = torch.full((3, 2, 2), float(number))
    return Shown(x, str(number if says is None else says), concept or str(number), style)


def test_retrieval_of_what_is_known():
    pools = make_pools([shown(n) for n in range(20)], [shown(n) for n in range(20, 60)])
    assert [(p.wanted, len(p.shown)) for p in pools] == [(20, 50)]
    found = retrieval(_Known(), pools)
    assert found["R@1"] == found["image to text R@5"] == found["s R@1"] == 1.0
    wrong = [shown(n, says=(n + 1) % 20) for n in range(20)]
    assert retrieval(_Known(), make_pools(wrong, []))["R@1"] == 0.0


def test_a_tie_is_not_a_find():
    """A model that says the same of everything finds nothing."""

    class Blind(_Known):
        def embed_images(self, images):
            return torch.ones(len(images), 60)

        embed_texts = embed_images

    found = retrieval(Blind(), make_pools([shown(n) for n in range(20)], []))
    assert found["R@1"] == found["R@5"] == 0.0


def test_pools_hold_one_style_and_different_concepts():
    twice = [shown(1, "cat"), shown(2, "cat"), shown(3, "dog"), shown(4, "cow", "t")]
    pools = make_pools(twice, [shown(5, "dog"), shown(6, "fox"), shown(7, "fox", "t")])
    assert [(p.style, [one.concept for one in p.shown], p.wanted) for p in pools] == [
        ("s", ["cat", "dog", "fox"], 2),
        ("s", ["cat", "dog", "fox"], 1),
        ("t", ["cow", "fox"], 1),
    ]


def one_and_two(recipe, images, folder, parallel):
    """Train with one process, and with two that have its log; returns what continues the two."""
    assert train(recipe, folder / "one", images) == 0
    (folder / "recipe.json").write_text(json.dumps(to_dict(recipe)))
    two = TwoProcesses(folder / "recipe.json", images, parallel)
    two.train(folder / "two")
    ours, theirs = ([line["loss"] for line in lines(folder / run)] for run in ("one", "two"))
    assert theirs == pytest.approx(ours, rel=1e-3)
    return two


@pytest.mark.slow
def test_two_processes_have_the_log_of_one(images, tmp_path):
    """With batches that the last step cuts, in parts."""
    parts = OptimizerConfig(learning_rate=3e-3, warmup_images=32, accumulation=2)
    one_and_two(noised(micro(total_images=84, optimizer=parts), "logsnr"), images, tmp_path, "data")
    assert load_clip(tmp_path / "two").embed_texts(["red top"]).isfinite().all()


@pytest.mark.slow
def test_two_processes_with_noise_resume_to_the_bit(images, tmp_path):
    """Sharded, in parts; both killed between a checkpoint and the last step, which is cut."""
    recipe = noised_in_parts("timestep", total_images=84, checkpoint_images=40)
    two = one_and_two(recipe, images, tmp_path, "sharded")
    names = list((tmp_path / "two/checkpoints/84").rglob("*.safetensors"))
    assert len(names) == 3  # of each process its part, and the CLIP
    two.train_and_kill(tmp_path / "killed", images=64, checkpoint=40)
    two.train(tmp_path / "killed", "--resume")
    assert_same_bits(tmp_path / "killed", tmp_path / "two")


def test_patches_that_are_left_out_cost_nothing():
    """Half of the patches: half of the image tower's operations, all of the text tower's."""
    recipe = load_recipe("clip-emoji").stages[0]
    half, whole, other = (
        training_flops(override(recipe, [f"patch_dropout={fraction}"]))
        for fraction in (0.5, 0.0, 0.75)
    )
    assert half < 0.6 * whole
    assert half - other == pytest.approx((whole - half) / 2, rel=0.1)


def test_a_caption_that_comes_twice_is_embedded_once(tmp_path):
    seen = []

    def encode(captions):
        seen.append(list(captions))
        return build_text_encoder("bytes:16")(captions)

    config = micro().stages[0].clip
    file = ClipFile(
        format=1, name="x", text_encoder="bytes:16", text_fingerprint="", sha256="", clip=config
    )
    model = ClipModel(file, Clip(config), encode)
    found = model.embed_texts(["a", "b", "a"])
    assert seen == [["a", "b"]] and torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[1])
