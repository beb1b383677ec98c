"""GLIDE's files become cascades that load, draw, fill in and follow a noised CLIP."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from glide_reference import (
    HEAD_DIM,
    RESOLUTION,
    clip_tokens,
    conditioning,
    recorded,
    shapes,
    weights,
)
from PIL import Image
from safetensors.torch import save_file

from calotype import cli, interop
from calotype.cascade import Cascade, KnownPixels, StageEdit, inpaint
from calotype.cascade.guide import Pull
from calotype.conditioning import Conditioning, TokenIds
from calotype.config.sampling import SamplingConfig
from calotype.diffusion import PerSampleNoise
from calotype.errors import CalotypeError, UsageError
from calotype.generation.edit import edit_image
from calotype.generation.edit_source import Step
from calotype.generation.request import Request
from calotype.interop import pickle_worker
from calotype.interop.glide import convert_glide, is_glide, load, load_guide
from calotype.interop.glide.noised_clip import (
    FOLDER,
    clip_config,
    clip_model,
    clip_names,
    noised_clip,
)
from calotype.interop.glide.reference import ReferenceStage
from calotype.interop.glide.stages import FAST_27, glide_stage
from calotype.interop.pickles import Unpickled
from calotype.interop.safety import ForeignWeights, read_header
from calotype.text.byte_pair import byte_alphabet, load_clip_bpe
from calotype.vision.clip import load_clip, save_clip

VOCABULARY = 300
QUICK = SamplingConfig(steps=3, sampler="ddim", guidance_weight=2.0, threshold_percentile=None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """A vocabulary of bytes, a pair or two and the end mark, in GLIDE's format and in CLIP's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    words = [*byte_alphabet(), "fo", "fox", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(words)}
    (folder / "encoder.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "vocab.bpe").write_text("#version: 0.2\nf o\nfo x\n", encoding="utf-8")
    (folder / "bpe_simple_vocab_16e6.txt").write_text("#version: 0.2\nf o\nfo x</w>\n")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The base and the noised CLIP, as its authors would have written them at this width."""
    folder = tmp_path_factory.mktemp("published")
    half = {name: tensor.half() for name, tensor in weights("base", VOCABULARY).items()}
    torch.save(half, folder / "base.pt")
    for part in ("text", "image"):
        tensors = dict(weights(f"clip_{part}"))
        torch.save(tensors, folder / f"clip_{part}_enc.pt")
    return folder


@pytest.fixture(scope="module")
def converted(published, tokenizer, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "glide"
    source = published / "base.pt"
    assert is_glide(published) and is_glide(source) and not is_glide(tokenizer)
    return convert_glide(source, out, tokenizer=tokenizer, head_dim=HEAD_DIM)


def stage(model):
    tensors = weights(model, VOCABULARY)
    return glide_stage(
        shapes(model, VOCABULARY), tensors.__getitem__, head_dim=HEAD_DIM, resolution=RESOLUTION
    )


def test_a_converted_cascade_has_the_defaults_and_the_weights(converted):
    cascade = Cascade.load(converted)
    (base,) = cascade.stages
    sampling = base.config.sampling
    assert (base.config.resolution, sampling.steps, sampling.guidance_weight) == (64, 100, 3.0)
    expected = stage("base").network.state_dict()
    for name, tensor in base.network.state_dict().items():
        torch.testing.assert_close(tensor, expected[name].half().float(), atol=0, rtol=0)


@pytest.mark.parametrize("arithmetic", ["table", "levels"])
def test_the_order_of_operations_is_no_setting_any_more(converted, arithmetic, tmp_path):
    """Folders that chose one are read; the reference's order is asked for by name."""
    folder = tmp_path / "before"
    shutil.copytree(converted, folder)
    path = folder / "64/stage.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"arithmetic": arithmetic}))
    (base,) = Cascade.load(folder).stages
    assert base.config == Cascade.load(converted).stages[0].config
    text = conditioning("base").text
    cond = Conditioning(TokenIds(text.ids % VOCABULARY, text.mask))
    images = [
        one.sample(cond, None, PerSampleNoise([1, 2]), size=(16, 16), sampling=QUICK)
        for one in (base, ReferenceStage.of(base))
    ]
    torch.testing.assert_close(*images, atol=3e-3, rtol=0)


def test_it_draws_from_captions(converted):
    cascade = Cascade.load(converted)
    options = {"sampling": [SamplingConfig(steps=1, sampler="ddim", threshold_percentile=None)]}
    images = cascade.sample(["fox", ""], seeds=[1, 1], size=(16, 16), **options).images[-1]
    assert images.shape == (2, 3, 16, 16)
    alone = cascade.sample(["fox"], seeds=[1], size=(16, 16), **options).images[-1]
    torch.testing.assert_close(images[:1], alone, atol=1e-4, rtol=0)
    assert not torch.equal(images[0], images[1])


def test_up_samplers_take_the_steps_of_the_authors():
    sampling = stage("upsample").config.sampling
    assert sampling.timesteps == FAST_27[::-1] and sampling.guidance_weight == 1
    assert sampling.sampler == "ddim"
    assert stage("base_inpaint").config.sampling.guidance_weight == 5


def test_the_up_sampler_sees_bilinear_enlargement():
    lowres = recorded()["low_res"]
    upsampler = stage("upsample")
    text = conditioning("upsample").text
    noise = PerSampleNoise([0, 1])
    cond = upsampler.lowres_condition(lowres, text, size=(16, 16), aug_level=0.0, noise=noise)
    assert torch.equal(cond.lowres, conditioning("upsample").lowres)


def test_filling_in_tells_the_network_what_is_known(tokenizer):
    base = stage("base_inpaint")
    cascade = Cascade(f"glide:{tokenizer}", [base])
    image = recorded()["inpaint_image"]
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    mask[..., :8] = True
    captions, seeds = ["fox", "a fox"], [3, 4]
    options = {"seeds": seeds, "sampling": [QUICK]}
    drawn = inpaint(cascade, image, mask, captions, **options).images[-1]
    torch.testing.assert_close(drawn[..., :8], image[..., :8], atol=1e-4, rtol=0)

    edit = StageEdit(known=KnownPixels(image, mask))
    assert torch.equal(edit.extra, torch.cat((image * mask, mask.float()), dim=1))
    text = cascade.text_encoder(captions)
    cond, uncond = (type(conditioning("base"))(t) for t in (text, TokenIds.null(2)))
    noise = PerSampleNoise(seeds, stream=0)
    expected = base.sample(cond, uncond, noise, size=(16, 16), sampling=QUICK, edit=edit)
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=0)

    blind = replace(edit, blind=True)
    noise = PerSampleNoise(seeds, stream=0)
    other = base.sample(cond, uncond, noise, size=(16, 16), sampling=QUICK, edit=blind)
    assert float((other - drawn).abs().max()) > 1e-3


def test_nothing_known_is_a_mask_of_zeros():
    base, data, cond = stage("base_inpaint"), recorded(), conditioning("base")
    text = TokenIds(cond.text.ids % VOCABULARY, cond.text.mask)
    outputs = [
        base.network(data["x"], data["timesteps"], type(cond)(text, extra=extra))
        for extra in (None, torch.zeros(2, 4, 16, 16))
    ]
    assert torch.equal(*outputs)


def network():
    parts = {"text": "clip_text", "image": "clip_image"}
    config = clip_config(*(shapes(part) for part in parts.values()), head_dim=32)
    towers = {name: (shapes(part), weights(part).__getitem__) for name, part in parts.items()}
    return noised_clip(config, towers)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder / FOLDER, clip_model(network(), tokenizer))
    return folder


@pytest.fixture(scope="module")
def folder_of_before(tmp_path_factory):
    """Queries, keys and values apart, no bias of keys, and settings of a kind of their own."""
    place = tmp_path_factory.mktemp("before") / FOLDER
    place.mkdir()
    tensors = {
        f"{part}.{name}": weights(f"clip_{part}")[key]
        for part in ("text", "image")
        for key, name in clip_names(shapes(f"clip_{part}")).items()
    }
    save_file(tensors, place / "weights.safetensors")
    config = network().config
    towers = {
        part: {name: getattr(tower, name) for name in ("width", "layers", "heads", "head_dim")}
        for part, tower in (("text", config.text), ("image", config.image))
    }
    numbers = {
        "vocabulary": config.text.vocabulary,
        "context": config.text.context,
        "resolution": config.image.resolution,
        "patch": config.image.patch,
        "timesteps": config.noise.schedule.steps,
        "embed_dim": config.embed_dim,
        "logit_scale": 100.0,
    }
    (place / "config.json").write_text(json.dumps(towers | numbers))
    return place.parent


def test_a_noised_clip_of_before_is_the_same(clip_folder, folder_of_before, tokenizer):
    now, before = (load_guide(f, tokenizer=tokenizer).clip for f in (clip_folder, folder_of_before))
    expected = now.network.state_dict()
    for name, tensor in before.network.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert now.file.clip == before.file.clip


def test_a_noised_clip_is_a_clip_like_others(clip_folder, tokenizer):
    model = load_clip(clip_folder / FOLDER)
    guide = load_guide(clip_folder, tokenizer=tokenizer)
    assert torch.equal(model.embed_texts(["a fox", ""]), guide.clip.embed_texts(["a fox", ""]))
    image = recorded()["inpaint_image"]
    step = torch.zeros(len(image), dtype=torch.int64)
    expected = model.network.embed_image(image, step)  # clean: the least noisy timestep
    torch.testing.assert_close(model.embed_images(image), expected)


def test_a_noised_clip_guides_the_base(clip_folder, tokenizer):
    guide = load_guide(clip_folder, tokenizer=tokenizer)
    data = recorded()
    embeddings = guide.clip.network.embed_text(clip_tokens())
    torch.testing.assert_close(embeddings, data["clip.text_embeddings"], atol=1e-5, rtol=0)
    captions = ["a fox", "o"]
    ids = load_clip_bpe(tokenizer).tokens(captions, 77)
    expected = guide.clip.network.embed_text(ids.padded(77))
    torch.testing.assert_close(guide.clip.embed_texts(captions), expected)

    cascade = Cascade(f"glide:{tokenizer}", [stage("base")])
    options = {"seeds": [5, 6], "sampling": [QUICK]}
    pulls = [Pull(guide, 3.0)]
    plain = cascade.sample(captions, **options).images[-1]
    together = cascade.sample(captions, pulls=pulls, **options).images[-1]
    parts = cascade.sample(captions, pulls=pulls, max_batch=1, **options).images[-1]
    torch.testing.assert_close(parts, together, atol=1e-3, rtol=0)
    assert float((plain - together).abs().max()) > 1e-4
    levels = cascade.stages[0].levels(QUICK)[-2].float().expand(2)
    score = guide.log_likelihood(captions, [5, 6])
    assert bool((score(together, levels) > score(plain, levels)).all())


@pytest.fixture
def read_here(monkeypatch, tmp_path):
    """Reads pickles in this process: starting others takes most of a test's time."""

    @contextmanager
    def unpickled(path):
        folder = tmp_path / f"read {path.stem}"
        folder.mkdir()
        pickle_worker.convert(path, folder)
        entries = read_header(folder / "weights.safetensors")
        yield Unpickled(ForeignWeights(entries), {})

    monkeypatch.setattr(load, "unpickled", unpickled)


@pytest.mark.usefixtures("read_here")
def test_the_noised_clip_beside_the_networks_comes_along(published, tokenizer, tmp_path):
    out = convert_glide(published, tmp_path / "out", tokenizer=tokenizer, head_dim=HEAD_DIM)
    guide = load_guide(out, tokenizer=tokenizer)
    assert guide.clip.file.clip.image.heads == 64 // HEAD_DIM
    assert guide.clip.embed_texts(["fox"]).shape == (1, 64)


@pytest.mark.usefixtures("read_here")
def test_in_painting_models_make_a_cascade_of_their_own(tokenizer, tmp_path):
    tensors = {name: tensor.clone() for name, tensor in weights("base_inpaint", VOCABULARY).items()}
    torch.save(tensors, tmp_path / "base_inpaint.pt")
    out = convert_glide(tmp_path, tmp_path / "out", tokenizer=tokenizer, head_dim=HEAD_DIM)
    cascade = Cascade.load(out)
    assert cascade.name == "glide-inpaint"
    assert cascade.stages[0].config.network.extra_channels == 4
    source = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    Image.fromarray(source).save(tmp_path / "source.png")
    side = cascade.stages[0].config.resolution
    settings = (f"{side}:steps=2",)
    request = Request(model=str(out), stage_options=settings, dtype="float32", threads=1)
    box = Step(caption="fox", boxes=((8, 8, 40, 24),))
    made, blind = (
        edit_image(tmp_path / "source.png", step, request=request)[0].pixels
        for step in (box, replace(box, blind=True))
    )
    hole = np.zeros((96, 96), bool)
    hole[8:32, 8:48] = True
    assert np.array_equal(made[~hole], source[~hole])
    assert not np.array_equal(made[hole], source[hole])
    assert not np.array_equal(made[hole], blind[hole])  # the network looks at what is kept
    with pytest.raises(UsageError, match="upsample"):
        convert_glide(
            tmp_path, tmp_path / "other", tokenizer=tokenizer, inpaint=False, head_dim=HEAD_DIM
        )


def test_what_is_missing_is_said(published, tokenizer, tmp_path, clip_folder):
    with pytest.raises(UsageError, match="--tokenizer"):
        convert_glide(published, tmp_path / "out", tokenizer=None)
    with pytest.raises(CalotypeError, match=r"encoder\.json"):
        convert_glide(published, tmp_path / "out", tokenizer=tmp_path)
    with pytest.raises(UsageError, match="none of"):
        convert_glide(tmp_path, tmp_path / "out", tokenizer=tokenizer)
    with pytest.raises(CalotypeError, match="clip_text_enc"):
        load_guide(tmp_path, tokenizer=tokenizer)
    with pytest.raises(CalotypeError, match="bpe_simple_vocab"):
        load_guide(clip_folder, tokenizer=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_pickle_that_is_no_weights_is_refused(tokenizer, tmp_path):
    torch.save({"out.2.weight": tmp_path}, tmp_path / "base.pt")  # a path is an object, not data
    with pytest.raises(CalotypeError, match="plain weights"):
        convert_glide(tmp_path, tmp_path / "out", tokenizer=tokenizer)
    assert not (tmp_path / "out").exists()


def test_truncated_clip_weights_are_refused(clip_folder, folder_of_before, tokenizer, tmp_path):
    for source, message in ((clip_folder, "SHA-256"), (folder_of_before, "truncated")):
        folder = tmp_path / message
        shutil.copytree(source, folder)
        weights = folder / FOLDER / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        with pytest.raises(CalotypeError, match=message):
            load_guide(folder, tokenizer=tokenizer)


def test_which_files_make_a_cascade(tmp_path):
    for name in ("base.pt", "upsample.pt", "base_inpaint.pt", "upsample_inpaint.pt"):
        (tmp_path / name).touch()

    def names(source, inpaint=None):
        return [path.name for path in load._chosen(source, inpaint)]

    assert names(tmp_path) == ["base.pt", "upsample.pt"]
    assert names(tmp_path, True) == ["base_inpaint.pt", "upsample_inpaint.pt"]
    assert names(tmp_path / "upsample.pt") == ["upsample.pt"]
    pair = [tmp_path / "upsample_inpaint.pt", tmp_path / "base_inpaint.pt"]
    assert names(pair) == ["base_inpaint.pt", "upsample_inpaint.pt"]
    with pytest.raises(UsageError, match="expected one folder"):
        names([tmp_path / "base.pt", tmp_path / "upsample_inpaint.pt"])
    with pytest.raises(UsageError, match=r"calotype convert .* --tokenizer"):
        interop.load(tmp_path)
    with pytest.raises(UsageError, match="calotype convert"):
        Cascade.load(tmp_path)


@pytest.mark.usefixtures("read_here")
def test_the_command(published, tokenizer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(load, "glide_stage", lambda *_, **__: stage("base"))
    arguments = [str(published / "base.pt"), "-o", str(tmp_path / "out"), "--half"]
    assert cli.run(["convert", *arguments]) == 2
    assert "--tokenizer" in capsys.readouterr().err
    assert cli.run(["convert", *arguments, "--tokenizer", str(tokenizer)]) == 0
    weight = Cascade.load(tmp_path / "out").stages[0].network.stem.weight
    torch.testing.assert_close(weight, stage("base").network.stem.weight.half().float())
