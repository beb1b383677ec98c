"""Hostile files: each is refused with one line, and none is followed, run or believed."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from calotype.errors import CalotypeError, UsageError
from calotype.interop import pickle_worker
from calotype.interop.pickles import unpickled
from calotype.interop.safety import ForeignSettings, open_weights, read_header, read_json

STEM = "diffusion_pytorch_model"


def write_header(path: Path, header: dict, data: bytes = b"") -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.mark.parametrize(
    "name", ["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "..", "x\0y", "", 7, None]
)
def test_an_index_cannot_leave_its_folder(tmp_path: Path, name: object) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "secret.safetensors")
    folder = tmp_path / "unet"
    folder.mkdir()
    index = folder / f"{STEM}.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UsageError, match="plain file name"):
        open_weights(folder)


def test_shards_and_variants_are_read(tmp_path: Path) -> None:
    for kind in ("", "fp16."):
        folder = tmp_path / f"f{kind}"
        folder.mkdir()
        weight_map = {}
        for k in range(3):
            shard = f"{STEM}-{k + 1:05}-of-00003.safetensors"
            save_file({f"w{k}": torch.full((2,), float(k), dtype=torch.float16)}, folder / shard)
            weight_map[f"w{k}"] = shard
        index = folder / f"{STEM}.safetensors.index.{kind}json"
        index.write_text(json.dumps({"weight_map": weight_map}))
        weights = open_weights(folder)
        assert weights.shapes == {"w0": (2,), "w1": (2,), "w2": (2,)}
        read = weights.reader()
        assert read("w2").dtype == torch.float32 and read("w2").tolist() == [2, 2]
    save_file({"w": torch.zeros(1)}, tmp_path / f"{STEM}.fp16.safetensors")
    assert set(open_weights(tmp_path)) == {"w"}


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 2**62]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},  # only 4 bytes follow
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]},
        {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]},
        {"shape": [1]},
        "w",
        None,
    ],
)
def test_impossible_shapes_are_refused_before_allocation(tmp_path: Path, entry: object) -> None:
    write_header(tmp_path / "w.safetensors", {"w": entry}, b"\0" * 4)
    with pytest.raises(CalotypeError, match="damaged"):
        read_header(tmp_path / "w.safetensors")


@pytest.mark.parametrize("keep", [0, 5, 9, 60, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: int) -> None:
    save_file({"w": torch.ones(64)}, tmp_path / "whole.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((tmp_path / "whole.safetensors").read_bytes()[:keep])
    with pytest.raises(CalotypeError, match=r"truncated|damaged"):
        read_header(cut)


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, "\ud800"])
def test_settings_that_are_no_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CalotypeError):
        read_json(tmp_path / "config.json")


def test_unknown_keys_are_refused_with_the_known() -> None:
    data = {"_class_name": "Kind", "good": 1, "_note": 2, "evil": 3}
    with pytest.raises(CalotypeError, match=r"'evil'; known: \['good'\]"):
        ForeignSettings(data, "config.json").check(["Kind"], ["good"])


def test_pickles_are_not_read_outside_convert(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / f"{STEM}.bin")
    with pytest.raises(UsageError, match="calotype convert"):
        open_weights(tmp_path)


def test_a_plain_pickle_is_read(tmp_path: Path) -> None:
    nested = {"model": {"w": torch.arange(3.0)}, "steps": 5, "betas": [0.9, 0.99]}
    torch.save(nested, tmp_path / "w.pt")
    with unpickled(tmp_path / "w.pt") as found:
        assert found.weights.shapes == {"model/w": (3,)}
        assert found.weights.reader()("model/w").tolist() == [0, 1, 2]
        assert found.plain == {"steps": 5, "betas": [0.9, 0.99]}


class _Runs:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"w": _Runs(subprocess.call, ["touch", str(mark)])}, tmp_path / "w.pt")
    with (
        pytest.raises(CalotypeError, match="cannot be read as plain weights"),
        unpickled(tmp_path / "w.pt"),
    ):
        pass
    assert not mark.exists()


def test_a_pickle_bomb_meets_the_limit(tmp_path: Path) -> None:
    """`bytearray` is allowed by weights_only and asks for eight gigabytes."""
    torch.save({"w": _Runs(bytearray, 2**33)}, tmp_path / "w.pt")
    with pytest.raises(CalotypeError, match="more memory"), unpickled(tmp_path / "w.pt"):
        pass


def test_a_view_that_claims_more_than_the_file(tmp_path: Path) -> None:
    """A few bytes expanded to 2^60 elements; checked before anything is copied."""
    torch.save({"w": torch.zeros(1).expand(2**60)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="claims more bytes"):
        pickle_worker.convert(tmp_path / "w.pt", tmp_path)


def _shared(make: object, depth: int, width: int) -> object:
    """Few bytes, `width ** depth` values once written out: each level names the one below again."""
    value: object = make([])
    for _ in range(depth):
        value = make([value] * width)
    return value


def _endless() -> list:
    value: list = []
    value.extend([value] * 100)
    return value


BOMBS = {
    "lists": lambda: {"a": _shared(list, 12, 50)},
    "tuples": lambda: {"a": _shared(tuple, 12, 50)},
    "records": lambda: _shared(lambda v: {str(k): x for k, x in enumerate(v)}, 12, 50),
    "records in a list": lambda: {"a": [_shared(lambda v: dict(enumerate(v)), 12, 50)]},
    "letters": lambda: {"a": ["x" * 1_000_000] * 10_000},
    "keys": lambda: {"a": [{"x" * 1_000_000: 0}] * 10_000},
    "a list within itself": lambda: {"a": _endless()},
    "names": lambda: {"x" * 100_000: {str(k): k for k in range(10_000)}},
    "a tuple as key": lambda: {"a": [{_shared(tuple, 3, 2): 0}]},
    "a tuple as name": lambda: {_shared(tuple, 3, 2): 0},
}


@pytest.mark.parametrize("name", BOMBS)
def test_few_bytes_that_stand_for_many_values(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by counting, in an instant: neither memory nor the time limit is needed."""
    monkeypatch.setattr(pickle_worker, "_MOST_VALUES", 20_000)
    refuse_bomb(tmp_path, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_the_limits_in_use_are_met(tmp_path: Path, name: str) -> None:
    refuse_bomb(tmp_path, name)


def refuse_bomb(tmp_path: Path, name: str) -> None:
    torch.save(BOMBS[name](), tmp_path / "w.pt")
    assert (tmp_path / "w.pt").stat().st_size < 2_000_000
    with pytest.raises(ValueError, match=r"more names and values|has a key of type"):
        pickle_worker.convert(tmp_path / "w.pt", tmp_path)
    assert not (tmp_path / "plain.json").exists()


def test_plain_values_are_copied_and_nothing_else(tmp_path: Path) -> None:
    """Lists and records stay; a tensor or set among them is named, not read; the deep is cut."""
    deep: list = [1]
    for _ in range(40):
        deep = [deep]
    values = {
        "lists": [1, 2.5, None, True, "x", (3, [4])],
        "records": [{"dim": 8, "mults": (1, 2), 5: "five"}],
        "others": [torch.zeros(3), {1, 2}, torch.float16],
        "long": list(range(10_001)),
        "deep": deep,
    }
    torch.save(values, tmp_path / "w.pt")
    pickle_worker.convert(tmp_path / "w.pt", tmp_path)
    plain = read_json(tmp_path / "plain.json")
    assert plain["lists"] == [1, 2.5, None, True, "x", [3, [4]]]
    assert plain["records"] == [{"dim": 8, "mults": [1, 2], "5": "five"}]
    assert plain["others"] == ["<Tensor>", "<set>", "<dtype>"]
    assert plain["long"] == "<list>"
    assert json.dumps(plain["deep"]).count("[") == 16


def test_code_within_lists_is_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for place in ([_Runs(subprocess.call, ["touch", str(mark)])], {"k": [{"v": (mark,)}]}):
        torch.save({"w": torch.zeros(1), "plain": place}, tmp_path / "w.pt")
        with pytest.raises(Exception, match="Weights only load failed"):
            pickle_worker.convert(tmp_path / "w.pt", tmp_path)
    assert not mark.exists()
