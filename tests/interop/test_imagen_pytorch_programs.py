"""The three programs of imagen-pytorch's own documentation, with the import changed.

The fast ones are smaller in width, images, steps and batch; the slow ones are the programs as
they stand, with fewer timesteps.
"""

import sys

import pytest
import torch

from calotype.conditioning import TextEmbedding
from calotype.interop.imagen_pytorch import Imagen, ImagenTrainer, SRUnet256, Unet


class Words:
    """A text encoder of any width for tests: states from the letters."""

    max_tokens = 256
    fingerprint = "words"

    def __init__(self, embed_dim):
        self.embed_dim = embed_dim

    def __call__(self, captions):
        generator = torch.Generator().manual_seed(len("".join(captions)))
        tokens = torch.randn(len(captions), 5, self.embed_dim, generator=generator)
        return TextEmbedding(tokens, torch.ones(len(captions), 5, dtype=torch.bool))


pytestmark = pytest.mark.filterwarnings("ignore:.*there is no GPU.*")


def cascade_program(*, dim, mults, sizes, side, timesteps, texts=3):
    unet1 = Unet(
        dim=dim,
        cond_dim=dim * 16,
        dim_mults=mults,
        num_resnet_blocks=3 if dim == 32 else 1,
        layer_attns=(False, *[True] * (len(mults) - 1)),
        layer_cross_attns=(False, *[True] * (len(mults) - 1)),
    )
    last = (*[False] * (len(mults) - 1), True)
    unet2 = Unet(
        dim=dim,
        cond_dim=dim * 16,
        dim_mults=mults,
        num_resnet_blocks=(2, 4, 8, 8) if dim == 32 else 1,
        layer_attns=last,
        layer_cross_attns=last,
    )
    imagen = Imagen(
        unets=(unet1, unet2),
        image_sizes=sizes,
        timesteps=timesteps,
        cond_drop_prob=0.1,
        text_encoder=Words(768),
    ).cuda()
    text_embeds = torch.randn(4, 256, 768)
    images = torch.randn(4, 3, side, side)
    for i in (1, 2):
        loss = imagen(images, text_embeds=text_embeds, unet_number=i)
        loss.backward()
        assert loss.ndim == 0 and torch.isfinite(loss)
        norms = [p.grad.abs().sum() for p in imagen.unets[i - 1].parameters() if p.grad is not None]
        assert sum(norms) > 0
    images = imagen.sample(
        texts=[
            "a whale breaching from afar",
            "young girl blowing out candles on her birthday cake",
            "fireworks with blue and green sparkles",
        ][:texts],
        cond_scale=3.0,
    )
    assert images.shape == (texts, 3, sizes[-1], sizes[-1])
    assert 0 <= images.min() and images.max() <= 1


def trainer_program(*, dim, mults, sizes, side, timesteps, batch):
    unet1 = Unet(
        dim=dim,
        cond_dim=dim * 16,
        dim_mults=mults,
        num_resnet_blocks=3 if dim == 32 else 1,
        layer_attns=(False, *[True] * (len(mults) - 1)),
    )
    last = (*[False] * (len(mults) - 1), True)
    unet2 = Unet(
        dim=dim,
        cond_dim=dim * 16,
        dim_mults=mults,
        num_resnet_blocks=(2, 4, 8, 8) if dim == 32 else 1,
        layer_attns=last,
        layer_cross_attns=last,
    )
    imagen = Imagen(
        unets=(unet1, unet2),
        text_encoder_name="t5-large",
        image_sizes=sizes,
        timesteps=timesteps,
        cond_drop_prob=0.1,
        text_encoder=Words(1024),
    ).cuda()
    trainer = ImagenTrainer(imagen)
    text_embeds = torch.randn(batch, 256, 1024)
    images = torch.randn(batch, 3, side, side)
    loss = trainer(images, text_embeds=text_embeds, unet_number=1, max_batch_size=4)
    trainer.update(unet_number=1)
    assert isinstance(loss, float) and loss > 0
    drawn = []
    imagen.sample, sample = (lambda **k: drawn.append(imagen.unets) or sample(**k)), imagen.sample
    images = trainer.sample(
        texts=["a puppy looking anxiously at a giant donut", "the milky way galaxy"],
        cond_scale=3.0,
    )
    assert images.shape == (2, 3, sizes[-1], sizes[-1])
    assert drawn == [trainer.ema_unets] and imagen.unets is not trainer.ema_unets


def unconditional_program(*, dim, sizes, side, timesteps, blocks, batch_size=16):
    unet1 = Unet(
        dim=dim,
        dim_mults=(1, 2, 4),
        num_resnet_blocks=blocks[0],
        layer_attns=(False, True, True),
        layer_cross_attns=False,
        use_linear_attn=True,
    )
    unet2 = SRUnet256(
        dim=dim,
        dim_mults=(1, 2, 4),
        num_resnet_blocks=blocks[1],
        layer_attns=(False, False, True),
        layer_cross_attns=False,
    )
    imagen = Imagen(
        condition_on_text=False, unets=(unet1, unet2), image_sizes=sizes, timesteps=timesteps
    )
    trainer = ImagenTrainer(imagen).cuda()
    training_images = torch.randn(4, 3, side, side)
    loss = trainer(training_images, unet_number=1)
    trainer.update(unet_number=1)
    assert loss > 0
    images = trainer.sample(batch_size=batch_size)
    assert images.shape == (batch_size, 3, sizes[-1], sizes[-1])


def test_cascade():
    cascade_program(dim=8, mults=(1, 2), sizes=(8, 16), side=16, timesteps=2)


def test_trainer():
    trainer_program(dim=8, mults=(1, 2), sizes=(8, 16), side=16, timesteps=2, batch=6)


def test_without_text(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr("calotype.interop.imagen_pytorch.text.build_text_encoder", None)
    monkeypatch.setattr("calotype.interop.imagen_pytorch.cascade.text_width", None)
    unconditional_program(dim=8, sizes=(8, 16), side=32, timesteps=2, blocks=(1, (1, 1, 2)))


@pytest.mark.slow
def test_cascade_as_it_is():
    cascade_program(dim=32, mults=(1, 2, 4, 8), sizes=(64, 256), side=256, timesteps=1)


@pytest.mark.slow
def test_trainer_as_it_is():
    trainer_program(dim=32, mults=(1, 2, 4, 8), sizes=(64, 256), side=256, timesteps=1, batch=64)


@pytest.mark.slow
def test_without_text_as_it_is():
    unconditional_program(dim=32, sizes=(64, 128), side=256, timesteps=1, blocks=(3, (2, 4, 8)))
