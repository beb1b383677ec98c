"""The recipes of GLIDE and guided diffusion for emoji, shrunk by --set, from images to images."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from calotype.cli import run as command

COLOURS = ("red", "green", "blue")
SETS = ("noto", "twemoji", "fluent", "gradient", "render")
LEVELS = '[{"channels": 32, "blocks": 1}, {"channels": 32, "blocks": 1, "attention": "joined"}]'
SHORT = ("batch_size=4", "total_images=8", "grid_images=0", "validation_images=0")
STAGE = (*SHORT, f"stage.network.levels={LEVELS}", "stage.network.head_dim=16")
TOKENS = tuple(
    f"stage.network.text.{name}"
    for name in ("width=32", "layers=1", "heads=2", "vocabulary=280")
)  # fmt: skip

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    """Fifteen captioned images in five sets, in the folder "emoji" of the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "emoji").mkdir()
    rows = [
        {"file_name": f"{colour}-{name}.png", "text": f"a {colour} square, {name}", "set": name}
        for colour in COLOURS
        for name in SETS
    ]
    for row in rows:
        Image.new("RGB", (64, 64), row["text"].split()[1]).save(
            tmp_path / "emoji" / row["file_name"]
        )
    metadata = "\n".join(map(json.dumps, rows))
    (tmp_path / "emoji/metadata.jsonl").write_text(metadata)


@pytest.fixture
def call(capsys):
    """Run a command that has to go well."""

    def run(*words):
        code = command(list(words))
        assert code == 0, capsys.readouterr().err

    return run


def train(call, recipe, out, *settings, init=()):
    words = [word for setting in settings for word in ("--set", setting)]
    call(
        "train", recipe, "--data", "emoji", "--out", out, *words, "--threads", "1", "--quiet", *init
    )


def differ(one, two):
    with Image.open(one) as a, Image.open(two) as b:
        assert a.size == b.size
        return a.tobytes() != b.tobytes()


def test_glide_from_a_tokenizer_to_an_edit_in_two_stages(call, tmp_path):
    call("data", "tokenizer", "emoji", "--vocabulary", "280", "-o", "tokenizer")
    base = (*STAGE, *TOKENS, "stage.resolution=16")
    train(call, "adm-emoji-64", "adm", *STAGE, "stage.resolution=16")
    train(call, "glide-emoji-64", "base", *base, init=("--init", "adm"))
    train(call, "glide-emoji-64-free", "free", *base, init=("--init", "base"))
    train(call, "glide-emoji-64-inpaint", "inpaint", *base, init=("--init", "free"))
    finer = ("stage.resolution=64", "stage.lowres_resolution=16", "data.crop=32")
    train(call, "glide-emoji-256", "up", *STAGE, *TOKENS, *finer)
    call("assemble", "free", "up", "-o", "cascade")
    call("sample", "a red square", "--model", "cascade", "--steps", "2", "-o", "red.png")
    with Image.open("red.png") as image:
        assert image.size == (64, 64)
    call("assemble", "inpaint", "up", "-o", "painter")
    box = ("--box", "0,0,32,64", "--steps", "2", "-o", "edited.png")
    call("edit", "emoji/blue-noto.png", "a green square", "--model", "painter", *box)
    with Image.open("edited.png") as image, Image.open("emoji/blue-noto.png") as before:
        kept = (40, 0, 64, 64)
        assert image.crop(kept).tobytes() == before.crop(kept).tobytes()
    assert differ("edited.png", "emoji/blue-noto.png")


def test_a_classifier_guides_an_adm_of_classes(call, tmp_path):
    adm = (*STAGE, "stage.resolution=16")
    train(call, "adm-emoji-64", "unconditional", *adm)
    train(call, "adm-emoji-64-class", "adm", *adm, init=("--init", "unconditional"))
    level = ("classifier.resolution=16", f"classifier.levels={LEVELS}", "classifier.head_dim=16")
    train(call, "classifier-emoji-64", "sets", *SHORT, *level)
    sample = ("sample", "--class", "noto", "--model", "adm", "--steps", "2", "--seed", "1")
    call(*sample, "-o", "alone.png")
    call(*sample, "--classifier", "sets", "--classifier-scale", "50", "-o", "guided.png")
    assert differ("alone.png", "guided.png")
