import importlib
import importlib.util
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from calotype.cascade import Cascade
from calotype.cascade.png import read_recipe
from calotype.cli import run
from calotype.cli.sample import IMAGEN_PYTORCH_FILE
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.imagen_pytorch import ElucidatedImagen, Imagen, ImagenTrainer, Unet, load
from calotype.interop.imagen_pytorch.convert import convert
from calotype.interop.imagen_pytorch.files import SETTINGS_FILE
from calotype.interop.imagen_pytorch.imagen import change_steps
from calotype.interop.pickle_worker import convert as read_pickle
from calotype.interop.pickles import Unpickled
from calotype.interop.safety import ForeignWeights, read_header, read_json

HERE = Path(__file__).parent
DATA = HERE / "data"
_SPEC = importlib.util.spec_from_file_location("peer_again", HERE / "peer_imagen_pytorch.py")
peer = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(peer)
RECORDED = load_file(DATA / "imagen_pytorch_peer.safetensors")
CASES = json.loads((DATA / "imagen_pytorch_peer.json").read_text())["cases"]


@pytest.fixture
def in_process(monkeypatch, tmp_path_factory):
    """Read pickles without starting a process for each."""

    @contextmanager
    def unpickled(path):
        folder = tmp_path_factory.mktemp("unpickled")
        read_pickle(path, folder)
        weights = read_header(folder / "weights.safetensors")
        yield Unpickled(ForeignWeights(weights), read_json(folder / "plain.json"))

    module = importlib.import_module("calotype.interop.imagen_pytorch.convert")
    monkeypatch.setattr(module, "unpickled", unpickled)


def foreign(name):
    weights = CASES[name]["weights"]
    return {key: peer.made(key, tuple(shape)) for key, shape in weights.items()}


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def trainer_file(path, **more):
    """As ImagenTrainer.save of that package writes it: two stages, averages, optimizer, steps."""
    first, second = foreign("base"), foreign("memory_efficient")
    model = prefixed("unets.0.", first) | prefixed("unets.1.", second)
    ema = {}
    for index, unet in enumerate((first, second)):
        ema |= prefixed(f"{index}.online_model.", unet)
        ema |= prefixed(f"{index}.ema_model.", {k: v.clone() for k, v in unet.items()})
        ema |= {f"{index}.initted": torch.tensor(True), f"{index}.step": torch.tensor(7)}
    optimizer = {"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-4}]}
    whole = {"model": model, "version": "2.1.0", "steps": torch.tensor([7, 0]), "ema": ema}
    torch.save({**whole, "optim0": optimizer, "scaler0": {}, **more}, path)
    return path


@torch.no_grad()
def assert_parity(unet, name):
    theirs = RECORDED[f"{name}.output"]
    ours = unet.eval()(**peer.inputs_of(CASES[name]["settings"]))
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_a_trainers_checkpoint_needs_only_its_sizes(tmp_path, in_process):
    path = trainer_file(tmp_path / "imagen.pt")
    with pytest.raises(ConfigError, match="image_sizes"):
        convert(path, tmp_path / "out")
    config = {"settings": {"image_sizes": [16, 16], "timesteps": 1}}
    imagen = load(convert(path, tmp_path / "out", config=config))
    assert isinstance(imagen, Imagen)
    assert_parity(imagen.unets[0], "base")
    assert_parity(imagen.unets[1], "memory_efficient")
    words = torch.randn(1, 5, 12)
    assert imagen.sample(text_embeds=words, cond_scale=2.0).shape == (1, 3, 16, 16)
    trainer = ImagenTrainer(imagen_checkpoint_path=tmp_path / "out", verbose=False)
    assert trainer(torch.rand(1, 3, 16, 16), text_embeds=words, unet_number=1) > 0


def test_averages_are_taken_unless_not_wanted(tmp_path, in_process):
    path, weights = tmp_path / "imagen.pt", foreign("plain")
    twice = {name: weight * 2 for name, weight in weights.items()}
    model, ema = prefixed("unets.0.", weights), prefixed("0.ema_model.", twice)
    torch.save({"model": model, "ema": ema}, path)
    config = {"settings": {"image_sizes": [16]}}
    averaged = load(convert(path, tmp_path / "a", config=config))
    plain = load(convert(path, tmp_path / "b", config=config, ema=False))
    torch.testing.assert_close(
        averaged.unets[0].final_conv.weight, 2 * plain.unets[0].final_conv.weight
    )


def test_a_checkpoint_made_from_a_config_says_all(tmp_path, in_process):
    params = {
        "unets": [{"dim": 16, "scale_skip_connection": False}, {"dim": 16}],
        "image_sizes": [16, 32],
        "num_sample_steps": 2,
        "cond_drop_prob": 0.5,
        "video": False,
    }
    path = trainer_file(tmp_path / "i.pt", imagen_type="elucidated", imagen_params=params)
    imagen = load(convert(path, tmp_path / "out"))
    assert isinstance(imagen, ElucidatedImagen)
    assert imagen.settings.cond_drop_prob == 0.5 and imagen.image_sizes == (16, 32)
    assert not imagen.unets[0].settings.scale_skip_connection
    assert imagen.unets[1].settings.scale_skip_connection
    params["video"] = True
    path = trainer_file(tmp_path / "v.pt", imagen_type="original", imagen_params=params)
    with pytest.raises(CalotypeError, match="video"):
        convert(path, tmp_path / "v")


def test_single_networks_convert(tmp_path, in_process):
    config = {**CASES["plain"]["settings"], "num_image_tokens": 9, "dropout": 0.3}
    torch.save({"config": config, "state_dict": foreign("plain")}, tmp_path / "persisted.pt")
    unet = load(convert(tmp_path / "persisted.pt", tmp_path / "out"))
    assert isinstance(unet, Unet) and unet.settings.dropout == 0
    assert_parity(unet, "plain")
    torch.save(foreign("untold"), tmp_path / "state.pt")
    assert_parity(load(convert(tmp_path / "state.pt", tmp_path / "state")), "untold")


def test_what_does_not_fit_is_said(tmp_path, in_process):
    path = trainer_file(tmp_path / "imagen.pt")
    sizes = {"settings": {"image_sizes": [16, 16]}}
    with pytest.raises(CalotypeError, match="settings of the U-Nets"):
        convert(path, tmp_path / "o", config={**sizes, "unets": [{"dim": 24}, {}]})
    with pytest.raises(ConfigError, match="each of 2"):
        convert(path, tmp_path / "o", config={**sizes, "unets": [{}]})
    with pytest.raises(ConfigError, match="known: kind"):
        convert(path, tmp_path / "o", config={"setings": {}})
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CalotypeError, match="no checkpoint of imagen-pytorch"):
        convert(tmp_path / "other.pt", tmp_path / "o")


def test_a_folder_that_was_tampered_with_is_refused(tmp_path, in_process):
    torch.save(foreign("untold"), tmp_path / "state.pt")
    out = convert(tmp_path / "state.pt", tmp_path / "out")
    data = json.loads((out / "imagen.json").read_text())
    huge = {**data, "settings": {**data["settings"], "dim": 1 << 19}}
    for changed in ({**data, "kind": "os.system"}, {**data, "format": 99}, huge):
        (out / "imagen.json").write_text(json.dumps(changed))
        with pytest.raises(CalotypeError):
            load(out)
    (out / "imagen.json").write_text(json.dumps(data))
    whole = (out / "weights.safetensors").read_bytes()
    (out / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CalotypeError, match="whole safetensors"):
        load(out)


@pytest.fixture
def converted(tmp_path, in_process, monkeypatch):
    """A folder written by the command, as seen from another place than it was written from."""
    path = trainer_file(tmp_path / "imagen.pt")
    (tmp_path / "c.json").write_text('{"settings": {"image_sizes": [16, 16], "timesteps": 2}}')
    arguments = [str(path), "--config", str(tmp_path / "c.json"), "--text-encoder", "bytes:12"]
    assert run(["convert", *arguments, "-o", str(tmp_path / "out")]) == 0
    return str(tmp_path / "out")


def test_from_a_checkpoint_to_images_by_command(converted, tmp_path, capsys):
    def draw(*more, name="p.png"):
        command = ["sample", "a cat", "--model", converted, "-o", str(tmp_path / name), *more]
        assert run([*command, "--steps", "1"]) == 0
        return tmp_path / name

    capsys.readouterr()
    first = draw("--seed", "4", "--json")
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == [str(first)] and report["pictures"][0]["caption"] == "a cat"
    assert len(report["model"].pop("weights")) == 64
    assert report["model"] == {"name": "out", "text_encoder": "bytes:12"}
    assert read_recipe(first)["seed"] == 4
    # What the cascade itself draws from that seed.
    imagen = load(converted)
    change_steps(imagen, 1)
    assert imagen.settings.timesteps == (1, 2)
    torch.manual_seed(4)
    expected = imagen.sample(texts=["a cat"], cond_scale=3.0, return_pil_images=True)[0]
    assert np.array_equal(np.array(Image.open(first)), np.array(expected))
    # An image is the same wherever it is in a row of them; other guidance draws another one.
    draw("--seed", "3", "-n", "2", "--write-captions", name="q.png")
    again = Image.open(tmp_path / "q-1.png")
    assert np.array_equal(np.array(again), np.array(expected))
    assert (tmp_path / "q-0.txt").read_text() == "a cat"
    other = Image.open(draw("--seed", "4", "--guidance", "1", "--size", "16", name="r.png"))
    assert not np.array_equal(np.array(other), np.array(expected))
    assert Image.open(draw("-n", "2", "--grid", name="g.png")).size == (32, 16)
    # The best of two, by the embedded CLIP, is one of them.
    best = draw("--seed", "3", "--best-of", "2", name="best.png")
    recipe = read_recipe(best)
    assert len(recipe["best_of"]["scores"]) == 2 and recipe["seed"] in (3, 4)
    alone = draw("--seed", str(recipe["seed"]), name="alone.png")
    assert np.array_equal(np.array(Image.open(best)), np.array(Image.open(alone)))


def test_a_list_of_captions_is_drawn_by_this_process(converted, tmp_path, capsys):
    (tmp_path / "list.txt").write_text("a cat\na dog\n")
    command = ["sample", "--from-file", str(tmp_path / "list.txt"), "--model", converted]
    command += ["--steps", "1", "-o", str(tmp_path / "p.png")]
    assert run(command) == 0
    drawn = [read_recipe(tmp_path / f"p-{number}.png")["caption"] for number in range(2)]
    assert drawn == ["a cat", "a dog"]
    capsys.readouterr()
    assert run([*command, "--workers", "2"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--negative", "dull"], "got --negative for a cascade of imagen-pytorch"),
        (["--variety", "0.5"], "got --variety for a cascade of imagen-pytorch"),
        (["--size", "16x16"], "WIDTHxHEIGHT"),
        (["--size", "64"], "expected one of [16, 16]"),
        (["--stage-option", "16:steps=2"], "--stage-option"),
        (["--clip-guidance", "3"], "got --classifier or --clip-guidance for a cascade"),
        (["--steps", "0"], "steps"),
    ],
)
def test_options_without_a_meaning_are_refused(converted, tmp_path, capsys, more, said):
    command = ["sample", "a cat", "--model", converted, "-o", str(tmp_path / "p.png"), *more]
    assert run(command) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "p.png").exists()


def test_the_text_encoder_is_kept(converted, tmp_path):
    assert IMAGEN_PYTORCH_FILE == SETTINGS_FILE
    imagen = load(converted)
    assert imagen.lazy_text.spec == "bytes:12" and imagen.lazy_text.width is None  # not yet loaded
    assert imagen.encode_text(["a cat"]).shape[-1] == 12
    assert load(converted, text_encoder="bytes:12").lazy_text.width == 12
    with pytest.raises(UsageError, match=r"calotype\.interop\.imagen_pytorch\.load"):
        Cascade.load(converted)
    with pytest.raises(UsageError, match="calotype convert"):
        Cascade.load(tmp_path / "imagen.pt")


def test_calotype_convert_takes_a_file(tmp_path, in_process, capsys):
    path = trainer_file(tmp_path / "base.pt")  # GLIDE calls one of its files so; --config decides
    config = tmp_path / "c.json"
    config.write_text('{"settings": {"image_sizes": [16, 16]}}')
    out = tmp_path / "out"
    assert run(["convert", str(path), "-o", str(out), "--config", str(config)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert_parity(load(out).unets[0], "base")
    torch.save(foreign("untold"), tmp_path / "unet.ckpt")
    assert run(["convert", str(tmp_path / "unet.ckpt"), "-o", str(tmp_path / "unet")]) == 0
    assert_parity(load(tmp_path / "unet"), "untold")


@pytest.mark.parametrize(
    ("more", "config", "said"),
    [
        (["--half"], None, "expected --config"),
        (["--tokenizer", "."], None, "expected --config"),
        (["--text-encoder", "bytes:8"], None, "reads no captions"),
        (["i.pt"], None, "got 2 paths"),
        ([], "[1]", "holds a list"),
        ([], "{", "no valid JSON"),
        ([], '{"setings": {}}', "known: kind"),
    ],
)
def test_calotype_convert_says_what_is_wrong(
    tmp_path, in_process, capsys, monkeypatch, more, config, said
):
    monkeypatch.chdir(tmp_path)
    torch.save(foreign("untold"), "i.pt")
    if config is not None:
        (tmp_path / "c.json").write_text(config)
        more = [*more, "--config", "c.json"]
    assert run(["convert", "i.pt", *more, "-o", "out"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_calotype_convert_of_what_is_not_there(tmp_path, capsys):
    assert run(["convert", str(tmp_path / "none.pt"), "-o", str(tmp_path / "o")]) == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    command = ["convert", str(tmp_path / "folder"), "-o", "o", "--config", "c.json"]
    assert run(command) == 2 and "--config for a folder" in capsys.readouterr().err
    assert run([*command[:-2], "--no-ema"]) == 2
    assert "--no-ema for a folder" in capsys.readouterr().err
