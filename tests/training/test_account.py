"""What of the data was not used as it is gets counted and listed by `calotype train`."""

import json
import shutil

from calotype.data.source import SourceReport
from calotype.training.distributed import Group


def test_unusable_data_is_counted_and_listed(pictures, micro_recipe, train, tmp_path, capsys):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
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
    pictures, micro_recipe, train, tmp_path, monkeypatch, capsys
):
    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(pictures, data)
    (data / "black-left.png").write_bytes(b"\x89PNG broken")
    (data / "red-left.txt").write_text("")
    other = SourceReport(broken={"other.png": "cut"}, empty_captions={"red-left.png"})

    def gathered(self, value):
        return [value, other] if isinstance(value, SourceReport) else [value]

    monkeypatch.setattr(Group, "gathered", gathered)
    assert train(micro_recipe(total_images=16), out, data=data) == 0
    listed = json.loads((out / "data.json").read_text())
    assert sorted(listed["broken"]) == ["black-left.png", "other.png"]
    assert listed["empty_captions"] == ["red-left.png"]
    assert "data: 2 broken, 1 empty captions" in capsys.readouterr().out


def test_sound_data_needs_no_account(micro_recipe, train, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(micro_recipe(total_images=8), out) == 0
    assert not (out / "data.json").exists() and "data:" not in capsys.readouterr().out
