"""`calotype score`, and `sample --best-of`: candidates are ranked, the best alone is enlarged."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.cascade import Cascade
from calotype.cascade.png import read_recipe
from calotype.config.clip import ClipConfig, ImageTowerConfig, TextTowerConfig
from calotype.networks.clip import Clip
from calotype.text.byte import ByteTextEncoder
from calotype.vision.clip import ClipFile, ClipModel, load_clip, save_clip


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    tower = {"width": 16, "layers": 1, "heads": 2}
    config = ClipConfig(
        image=ImageTowerConfig(resolution=8, patch=4, **tower),
        text=TextTowerConfig(states=16, context=16, **tower),
        embed_dim=8,
    )
    file = ClipFile(
        format=1, name="tiny-clip", text_encoder="bytes:16", sha256="", clip=config,
        text_fingerprint=ByteTextEncoder(16).fingerprint,
    )  # fmt: skip
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("clips") / "clip"
    save_clip(folder, ClipModel(file, Clip(config)))
    return str(folder)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def scores_of(model, clip, caption, seeds):
    images = Cascade.load(model).sample([caption] * len(seeds), seeds=seeds, stop_at=8).images[0]
    return load_clip(clip).scores(images, [caption] * len(seeds)).tolist()


def test_the_best_alone_is_enlarged(command, model, clip, tmp_path):
    code, out, err = command(
        "sample", "a fox", "--seed", "5", "--best-of", "4", "--clip", clip, "-o", "a.png", "--json"
    )
    assert (code, err) == (0, "")
    recipe = read_recipe(tmp_path / "a.png")
    expected = scores_of(model, clip, "a fox", [5, 6, 7, 8])
    assert recipe["best_of"]["scores"] == pytest.approx(expected, abs=1e-2)
    assert recipe["seed"] == 5 + int(np.argmax(expected))
    assert (recipe["best_of"]["count"], recipe["best_of"]["seed"]) == (4, 5)
    assert recipe["best_of"]["clip"] == "tiny-clip"
    assert json.loads(out)["pictures"][0]["best_of"] == recipe["best_of"]
    # The winner, sampled alone: the same image, and no more of the candidates.
    assert command("sample", "--like", "a.png", "-o", "b.png")[0] == 0
    assert np.abs(pixels("a.png") - pixels("b.png")).max() <= 1
    alone = read_recipe(tmp_path / "b.png")
    assert alone["seed"] == recipe["seed"] and "best_of" not in alone


def test_candidates_of_several_images_do_not_overlap(command, model, clip, tmp_path):
    words = ("sample", "a", "b", "-n", "2", "--best-of", "3", "--clip", clip, "--size", "8")
    assert command(*words, "-o", "p.png")[0] == 0
    found = [read_recipe(tmp_path / f"p-{number}.png") for number in range(4)]
    assert [recipe["best_of"]["seed"] for recipe in found] == [0, 3, 0, 3]
    for recipe in found:
        first = recipe["best_of"]["seed"]
        expected = scores_of(model, clip, recipe["caption"], range(first, first + 3))
        assert recipe["seed"] == first + int(np.argmax(expected))
    assert command(*words, "--grid", "-o", "sheet.png")[0] == 0
    assert len(read_recipe(tmp_path / "sheet.png")["of"][3]["best_of"]["scores"]) == 3


def test_lists_keep_scores_and_skip_what_is_there(command, clip, tmp_path):
    (tmp_path / "list.txt").write_text("a\nb\n")
    words = ("sample", "--from-file", "list.txt", "-n", "2", "--best-of", "2", "--clip", clip)
    code, out, err = command(*words, "-o", "l.png", "--size", "16", "--json")
    assert (code, err) == (0, "")
    images = json.loads(out)["pictures"]
    for number, image in enumerate(images):
        recipe = read_recipe(tmp_path / f"l-{number}.png")
        assert image["best_of"] == recipe["best_of"] and image["seed"] == recipe["seed"]
        assert recipe["best_of"]["seed"] == 2 * (number % 2)
    before = (tmp_path / "l-1.png").stat().st_mtime_ns
    again = json.loads(command(*words, "-o", "l.png", "--size", "16", "--json")[1])
    assert again["skipped"] == 4 and (tmp_path / "l-1.png").stat().st_mtime_ns == before
    assert again["pictures"] == images
    one = ("sample", "a", "--best-of", "2", "--clip", clip, "--size", "16", "-o", "one.png")
    assert command(*one)[0] == 0
    assert np.abs(pixels("one.png") - pixels("l-0.png")).max() <= 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--best-of", "0"), "got --best-of 0; expected 1 to 1024"),
        (("--best-of", "1025"), "got --best-of 1025; expected 1 to 1024"),
        (("--best-of", "2", "--like", "x.png"), "cannot read"),
        (("--best-of", "2", "--clip", "nowhere"), "got CLIP 'nowhere'; expected a folder"),
        (("--clip", "nowhere"), "expected --best-of N or --clip-guidance S beside it"),
        (("--best-of", "8", "--seed", str(2**63 - 8), "-n", "2"), "expected seeds from 0"),
    ],
)
def test_wrong_wishes_are_one_line_and_leave_nothing(command, tmp_path, words, message):
    code, out, err = command("sample", "a", "-o", "a.png", *words)
    assert code in (1, 2) and out == "" and message in err and err.count("\n") == 1
    assert not (tmp_path / "a.png").exists()


def test_like_chooses_nothing(command, clip, tmp_path):
    assert command("sample", "a", "-o", "a.png", "--size", "8")[0] == 0
    code, _, err = command("sample", "--like", "a.png", "--best-of", "2", "--clip", clip)
    assert code == 2 and "got --best-of with --like" in err


def test_scores_say_whose_they_are(command, clip, tmp_path):
    assert command("sample", "a", "b", "--size", "8", "-o", "s.png")[0] == 0
    code, out, err = command("score", "s-0.png", "s-1.png", "--clip", clip)
    assert (code, err) == (0, "") and [line.split()[1] for line in out.splitlines()] == [
        "tiny-clip"
    ] * 2
    x = torch.stack([torch.tensor(pixels(f"s-{n}.png")) for n in range(2)]).permute(0, 3, 1, 2)
    model, images = load_clip(clip), x.float() / 127.5 - 1
    for given, texts in (((), ["a", "b"]), (("x",), ["x", "x"]), (("x", "y"), ["x", "y"])):
        options = [word for text in given for word in ("--caption", text)]
        _, out, _ = command("score", "s-0.png", "s-1.png", "--clip", clip, "--json", *options)
        found = json.loads(out)
        assert [score["caption"] for score in found["scores"]] == texts
        expected = model.scores(images, texts).tolist()
        assert [s["score"] for s in found["scores"]] == pytest.approx(expected, abs=1e-3)
        assert (found["clip"], found["clip_sha256"]) == ("tiny-clip", model.fingerprint)


def test_info_tells_of_it_and_a_cascade_is_none(command, clip):
    code, out, _ = command("info", clip, "--json")
    found = json.loads(out)
    assert code == 0 and (found["kind"], found["name"], found["loss"]) == (
        "clip", "tiny-clip", "info_nce",
    )  # fmt: skip
    code, _, err = command("sample", "a", "--model", clip, "-o", "a.png")
    assert code == 2 and "is a CLIP, which scores images; expected a cascade" in err


def test_what_cannot_be_scored_is_one_line(command, clip, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    frames = [Image.new("RGB", (8, 8), (0, 0, c)) for c in (0, 99)]
    frames[0].save(tmp_path / "moves.gif", save_all=True, append_images=frames[1:])
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    wrong = {
        ("folder",): "cannot read folder: is a folder",
        ("absent.png",): "cannot read absent.png",
        ("broken.png",): "broken.png",
        ("moves.gif",): "got moves.gif, which holds 2 images; expected one",
        ("plain.png",): "does not say its caption; expected --caption TEXT",
        ("plain.png", "--caption", "a", "--caption", "b"): "got 2 captions for 1 images",
        ("plain.png", "moves.gif", "--caption", "a"): "holds 2 images",
    }
    for words, message in wrong.items():
        code, out, err = command("score", *words, "--clip", clip)
        assert code == 2 and out == "" and message in err and err.count("\n") == 1, (words, err)
    assert "Missing argument" in command("score")[2]


def test_any_generator_can_be_chosen_from():
    """The protocol alone: an oracle that knows which candidate is best."""
    from calotype.generation.best_of import BestOf
    from calotype.generation.generator import Made

    class Numbers:
        group = 4

        def plan(self, captions, seeds):
            return list(zip(captions, seeds, strict=True))

        def begin(self, plan):
            yield from ()
            return torch.tensor([float(seed) for _, seed in plan]).view(-1, 1, 1, 1)

        def finish(self, plan, images):
            yield from ()
            return [
                Made(np.array([float(x)]), self.recipe(plan, row)) for row, x in enumerate(images)
            ]

        def recipe(self, plan, row):
            return {"caption": plan[row][0], "seed": plan[row][1]}

    class NearestTo:
        file = ClipFile(
            format=1, name="oracle", text_encoder="none", text_fingerprint="", sha256="0" * 64,
            clip=None,
        )  # fmt: skip

        def scores(self, images, captions):
            wanted = torch.tensor([float(caption) for caption in captions])
            return -(images.flatten() - wanted).abs()

    best = BestOf(Numbers(), NearestTo(), 4)
    plan = best.plan(["2", "6", "99"], [0, 4, 8])
    steps = best.generate(plan)
    with pytest.raises(StopIteration) as end:
        next(steps)
    made = end.value.value
    assert [float(one.pixels[0]) for one in made] == [2.0, 6.0, 11.0]
    assert [one.recipe["seed"] for one in made] == [2, 6, 11]
    assert made[0].recipe["best_of"]["scores"] == [-2.0, -1.0, 0.0, -1.0]
