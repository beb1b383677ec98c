"""Blind naming: the key says what the sheet shows, and answers are counted by words."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.emoji.gallery import over_background, read_images
from calotype.emoji.naming import Key, NamedImage, accepted_answers, main, names, score
from calotype.emoji.prompts import ImageRow
from calotype.errors import UsageError

PLAIN = ("red", "green", "blue", "orange", "purple", "black", "brown")


def row(name, *keywords):
    return ImageRow(f"noto/{name}", name, "noto style", "noto", "MIT", name, "train", keywords)


def test_names_by_words():
    accepted = ("red apple", "fruit bowl")
    assert names("A Red Apple!", accepted) == "red apple"
    assert names("perhaps two fruit bowls", accepted) == "fruit bowl"
    for answer in ("apple", "scarred apple", "red, then an apple", ""):
        assert names(answer, accepted) is None
    assert names("anything", ("", "?")) is None


def test_common_keywords_are_no_synonyms():
    faces = [row(f"face {n}", "face", "pal" if n < 4 else "foe") for n in range(25)]
    cats = [row(f"cat {n}", "cat", "animal") for n in range(14)]
    accepted = accepted_answers([*faces, *cats])
    assert accepted["noto/face 0"] == ("face 0", "pal")
    assert accepted["noto/face 9"] == ("face 9",)
    assert accepted["noto/cat 3"] == ("cat 3", "cat")


def test_sheet_and_key_agree(data, tmp_path):
    arguments = ["sheets", "--model", "real", "--data", str(data), "--resolution", "32"]
    assert main([*arguments, "--count", "9", "--seed", "3", "--out", str(tmp_path)]) == 0
    key = json.loads((tmp_path / "key.json").read_text())
    assert [image["number"] for image in key["images"]] == list(range(1, 10))
    real = dict(read_images(data, {image["key"] for image in key["images"]}, 32))
    sheet = np.asarray(Image.open(tmp_path / "sheet-1.png"))
    line = round(16 * 1.25)  # of the numbers' font
    for image in key["images"]:
        down, across = divmod(image["number"] - 1, 8)
        top, left = 8 + down * (192 + 2 * line + 8), 8 + across * 200
        shown = torch.from_numpy(sheet[top : top + 192 : 6, left : left + 192 : 6].copy())
        expected = (over_background(real[image["key"]]) + 1) * 127.5
        assert (shown.permute(2, 0, 1) - expected).abs().max() <= 1
        colour = image["key"].split("/")[1].removesuffix("-bar")
        own = [] if colour in PLAIN else [colour]  # "teal" is a word of the name
        assert image["accepted"] == [f"{colour} bar", *own]
        assert image["caption"].startswith(f"{colour} bar, ")


def test_another_seed_is_another_order_of_the_same_images(data, tmp_path):
    orders = []
    for seed in ("1", "2", "1"):
        arguments = ["sheets", "--model", "real", "--data", str(data), "--resolution", "16"]
        assert main([*arguments, "--count", "8", "--seed", seed, "--out", str(tmp_path)]) == 0
        images = json.loads((tmp_path / "key.json").read_text())["images"]
        orders.append([image["key"] for image in images])
    assert orders[0] == orders[2] != orders[1] and set(orders[0]) == set(orders[1])


def test_samples_go_on_to_a_second_sheet(cascade, data, tmp_path, monkeypatch):
    monkeypatch.setattr("calotype.emoji.naming._A_SHEET", 4)
    cascade.save(tmp_path / "model")
    arguments = ["sheets", "--model", str(tmp_path / "model"), "--data", str(data), "--threads"]
    arguments += ["1", "--resolution", "8", "--count", "6", "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "sheet-1.png",
        "sheet-2.png",
        "key.json",
    }
    assert main([*arguments, "--group", "unseen_pair"]) == 2  # there is one


def key_of(*accepted):
    images = [
        NamedImage(number=n, key="k", caption="c", name=names[0], accepted=names)
        for n, names in enumerate(accepted, 1)
    ]
    return Key(model="m", group="trained_pair", resolution=8, seed=0, images=tuple(images))


def test_score_counts():
    found = score(
        key_of(("cat",), ("dog", "puppy"), ("cow",)), {"1": "a dog", "2": "Puppies? puppy"}
    )
    assert (found["named"], found["images"]) == (1, 3)
    assert [line["named_by"] for line in found["answers"]] == [None, "puppy", None]
    with pytest.raises(UsageError, match="expected 1 to 1"):
        score(key_of(("cat",)), {"0": "a cat"})
    with pytest.raises(UsageError, match="expected text"):
        score(key_of(("cat",)), {"1": 3})


def test_score_command(data, tmp_path, capsys):
    arguments = ["sheets", "--model", "real", "--data", str(data), "--resolution", "8"]
    assert main([*arguments, "--count", "3", "--out", str(tmp_path)]) == 0
    path = tmp_path / "answers.json"
    key = json.loads((tmp_path / "key.json").read_text())
    answers = {str(image["number"]): image["name"].upper() for image in key["images"]}
    key["images"][0]["accepted"].append("stripe")
    (tmp_path / "key.json").write_text(json.dumps(key))
    path.write_text(json.dumps(answers | {"1": "a stripe", "2": "a blot"}))
    assert main(["score", str(tmp_path), str(path)]) == 0
    printed = capsys.readouterr().out
    assert f"1: a stripe – {key['images'][0]['name']}, by 'stripe'" in printed
    assert f"2: a blot – not {key['images'][1]['name']}" in printed
    assert "named 2 of 3" in printed
    # A person accepts what the key had not foreseen.
    key["images"][1]["accepted"].append("blot")
    (tmp_path / "key.json").write_text(json.dumps(key))
    assert main(["score", str(tmp_path), str(path)]) == 0
    assert json.loads((tmp_path / "score.json").read_text())["named"] == 3
    for text in ("[]", "{"):
        path.write_text(text)
        assert main(["score", str(tmp_path), str(path)]) == 2
