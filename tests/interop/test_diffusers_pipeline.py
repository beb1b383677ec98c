"""Tiny random pipelines of diffusers in a folder, sampled as any other model."""

import json

import numpy as np
import pytest
import torch

from calotype.cascade.results import drain
from calotype.errors import UsageError
from calotype.generation.request import Request
from calotype.interop.diffusers_pipeline import (
    DiffusersGenerator,
    DiffusersJob,
    is_diffusers,
    pipeline_recipe,
)

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion's parts, each as small as it can be, with random weights."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("pipeline")
    letters = [chr(97 + n) for n in range(26)]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(words)}))
    (place / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = transformers.CLIPTokenizer(
        str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=77
    )
    text = transformers.CLIPTextConfig(
        vocab_size=len(words), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=52, eos_token_id=53,
    )  # fmt: skip
    network = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), cross_attention_dim=8,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), norm_num_groups=4, attention_head_dim=2,
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=4, sample_size=16,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    pipeline = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=transformers.CLIPTextModel(text), tokenizer=tokenizer, unet=network,
        scheduler=diffusers.DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(place / "tiny")
    return place / "tiny"


def test_images_follow_their_seeds_alone(folder):
    job = DiffusersJob(folder, steps=2, guidance=2.0, threads=1)
    generator = DiffusersGenerator(job)
    plan = generator.plan(["a fox", "b", "a fox"], [1, 1, 2])
    made = drain(generator.generate(plan))
    assert made[0].pixels.shape == (16, 16, 3) and made[0].pixels.dtype == np.uint8
    assert not np.array_equal(made[0].pixels, made[2].pixels)
    alone = drain(generator.generate(generator.plan(["a fox"], [2])))
    assert np.abs(alone[0].pixels.astype(int) - made[2].pixels).max() <= 1
    recipe = made[1].recipe
    assert (recipe["caption"], recipe["seed"]) == ("b", 1)
    assert {**pipeline_recipe(job), "caption": "b", "seed": 1} == recipe
    assert recipe["stages"][0]["sampling"] == {"steps": 2, "guidance": 2.0}
    assert recipe["model"]["pipeline"] == "StableDiffusionPipeline"


def test_other_weights_have_another_name(folder, tmp_path):
    import shutil

    other = tmp_path / "tiny"
    shutil.copytree(folder, other)
    one, two = (pipeline_recipe(DiffusersJob(place))["model"] for place in (folder, other))
    assert one == two
    path = next(other.rglob("diffusion_pytorch_model.safetensors"))
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert pipeline_recipe(DiffusersJob(other))["model"]["weights"] != one["weights"]


def test_code_in_the_folder_is_not_run(folder, tmp_path):
    import shutil

    other = tmp_path / "tiny"
    shutil.copytree(folder, other)
    (other / "unet" / "mine.py").write_text("raise SystemExit('run')")
    with pytest.raises(UsageError, match="expected no code"):
        DiffusersGenerator(DiffusersJob(other))
    (other / "unet" / "mine.py").unlink()
    index = json.loads((other / "model_index.json").read_text())
    index["unet"] = ["mine", "UNet"]
    (other / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="code from elsewhere"):
        DiffusersGenerator(DiffusersJob(other))
    (other / "model_index.json").write_text('{"_class_name": ["mine", "Pipe"]}')
    with pytest.raises(UsageError, match="no pipeline class"):
        pipeline_recipe(DiffusersJob(other))


def test_folders_that_are_no_text_to_image_pipeline(folder, tmp_path):
    assert is_diffusers(folder) and not is_diffusers(tmp_path)
    place = tmp_path / "plain"
    network = diffusers.UNet2DModel(
        sample_size=8, block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    diffusers.DDPMPipeline(unet=network, scheduler=diffusers.DDPMScheduler()).save_pretrained(place)
    with pytest.raises(UsageError, match="expected a text-to-image pipeline"):
        DiffusersGenerator(DiffusersJob(place))
    for path in place.rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(UsageError, match="no weights in safetensors"):
        pipeline_recipe(DiffusersJob(place))


def test_what_is_asked_of_a_pipeline(folder):
    job = DiffusersJob.of(folder, Request(width=24, height=16, steps=2, negative="dull"))
    assert (job.size, job.steps, job.negative) == ((16, 24), 2, "dull")
    assert DiffusersJob.of(folder, Request(size=16)).size == (16, 16)
    for request, message in (
        (Request(variety=0.5), "got --variety for a pipeline of diffusers"),
        (Request(sampler="ddim"), "got --sampler"),
        (Request(best_of=2), "got --best-of"),
        (Request(width=16), "expected --width with --height"),
        (Request(size=16, width=16), "got --size and --width"),
    ):
        with pytest.raises(UsageError, match=message):
            DiffusersJob.of(folder, request)


def test_a_pipeline_and_a_folder_of_jpegs_stand_in_one_comparison(
    command, folder, model, eyes, colours, noisy, tmp_path
):
    jpegs = noisy(tmp_path / "jpegs", seed=1, size=32, kind="jpg")
    words = ("--suite", str(colours / "suite.txt"), "--reference", str(colours / "real"))
    words = (*words, "--side", "16", "--threads", "1")
    for name, source, own in (
        ("pipeline", folder, ("--steps", "2")),
        ("cascade", model, ("--dtype", "float32", "--size", "16")),
        ("others", jpegs, ()),
    ):
        code, _, err = command("evaluate", str(source), *words, *own, "-o", name)
        assert code == 0, err
    code, _, err = command("compare", "pipeline", "cascade", "others", "-o", "page.html")
    assert code == 2 and "--recode" in err
    sets = ("pipeline", "cascade", "others")
    code, _, err = command("compare", *sets, "-o", "page.html", "--recode", "jpeg")
    assert code == 0, err
    html = (tmp_path / "page.html").read_text()
    assert all(f'<th scope="col">{name}</th>' in html for name in sets)
    assert "StableDiffusionPipeline" in (tmp_path / "pipeline" / "results.json").read_text()
