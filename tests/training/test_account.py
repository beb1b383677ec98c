"""What of the data was not used as it is gets counted and listed by `calotype train`."""

import dataclasses
import json
import shutil

import pytest

from calotype.config.recipe import Recipe
from calotype.data.source import SourceReport
from calotype.errors import UsageError
from calotype.tasks import captions
from calotype.training.distributed import Group


def test_unusable_data_is_counted_and_listed(images, micro_recipe, train, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    (data / "black-left.png").write_bytes(b"\x89PNG broken")
    (data / "red-left.txt").write_text("")
    (data / "red-right.txt").write_bytes(b"r\xffd")
    assert train(micro_recipe(total_images=16), out, data=data) == 0
    listed = json.loads((out / "data.json").read_text())
    assert list(listed["broken"]) == ["black-left.png"]
    assert listed["empty_captions"] == ["red-left.png"]
    assert listed["replaced_captions"] == ["red-right.png"]
    said = capsys.readouterr().out
    assert "1 broken" in said and str(out / "data.json") in said


def test_what_every_process_met_is_counted_once(
    images, micro_recipe, train, tmp_path, monkeypatch, capsys
):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    (data / "black-left.png").write_bytes(b"\x89PNG broken")
    (data / "red-left.txt").write_text("")
    other = SourceReport(broken={"other.png": "cut"}, empty_captions={"red-left.png"})

    def all_gather(self, value):
        return [value, other] if isinstance(value, SourceReport) else [value]

    monkeypatch.setattr(Group, "all_gather", all_gather)
    assert train(micro_recipe(total_images=16), out, data=data) == 0
    listed = json.loads((out / "data.json").read_text())
    assert sorted(listed["broken"]) == ["black-left.png", "other.png"]
    assert listed["empty_captions"] == ["red-left.png"]
    assert "data: 2 broken, 1 empty captions" in capsys.readouterr().out


def test_sound_data_needs_no_account(micro_recipe, train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(micro_recipe(total_images=8), out) == 0
    assert not (out / "data.json").exists() and "data:" not in capsys.readouterr().out


def test_13_14_15_35_the_data_are_reported_once_and_first(
    images, micro_recipe, train, tmp_path, monkeypatch, capsys
):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    (data / "red-left.txt").unlink()
    (data / "backup.tar").write_bytes(b"")
    (data / "a.heic").write_bytes(b"")
    (base,) = micro_recipe(total_images=8).stages
    network = dataclasses.replace(base.stage.network, lowres=True)
    finer = dataclasses.replace(base.stage, network=network, resolution=16, lowres_resolution=8)
    recipe = Recipe(name="two", stages=(base, dataclasses.replace(base, stage=finer)))
    embedded = []
    real = captions.embed_ahead

    def embed_ahead(*arguments, **more):
        embedded.append(capsys.readouterr().err)
        return real(*arguments, **more)

    monkeypatch.setattr(captions, "embed_ahead", embed_ahead)
    assert train(recipe, out, data=data) == 0
    assert embedded[0] == (
        "calotype: data: 8 images, 1 without a caption, 1 unknown file ignored (.heic), "
        "1 tar ignored (backup.tar)\n"
    )
    said = capsys.readouterr()
    assert "data:" not in said.err and "data:" not in "".join(embedded[1:])
    assert said.out.count("data:") == 1
    assert json.loads((out / "data.json").read_text())["ignored"]["tar"]["names"] == ["backup.tar"]


def test_13_captions_that_are_mostly_lost_stop_unless_that_is_asked_for(
    images, micro_recipe, train, tmp_path, capsys
):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(images, data)
    for text in sorted(data.glob("*.txt"))[:5]:
        text.rename(text.with_suffix(".caption"))
    recipe = micro_recipe(total_images=8)
    with pytest.raises(UsageError, match=r"most captions missing .* --missing-captions"):
        train(recipe, out, data=data)
    assert train(recipe, out, data=data, missing_captions=True) == 0
    assert "8 images, 5 without a caption, 5 unknown files" in capsys.readouterr().err
    assert (
        train(micro_recipe(total_images=16), out, data=data, missing_captions=True, resume=True)
        == 0
    )


def test_13_a_network_without_text_needs_no_captions(images, micro, train, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(images, data)
    for text in sorted(data.glob("*.txt"))[:5]:
        text.unlink()
    config = micro(total_images=8, text_encoder="none")
    network = dataclasses.replace(config.stage.network, text_dim=0, text_pooling="attention")
    stage = dataclasses.replace(config.stage, network=network)
    recipe = Recipe(name="bare", stages=(dataclasses.replace(config, stage=stage),))
    assert train(recipe, tmp_path / "run", data=data) == 0
