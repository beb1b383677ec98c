"""A converted cascade of imagen-pytorch is measured as any other model."""

import shutil

import pytest
import torch

from calotype.cascade.results import drain
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.sample_set import square_pixels
from calotype.generation.request import Request
from calotype.interop.imagen_pytorch import Imagen, Unet
from calotype.interop.imagen_pytorch.files import save
from calotype.interop.imagen_pytorch.generator import imagen_recipe, open_imagen


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two stages of 8 pixels and one step each, as `calotype convert` writes them."""
    torch.manual_seed(0)
    unets = [Unet(dim=8, dim_mults=(1,), layer_attns=False, layer_cross_attns=False)] * 2
    sizes = {"image_sizes": (8, 16), "timesteps": 1, "text_embed_dim": 12}
    return save(Imagen(unets, text_encoder="bytes:12", **sizes), tmp_path_factory.mktemp("m") / "m")


@pytest.fixture
def evaluate(command, folder, eyes, colours):
    """Evaluate the cascade; (exit code, stdout, stderr)."""

    def run(*words, source=folder):
        given = ["evaluate", str(source), "--suite", str(colours / "suite.txt"), "--threads", "1"]
        return command(*given, *words)

    return run


@pytest.mark.parametrize("best_of", [None, pytest.param(2, marks=pytest.mark.slow)])
def test_the_recipe_is_known_before_weights_are(folder, monkeypatch, best_of):
    request = Request(model=str(folder), guidance=2.0, steps=2, threads=1, best_of=best_of)
    (made,) = drain((generator := open_imagen(request)).generate(generator.plan(["a"], [3])))
    monkeypatch.setattr("calotype.interop.imagen_pytorch.generator.load", None)
    expected = imagen_recipe(request)
    own = ("caption", "seed", "best_of")
    assert {k: v for k, v in made.recipe.items() if k not in own} == {
        k: v for k, v in expected.items() if k not in own
    }
    if best_of is not None:
        assert expected["best_of"].items() <= {**made.recipe["best_of"], "seed": 0}.items()
    sampling = [stage["sampling"] for stage in expected["stages"]]
    assert sampling == [{"steps": steps, "guidance_weight": 2.0} for steps in (2, 1)]


def test_its_samples_are_those_of_calotype_sample(evaluate, command, folder, colours, tmp_path):
    code, out, err = evaluate("--reference", str(colours / "real"), "-o", "e")
    assert code == 0, err
    assert "FID[lite0, N=8, 16px]" in out and "sampling 8 images" in err
    samples = open_samples(tmp_path / "e")
    assert samples.manifest.size == (16, 16) and samples.manifest.recipe["kind"] == "imagen_pytorch"
    one = samples.samples[3]
    words = ("--model", str(folder), "--seed", str(one.seed), "-o", "one.png", "--threads", "1")
    assert command("sample", one.caption, *words)[0] == 0
    alone = square_pixels((tmp_path / "one.png").read_bytes(), 16)
    assert torch.equal(alone, samples.pixels([3])[0])


def test_other_settings_need_another_folder(evaluate, tmp_path):
    words = ("--clip", "none", "-o", "e")
    assert evaluate(*words)[0] == 0
    written = (tmp_path / "e" / "samples" / "00000.parquet").stat().st_mtime_ns
    assert evaluate(*words)[0] == 0
    for other in (("--guidance", "2"), ("--steps", "3"), ("--size", "8")):
        code, _, err = evaluate(*words, *other)
        assert code == 2 and "choose another folder" in err, (other, err)
    assert (tmp_path / "e" / "samples" / "00000.parquet").stat().st_mtime_ns == written


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--negative", "dull"), "got --negative for a cascade of imagen-pytorch"),
        (("--stage-option", "8:steps=2"), "got --stage-option for a cascade of imagen-pytorch"),
        (("--size", "64"), "expected one of [8, 16]"),
        (("--losses", "8", "--reference", "x"), "expected a cascade to measure"),
    ],
)
def test_what_means_nothing_to_it_is_refused_beforehand(evaluate, tmp_path, words, message):
    code, out, err = evaluate(*words, "-o", "e")
    assert (code, out, err.count("\n")) == (2, "", 1) and message in err, err
    assert not (tmp_path / "e").exists()


def test_damaged_folders_are_refused_beforehand(evaluate, folder, tmp_path):
    for number, (name, data) in enumerate(
        (("imagen.json", b"{"), ("imagen.json", b'{"format": 1, "kind": "Unet", "settings": {}}'),
         ("weights.safetensors", b"x"), ("weights.safetensors", None))
    ):  # fmt: skip
        other = shutil.copytree(folder, tmp_path / str(number))
        (other / name).unlink()
        if data is not None:
            (other / name).write_bytes(data)
        code, out, err = evaluate("-o", "e", source=other)
        assert code in (1, 2) and out == "" and err.count("\n") == 1 and "defect" not in err, err
        assert not (tmp_path / "e").exists()


def test_a_card_is_of_cascades_alone(evaluate, tmp_path):
    code, out, err = evaluate("--suite", "emoji-11", "--card", "-o", "e")
    assert (code, out, err.count("\n")) == (2, "", 1) and "a cascade of imagen-pytorch" in err
    assert not (tmp_path / "e").exists()


def test_a_sweep_says_that_it_is_none_of_its_models(command, folder, colours):
    words = ("--suite", str(colours / "suite.txt"), "--axis", "8:steps=1,2", "-o", "s")
    code, _, err = command("sweep", str(folder), *words)
    assert code == 2 and "measure with calotype evaluate" in err and err.count("\n") == 1
