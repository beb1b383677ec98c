"""Hostile files where every family's loader meets them: each is refused with one line."""

import json
import subprocess

import pytest
import torch
from safetensors.torch import save_file
from test_deepfloyd import save_encoder, save_stage
from test_karlo import save_karlo
from test_safety import STEM, _Runs, write_header

from calotype.cli import run
from calotype.errors import CalotypeError
from calotype.interop import deepfloyd, karlo

LOADERS = {
    "deepfloyd": ("unet", deepfloyd.load_stage),
    "karlo decoder": ("decoder", karlo.load_stages),
    "karlo text projection": ("text_proj", karlo.load_stages),
    "karlo super-resolution": ("super_res_last", karlo.load_stages),
    "karlo prior": ("prior", karlo.load_prior),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("families")
    save_stage(place / "deepfloyd", "I")
    save_karlo(place / "karlo")
    return place


def leaves_its_folder(file, whole):
    save_file({"w": torch.zeros(1)}, file.parents[1] / "secret.safetensors")
    file.unlink()
    index = file.with_name(f"{STEM}.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": {"w": "../secret.safetensors"}}))


def claims_the_world(file, whole):
    entry = {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 4]}
    write_header(file, {"conv_in.weight": entry}, b"\0" * 4)


def is_cut(file, whole):
    file.write_bytes(whole[:-100])


def is_a_pickle(file, whole):
    file.unlink()
    torch.save({"w": torch.zeros(1)}, file.with_name(f"{STEM}.bin"))


@pytest.mark.parametrize("harm", [leaves_its_folder, claims_the_world, is_cut, is_a_pickle])
@pytest.mark.parametrize("loader", LOADERS)
def test_harmed_weights_are_refused(folders, loader, harm):
    part, load = LOADERS[loader]
    folder = folders / loader.split()[0]
    file = folder / part / f"{STEM}.safetensors"
    whole = file.read_bytes()
    try:
        harm(file, whole)
        with pytest.raises(CalotypeError) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    finally:
        for other in (f"{STEM}.safetensors.index.json", f"{STEM}.bin"):
            file.with_name(other).unlink(missing_ok=True)
        file.write_bytes(whole)


@pytest.mark.parametrize(
    "settings",
    [
        "unet/config.json",
        "scheduler/scheduler_config.json",
        "prior/config.json",
        "text_proj/config.json",
    ],
)
@pytest.mark.parametrize("change", [{"evil": 1}, {"_class_name": "os.system"}])
def test_unknown_keys_and_classes_are_refused(folders, settings, change):
    family = "deepfloyd" if settings.startswith(("unet", "scheduler")) else "karlo"
    path = folders / family / settings
    whole = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(whole) | change))
        with pytest.raises(CalotypeError, match="known"):
            if family == "deepfloyd":
                deepfloyd.load_stage(folders / family)
            else:
                karlo.load_prior(folders / family)
                karlo.load_stages(folders / family)
    finally:
        path.write_text(whole)


PICKLES = {
    "runs code": lambda mark: {"w": _Runs(subprocess.call, ["touch", str(mark)])},
    "a bomb": lambda mark: {"w": _Runs(bytearray, 2**33)},
    "a view": lambda mark: {"out.2.weight": torch.zeros(1).expand(2**60)},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", ["deepfloyd", "glide", "imagen-pytorch"])
@pytest.mark.parametrize("kind", [*PICKLES, "cut"])
def test_harmful_pickles_are_refused_by_convert(tmp_path, capsys, family, kind):
    """By the command, in the process of their own, with the limit on memory."""
    more = []
    if family == "deepfloyd":
        source = tmp_path / "if"
        save_stage(source, "I", safe_serialization=False)
        save_encoder(source)
        file = source / "unet" / f"{STEM}.bin"
    elif family == "glide":
        source = file = tmp_path / "base.pt"
        (tmp_path / "encoder.json").write_text('{"a": 0, "<|endoftext|>": 1}')
        (tmp_path / "vocab.bpe").write_text("#version: 0.2\n")
        more = ["--tokenizer", str(tmp_path)]
    else:
        source = file = tmp_path / "imagen.pt"
    mark, out = tmp_path / "mark", tmp_path / "out"
    if kind == "cut":
        torch.save({"w": torch.zeros(1000)}, file)
        file.write_bytes(file.read_bytes()[:-500])
    else:
        torch.save(PICKLES[kind](mark), file)
    capsys.readouterr()  # what diffusers had to say
    assert run(["convert", str(source), *more, "-o", str(out)]) in (1, 2)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "plain weights" in error
    assert not mark.exists() and not out.exists()
