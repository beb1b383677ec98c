import math
import subprocess
import sys

import pytest
import torch

from calotype.conditioning import TextEmbedding
from calotype.errors import CalotypeError, ConfigError, UsageError
from calotype.interop.imagen_pytorch import ElucidatedImagen, Imagen, NullUnet, Unet
from calotype.interop.imagen_pytorch.formulation import Churn, churned_levels
from calotype.interop.imagen_pytorch.images import cropped
from calotype.interop.imagen_pytorch.text import T5_WIDTHS, text_width

TINY = {
    "dim": 8,
    "cond_dim": 8,
    "dim_mults": (1, 2),
    "attn_dim_head": 8,
    "attn_heads": 2,
    "max_text_len": 6,
    "attn_pool_num_latents": 2,
}
KINDS = [(Imagen, {"timesteps": 3}), (ElucidatedImagen, {"num_sample_steps": 3})]


def cascade(kind=Imagen, more=None, **arguments):
    unets = (Unet(**TINY), Unet(**TINY, memory_efficient=True))
    more = {"timesteps": 2} if more is None else more
    return kind(unets, image_sizes=(8, 16), text_embed_dim=5, **more, **arguments)


def trained_a_little(model):
    """Weights that answer: the last layer of a new U-Net is zero."""
    with torch.no_grad():
        for unet in model.unets:
            if isinstance(unet, Unet):
                unet.final_conv.weight.normal_(std=0.1)
    return model


WORDS = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "more"), KINDS)
def test_editing_keeps_and_starts(kind, more):
    torch.manual_seed(0)
    model = trained_a_little(cascade(kind, more))
    mask = torch.zeros(2, 16, 16, dtype=torch.bool)
    mask[:, :8] = True
    kept = model.sample(
        text_embeds=WORDS, inpaint_images=IMAGES, inpaint_masks=mask, inpaint_resample_times=2
    )
    torch.testing.assert_close(kept[:, :, :8], IMAGES[:, :, :8], rtol=0, atol=1e-6)
    assert (kept[:, :, 8:] - IMAGES[:, :, 8:]).abs().mean() > 0.05
    outputs = model.sample(text_embeds=WORDS, return_all_unet_outputs=True, use_tqdm=False)
    assert [tuple(x.shape) for x in outputs] == [(2, 3, 8, 8), (2, 3, 16, 16)]
    alone = model.sample(
        text_embeds=WORDS, start_at_unet_number=2, start_image_or_video=IMAGES,
        return_pil_images=True,
    )  # fmt: skip
    assert [image.size for image in alone] == [(16, 16)] * 2


class _Perfect(Unet):
    """Knows the image: its noise prediction is exact."""

    def predict(self, x, time, inputs, *, self_cond=None):
        alpha, sigma = torch.sigmoid(time).sqrt(), torch.sigmoid(-time).sqrt()
        return (x - alpha[:, None, None, None] * 0.5) / sigma[:, None, None, None]


def test_the_sampler_finds_the_image_of_a_perfect_network():
    tiny = {**TINY, "cond_on_text": False, "text_embed_dim": None}
    model = Imagen(_Perfect(**tiny), image_sizes=8, condition_on_text=False, timesteps=4)
    torch.testing.assert_close(model.sample(batch_size=3), torch.full((3, 3, 8, 8), 0.75))


def test_a_start_is_noised_to_its_level():
    torch.manual_seed(0)
    model = cascade(more={"timesteps": 10})
    seen = []
    unet = model.unets[0]
    predict = unet.predict
    unet.predict = lambda x, time, *a, **k: seen.append((x, time)) or predict(x, time, *a, **k)
    start = torch.full((2, 3, 8, 8), 1.0)
    model.sample(text_embeds=WORDS, init_images=start, skip_steps=8, stop_at_unet_number=1)
    x, time = seen[0]
    alpha = math.sqrt(torch.sigmoid(time[0]))
    assert len(seen) == 2 and abs(float(x.mean()) - alpha) < 0.1
    assert abs(float(x.std()) - math.sqrt(1 - alpha**2)) < 0.1
    with pytest.warns(UserWarning, match="skip_steps"):
        model.sample(text_embeds=WORDS, init_images=start, stop_at_unet_number=1, skip_steps=0)
    with pytest.raises(UsageError, match="0 to 9"):
        model.sample(text_embeds=WORDS, skip_steps=10)


def test_churn_goes_back_to_more_noise_within_its_range():
    sigma = torch.tensor([80.0, 20.0, 1.0, 0.01], dtype=torch.float64)
    levels = torch.cat((-2 * sigma.log(), torch.tensor([math.inf], dtype=torch.float64)))
    churn = Churn(amount=1.6, lowest=0.05, highest=50, noise_scale=1.0)
    walked = (-churned_levels(levels, churn, steps=4) / 2).exp()
    expected = torch.tensor([80, 20, 28, 1, 1.4, 0.01, 0], dtype=torch.float64)
    torch.testing.assert_close(walked, expected)
    assert churned_levels(levels, Churn(0, 0, 99, 1), steps=4) is levels


def test_stages_are_told_what_they_shall_be_told():
    torch.manual_seed(0)
    told = {**TINY, "self_cond": True, "cond_images_channels": 2}
    unets = (Unet(**told), Unet(**told))
    model = Imagen(
        unets, image_sizes=(8, 16), text_embed_dim=5, timesteps=3, channels=1,
        random_crop_sizes=(None, 8), per_sample_random_aug_noise_level=True,
        pred_objectives=("v", "x_start"), dynamic_thresholding=(False, True),
    )  # fmt: skip
    trained_a_little(model)
    extra, images = torch.rand(2, 2, 4, 4), (IMAGES[:, :1] * 255).to(torch.uint8)
    seen = []
    unet = model.unets[1]
    predict = unet.predict

    def spy(x, time, inputs, *, self_cond=None):
        seen.append((x, inputs, self_cond))
        return predict(x, time, inputs, self_cond=self_cond)

    unet.predict = spy
    for number in (1, 2):
        loss = model(images, text_embeds=WORDS, unet_number=number, cond_images=extra)
        assert torch.isfinite(loss)
    x, inputs, _ = seen[-1]
    assert x.shape == inputs.lowres.shape == (2, 1, 8, 8)  # crops
    assert inputs.lowres_logsnr[0] != inputs.lowres_logsnr[1]
    seen.clear()
    drawn = model.sample(text_embeds=WORDS, cond_images=extra, cond_scale=(1.0, 4.0))
    assert drawn.shape == (2, 1, 16, 16)
    assert [one[2] is None for one in seen] == [True, False, False]
    assert all(len(one[0]) == 4 and one[2].abs().max() <= 1 for one in seen[1:])


def test_self_conditioning_leaves_the_target_alone():
    """In that package the estimate takes the target's place: its loss is 0 (x_start)."""
    model = Imagen(
        Unet(**TINY, self_cond=True), image_sizes=8, text_embed_dim=5, pred_objectives="x_start",
        min_snr_loss_weight=True,
    )  # fmt: skip
    losses = []
    for seed in range(8):
        torch.manual_seed(seed)
        losses.append(float(model(IMAGES, text_embeds=WORDS).detach()))
    assert min(losses) > 1e-4  # a new network answers 0, the images are not 0


def test_crops_are_the_same_square():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    both = cropped(torch.cat((x, x + 100), dim=1), 3)
    torch.testing.assert_close(both[:, 1] - both[:, 0], torch.full((1, 3, 3), 100.0))


def test_seeds_repeat_and_batches_are_captions():
    model = trained_a_little(cascade())
    draw = []
    for _ in range(2):
        torch.manual_seed(3)
        draw.append(model.sample(text_embeds=WORDS, cond_scale=2.0))
    assert torch.equal(*draw)
    assert model.training


def test_a_null_unet_holds_the_first_place():
    model = Imagen((NullUnet(), Unet(**TINY)), image_sizes=(8, 16), text_embed_dim=5, timesteps=2)
    assert torch.isfinite(model(IMAGES, text_embeds=WORDS, unet_number=2))
    larger = model.sample(text_embeds=WORDS, start_at_unet_number=2, start_image_or_video=IMAGES)
    assert larger.shape == IMAGES.shape
    for call in (lambda: model(IMAGES, text_embeds=WORDS, unet_number=1),
                 lambda: model.sample(text_embeds=WORDS)):  # fmt: skip
        with pytest.raises(UsageError, match="NullUnet"):
            call()


def test_texts_need_an_encoder_at_hand(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="text_embed_dim"):
        Imagen(Unet(**TINY), image_sizes=8, text_encoder_name="no-such-encoder")
    model = Imagen(Unet(**TINY), image_sizes=8, text_encoder_name=str(tmp_path), text_embed_dim=5)
    with pytest.raises(CalotypeError, match=r"text_embeds=.*text_encoder=") as caught:
        model.sample(texts=["a cat"])
    assert "\n" not in str(caught.value)
    model = Imagen(Unet(**TINY), image_sizes=8, timesteps=1, text_encoder="bytes:12")
    assert model.sample(texts=["a cat", ""]).shape == (2, 3, 8, 8)
    with pytest.raises(ConfigError, match="width 12"):
        Imagen(Unet(**TINY), image_sizes=8, text_embed_dim=5, text_encoder="bytes:12")


def test_an_empty_caption_is_the_null_caption():
    model = Imagen(Unet(**TINY), image_sizes=8, text_embed_dim=5)
    unet = model.unets[0]
    hidden = []
    unet.predict = lambda x, time, inputs, **k: hidden.append(inputs.text.hidden) or x
    model(IMAGES, text_embeds=torch.cat((WORDS[:1], torch.zeros(1, 4, 5))))
    torch.testing.assert_close(hidden[0][1:], unet.null_text_hidden)


def test_the_example_of_an_encoder():
    class Encoder:
        embed_dim = 5

        def __call__(self, captions):
            return TextEmbedding(WORDS, torch.ones(2, 4, dtype=torch.bool))

    model = Imagen(Unet(**TINY), image_sizes=8, timesteps=1, text_encoder=Encoder())
    states, mask = model.encode_text(["a", "b"], return_attn_mask=True)
    assert torch.equal(states, WORDS) and mask.all()


def test_widths_come_from_a_table(tmp_path):
    assert T5_WIDTHS["t5-large"] == text_width("google-t5/t5-large") == 1024
    assert text_width("google/t5-v1_1-base") == 768 and text_width("google/flan-t5-xxl") == 4096
    (tmp_path / "config.json").write_text('{"d_model": 77}')
    assert text_width(str(tmp_path)) == 77


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: cascade(noise_schedules="sigmoid"), "cosine"),
        (lambda: cascade(loss_type="l3"), "huber"),
        (lambda: cascade(random_crop_sizes=4), "first U-Net"),
        (lambda: cascade(temporal_downsample_factor=2), "video"),
        (lambda: cascade(image_size=8), "image_sizes"),
        (lambda: Imagen(Unet(**TINY), image_sizes=(8, 16)), "1 U-Nets"),
        (lambda: Imagen(torch.nn.Linear(1, 1), image_sizes=8), "Linear"),
        (lambda: cascade()(IMAGES, text_embeds=WORDS), "unet_number"),
        (lambda: cascade()(IMAGES[:, :, :4, :4], text_embeds=WORDS, unet_number=1), "H >= 8"),
        (lambda: cascade()(IMAGES, text_embeds=WORDS[:1], unet_number=1), "1 captions"),
        (lambda: cascade()(IMAGES, text_embeds=WORDS[..., :3], unet_number=1), r"\(B, L, 5\)"),
        (lambda: cascade(only_train_unet_number=2)(IMAGES, unet_number=1), "only U-Net 2"),
        (lambda: cascade().sample(), "texts="),
        (lambda: cascade().sample(texts="a cat"), "list"),
        (lambda: cascade().sample(text_embeds=WORDS, video_frames=3), "video"),
        (lambda: cascade().sample(text_embeds=WORDS, inpaint_images=IMAGES), "inpaint_masks"),
        (lambda: cascade().sample(text_embeds=WORDS, stop_at_unet_number=3), "stop <= 2"),
        (lambda: cascade().sample(text_embeds=WORDS, start_at_unet_number=2), "start_image"),
        (lambda: cascade(cond_drop_prob=0).sample(text_embeds=WORDS, cond_scale=2), "cond_scale=1"),
        (lambda: cascade().sample(text_embeds=WORDS, sigma_max=2), "unknown"),
        (lambda: cascade(condition_on_text=False).sample(texts=["a"]), "condition_on_text"),
    ],
)
def test_mistakes_are_one_line(call, word):
    with pytest.raises(UsageError, match=word) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_cuda_without_a_gpu_warns_and_stays():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    unet = Unet(**TINY)
    with pytest.warns(UserWarning, match="no GPU"):
        assert unet.cuda() is unet


@pytest.mark.slow
def test_import_and_construction_touch_no_network_and_no_transformers():
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise RuntimeError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from calotype.interop.imagen_pytorch import *\n"
        "Imagen(Unet(dim=8, dim_mults=(1, 2)), image_sizes=8, text_encoder_name='t5-large')\n"
        "print('transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
