import json
import os
import shutil
import struct

import pytest
import torch

import calotype
from calotype.cascade import Cascade, load_stage, save_stage
from calotype.cascade.find import find_cascade
from calotype.cascade.prior import Prior, load_prior
from calotype.config.prior import PriorConfig, PriorNetworkConfig
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.storage import files


@pytest.fixture
def folder(cascade, tmp_path):
    cascade.save(tmp_path / "small")
    return tmp_path / "small"


def images(cascade):
    return cascade.sample(["a fox", ""], seeds=[1, 2]).images


def test_round_trip_samples_the_same(cascade, folder):
    again = calotype.load(folder)
    assert again.config == cascade.config
    for stage, other in zip(cascade.stages, again.stages, strict=True):
        for (name, a), (_, b) in zip(
            stage.state_dict().items(), other.state_dict().items(), strict=True
        ):
            assert torch.equal(a, b), name
    for a, b in zip(images(cascade), images(again), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)
    assert sorted(again.weights) == [8, 16, 32]
    assert len(calotype.load(folder, stop_at=16).stages) == 2


def test_half_precision_files_are_half_as_large_and_load_as_float32(cascade, folder, tmp_path):
    cascade.save(tmp_path / "half", dtype=torch.float16)
    again = Cascade.load(tmp_path / "half")
    assert {p.dtype for s in again.stages for p in s.parameters()} == {torch.float32}
    sizes = [(f / "8" / "weights.safetensors").stat().st_size for f in (folder, tmp_path / "half")]
    assert sizes[1] < 0.7 * sizes[0]
    torch.testing.assert_close(images(again)[0], images(cascade)[0], atol=0.1, rtol=0)


def test_a_weight_that_overflows_half_precision_is_refused(cascade, tmp_path):
    stage = Cascade("bytes:16", cascade.stages[:1]).stages[0]
    parameter = next(iter(stage.parameters()))
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.flatten()[0] = 1e6
        with pytest.raises(CalotypeError, match="not finite"):
            save_stage(stage, tmp_path, dtype=torch.float16)
        assert not (tmp_path / "weights.safetensors").exists()
        save_stage(stage, tmp_path)
    finally:
        with torch.no_grad():
            parameter.copy_(kept)


def test_a_prior_that_overflows_half_precision_is_refused(tmp_path):
    network = PriorNetworkConfig(clip_dim=4, heads=1, head_dim=4, layers=1, context=2)
    prior = Prior(PriorConfig(network=network))
    save_stage(prior, tmp_path / "good", dtype=torch.float16)
    assert load_prior(tmp_path / "good").config == prior.config
    with torch.no_grad():
        prior.network.mean[0] = 1e6
    with pytest.raises(CalotypeError, match="not finite"):
        save_stage(prior, tmp_path / "bad", dtype=torch.float16)
    assert not (tmp_path / "bad").exists()


def test_saving_replaces_a_cascade_and_nothing_else(cascade, folder, tmp_path):
    cascade.save(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["16", "32", "8", "cascade.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="no cascade"):
        cascade.save(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def weights_of(folder):
    return folder / "8" / "weights.safetensors"


def edit_header(path, change):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def first_name(header):
    return next(name for name in header if name != "__metadata__")


def break_truncated(folder):
    path = weights_of(folder)
    path.write_bytes(path.read_bytes()[:-7])


def break_one_bit(folder):
    path = weights_of(folder)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def break_shape(folder):
    def change(header):
        header[first_name(header)]["shape"][0] += 1

    edit_header(weights_of(folder), change)


def break_dtype_kind(folder):
    def change(header):
        header[first_name(header)]["dtype"] = ["F32"]

    edit_header(weights_of(folder), change)


def break_dtype(folder):
    def change(header):
        header[first_name(header)]["dtype"] = "I64"

    edit_header(weights_of(folder), change)


def break_missing(folder):
    edit_header(weights_of(folder), lambda header: header.pop(first_name(header)))


def break_unknown(folder):
    def change(header):
        header["evil"] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}

    edit_header(weights_of(folder), change)


def break_offsets(folder):
    def change(header):
        header[first_name(header)]["data_offsets"] = "soon"

    edit_header(weights_of(folder), change)


def edit_json(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


BREAKS = [
    (break_truncated, "truncated"),
    (break_one_bit, "SHA-256"),
    (break_shape, "of shape"),
    (break_dtype, "I64"),
    (break_dtype_kind, r"as \['F32'\]"),  # 30
    (break_missing, "lacks"),
    (break_unknown, "unknown 'evil'"),
    (break_offsets, "damaged header"),
    (lambda f: weights_of(f).unlink(), "weights.safetensors"),
    (lambda f: weights_of(f).write_bytes(b""), "truncated"),
    (lambda f: weights_of(f).write_bytes(b"\xff" * 64), "truncated"),
    (lambda f: weights_of(f).write_bytes(struct.pack("<Q", 4) + b"{{{{"), "damaged header"),
    (lambda f: weights_of(f).write_bytes(struct.pack("<Q", 2) + b"[]"), "damaged header"),
    (lambda f: weights_of(f).write_bytes(b"\x80\x04pickle"), "truncated"),
    (lambda f: (f / "8" / "stage.json").unlink(), "stage.json is missing"),
    (lambda f: (f / "8" / "stage.json").write_text("{"), "not valid JSON"),
    (lambda f: (f / "8" / "stage.json").write_bytes(b"\xff\xfe"), "stage.json"),
    (lambda f: (f / "8" / "stage.json").write_text("[" * 100_000), "JSON"),
    (lambda f: edit_json(f / "8" / "stage.json", chanels=3), "unknown key 'chanels'"),
    (lambda f: edit_json(f / "8" / "stage.json", data_std=-1), "data_std"),
    (lambda f: edit_json(f / "cascade.json", format=2), "newer calotype"),
    (lambda f: edit_json(f / "cascade.json", stages=[]), "no stages"),
    (lambda f: edit_json(f / "cascade.json", extra=1), "unknown key 'extra'"),
    (
        lambda f: edit_json(f / "cascade.json", stages=[{"folder": "../..", "sha256": "0" * 64}]),
        "plain name",
    ),
    (lambda f: edit_json(f / "cascade.json", stages=[{"folder": "8", "sha256": "0" * 64}]), "SHA"),
]


@pytest.mark.parametrize(("damage", "message"), BREAKS)
def test_damaged_files_are_one_line_that_names_them(folder, damage, message):
    damage(folder)
    with pytest.raises(CalotypeError, match=message) as caught:
        calotype.load(folder)
    text = str(caught.value)
    assert "\n" not in text and str(folder) in text and len(text) < 500


def test_what_a_name_means(folder, tmp_path):
    assert find_cascade(folder) == folder.resolve()
    run = tmp_path / "run"
    (run / "checkpoints" / "300").mkdir(parents=True)
    (run / "recipe.json").write_text("{}")
    with pytest.raises(CalotypeError, match="no checkpoint yet"):
        find_cascade(run)
    shutil.copytree(folder, run / "checkpoints" / "300" / "cascade")
    os.symlink("300", run / "checkpoints" / "latest")
    assert find_cascade(run) == (run / "checkpoints" / "300" / "cascade").resolve()
    assert find_cascade(run / "checkpoints" / "300").name == "cascade"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "model_index.json").write_text("{}")
    for path, message in [
        (foreign, "calotype convert"),
        (folder / "8", "calotype assemble"),
        (tmp_path / "nothing", "expected 'default'"),
        ("a\0b", "model"),
        ("x" * 5000, "model"),
    ]:
        with pytest.raises(UsageError, match=message):
            find_cascade(path)


def test_a_stage_by_itself(cascade, tmp_path):
    digest = save_stage(cascade.stages[1], tmp_path / "16")
    stage = load_stage(tmp_path / "16", sha256=digest)
    assert stage.config == cascade.stages[1].config
    assert not stage.training
    assert all(p.requires_grad for p in stage.parameters())
    with pytest.raises(CalotypeError, match="SHA-256"):
        load_stage(tmp_path / "16", sha256="0" * 64)


def test_a_failed_write_leaves_nothing_behind(cascade, folder, tmp_path, monkeypatch):
    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_flush", full)
    with pytest.raises(CalotypeError, match=r"No space left.*make room"):
        cascade.save(folder)
    with pytest.raises(CalotypeError, match="make room"):
        files.write_file(tmp_path / "new.png", b"x")
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["small"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_writing_weights_is_told(tmp_path):
    def write(path):
        with open("/dev/full", "wb") as file:
            file.write(b"x" * 100_000)

    with pytest.raises(CalotypeError, match="No space left"):
        files.write_with(tmp_path / "a", write)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs limits on file sizes")
def test_real_write_errors_leave_the_old_cascade_and_no_rest(cascade, folder, tmp_path):
    import resource

    before = {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(CalotypeError, match="cannot write"):
            cascade.save(folder)
        with pytest.raises(CalotypeError, match="cannot write"):
            save_stage(cascade.stages[0], tmp_path / "8")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["8", "small"]
    assert list((tmp_path / "8").iterdir()) == []


def test_names_as_long_as_the_disk_takes_can_be_written(tmp_path):
    path = tmp_path / ("\N{CAT}" * 62 + ".png")  # 252 bytes; most disks take 255
    files.write_file(path, b"cat")
    assert path.read_bytes() == b"cat"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_as_readable_as_the_umask_says(cascade, tmp_path):
    before = os.umask(0o022)
    try:
        cascade.save(tmp_path / "small")
    finally:
        os.umask(before)
    modes = {p.stat().st_mode & 0o777 for p in (tmp_path / "small").rglob("*") if p.is_file()}
    assert modes == {0o644}


def test_config_errors_are_usage_errors(folder):
    edit_json(folder / "8" / "stage.json", chanels=3)
    with pytest.raises(ConfigError):
        calotype.load(folder)
