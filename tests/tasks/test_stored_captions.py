"""Training on embeddings that `calotype data embed` made, without loading the encoder."""

import shutil

import pytest
import torch

from calotype.config.data import DataConfig
from calotype.data.embed import EmbedJob, embed_data
from calotype.errors import CalotypeError
from calotype.tasks import captions as text
from calotype.tasks.captions import WantedCaptions, deferred_encoder, stored_captions
from calotype.text import build_text_encoder
from calotype.text.byte import ByteTextEncoder
from calotype.text.store import MissingCaptionError, embed_captions
from calotype.training import preparation

CAPTIONS = ["a cat", "two dogs", ""]


def wanted(captions=CAPTIONS, *, spec="bytes:8", width=8, **data):
    return WantedCaptions([], DataConfig(**data), spec, width, tuple(captions))


@pytest.fixture
def loads(monkeypatch):
    """Which encoders are built."""
    specs = []

    def build(spec):
        specs.append(spec)
        return build_text_encoder(spec)

    monkeypatch.setattr(text, "build_text_encoder", build)
    return specs


def test_a_whole_store_needs_no_encoder_until_a_caption_is_new(tmp_path, loads):
    encoder = ByteTextEncoder(8)
    embed_captions(encoder, CAPTIONS, folder=tmp_path)
    store = stored_captions(tmp_path, wanted())
    assert torch.equal(store[CAPTIONS].mask, encoder(CAPTIONS).mask)
    assert loads == []
    new = store[["never seen"]].tokens
    torch.testing.assert_close(new, encoder(["never seen"]).tokens, rtol=1e-3, atol=1e-3)
    assert loads == ["bytes:8"]


def test_stores_that_do_not_do(tmp_path):
    embed_captions(ByteTextEncoder(8), CAPTIONS, folder=tmp_path)
    assert stored_captions(tmp_path, wanted()) is not None
    for other in (wanted(spec="bytes:16"), wanted(width=16), wanted(["absent"])):
        assert stored_captions(tmp_path, other) is None
    assert stored_captions(tmp_path / "none", wanted()) is None
    refusing = stored_captions(tmp_path, wanted(["absent"], missing_captions="refuse"))
    with pytest.raises(LookupError):
        refusing[["absent"]]


def test_an_encoder_that_changed_since_is_refused(tmp_path):
    store = embed_captions(ByteTextEncoder(8, max_tokens=4), CAPTIONS, folder=tmp_path)
    deferred = deferred_encoder(store.card)
    with pytest.raises(CalotypeError, match="not the one that made"):
        deferred(["a cat"])


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_a_run_reads_the_store_beside_the_data(
    images, train, micro_recipe, tmp_path, loads, precision
):
    data = tmp_path / "d"
    shutil.copytree(images, data)
    embed_data(data, EmbedJob("bytes:8", data / "embeddings", precision))
    written = sorted(path.name for path in (data / "embeddings").rglob("*"))
    recipe = micro_recipe(total_images=8, data=DataConfig(missing_captions="refuse"))
    assert train(recipe, tmp_path / "run", data=data) == 0
    assert loads == []
    assert sorted(path.name for path in (data / "embeddings").rglob("*")) == written
    assert not (tmp_path / "run/embeddings").exists()


def test_a_caption_that_is_not_stored_ends_a_run_that_refuses(
    images, train, micro_recipe, tmp_path
):
    data = tmp_path / "d"
    shutil.copytree(images, data)
    embed_data(data, EmbedJob("bytes:8", data / "embeddings"))
    (data / "red-left.txt").write_text("a new caption")
    quiet = {"total_images": 8, "validation_images": 0, "grid_images": 0}
    recipe = micro_recipe(data=DataConfig(missing_captions="refuse"), **quiet)
    with pytest.raises(MissingCaptionError, match="'a new caption'") as error:
        train(recipe, tmp_path / "run", data=data)
    assert "\n" not in str(error.value)
    computing = micro_recipe(data=DataConfig(missing_captions="compute"), **quiet)
    assert train(computing, tmp_path / "other", data=data) == 0


def test_a_store_that_lacks_captions_is_completed_in_its_precision(
    images, train, micro_recipe, tmp_path
):
    data = tmp_path / "d"
    shutil.copytree(images, data)
    embed_captions(ByteTextEncoder(16), ["other"], folder=data / "embeddings")
    assert train(micro_recipe(total_images=4), tmp_path / "one", data=data) == 0
    assert (tmp_path / "one/embeddings").is_dir()  # the other encoder's store is left alone
    embed_data(data, EmbedJob("bytes:8", data / "embeddings", "int8"))
    (data / "new.txt").write_text("a new caption")
    shutil.copy(data / "red-left.png", data / "new.png")
    assert train(micro_recipe(total_images=4), tmp_path / "two", data=data) == 0
    assert not (tmp_path / "two/embeddings").exists()
    cards = preparation.store_cards(data / "embeddings")
    assert sorted((card.spec, card.precision) for card in cards) == [
        ("bytes:16", "float16"),
        ("bytes:8", "int8"),
    ]
