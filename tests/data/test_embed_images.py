"""Embeddings of images ahead: keyed by image and background, equal to the model's own."""

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.config.clip import ClipConfig, ImageTowerConfig, TextTowerConfig
from calotype.config.data import DataConfig
from calotype.data.embed import EmbedJob, embed_data
from calotype.data.open import open_source
from calotype.emoji.captions import GRAMMAR
from calotype.errors import CalotypeError, UsageError
from calotype.networks.clip import Clip
from calotype.vision.clip import ClipFile, ClipModel, load_clip, save_clip
from calotype.vision.store import ImageEmbeddings, image_key


def save(folder, embed_dim=8, seed=0):
    tower = {"width": 16, "layers": 1, "heads": 2}
    config = ClipConfig(
        image=ImageTowerConfig(resolution=8, patch=4, **tower),
        text=TextTowerConfig(states=8, **tower),
        embed_dim=embed_dim,
    )
    file = ClipFile(
        format=1, name="c", text_encoder="bytes:8", text_fingerprint="", sha256="", clip=config
    )
    torch.manual_seed(seed)
    save_clip(folder, ClipModel(file, Clip(config)))
    return load_clip(folder)


@pytest.fixture
def data(tmp_path):
    """Two shards' worth of emoji rows: a red half on nothing, with captions that paint it."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows, folder = 6, tmp_path / "data"
    folder.mkdir()
    images = []
    for number in range(rows):
        pixels = np.zeros((8, 8, 4), np.uint8)
        pixels[:, : number + 1] = (255, 0, 0, 255)
        file = tmp_path / "x.png"
        Image.fromarray(pixels).save(file)
        images.append(file.read_bytes() if number < 5 else b"no image")
    names = [f"thing {n}" for n in range(rows)]
    columns = {
        "image": images, "key": [f"k/{n}" for n in range(rows)], "name": names,
        "keywords": [["word"]] * rows, "style": ["noto style"] * rows, "split": ["train"] * rows,
    }  # fmt: skip
    pq.write_table(pa.table(columns), folder / "a.parquet")
    return folder


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_they_are_the_models_own(data, tmp_path, precision):
    model = save(tmp_path / "clip")
    job = EmbedJob(f"clip-image:{tmp_path / 'clip'}", tmp_path / "store", precision)
    report = embed_data(data, job, variants=16, grammar=GRAMMAR)
    assert report.examples == 6 and report.embedded == report.captions > 12
    assert embed_data(data, job, variants=16, grammar=GRAMMAR).embedded == 0
    stored = ImageEmbeddings(tmp_path / "store", model)
    source = open_source(data, resolution=8, data=DataConfig(), grammar=GRAMMAR)

    found = 0
    for index, example in ((n, source[n]) for n in range(5)):
        for colour in {caption.background for caption in example.captions}:
            ground = np.full((8, 8, 4), (*(colour or (255, 255, 255)), 255), np.uint8)
            whole = Image.alpha_composite(Image.fromarray(ground), Image.fromarray(example.image))
            x = torch.tensor(np.asarray(whole.convert("RGB"))).permute(2, 0, 1)[None]
            own = model.embed_images(x.float() / 127.5 - 1)
            got = stored([f"k/{index}"], [colour])
            torch.testing.assert_close(got, own, rtol=0, atol=1e-3 if precision[0] == "f" else 2e-2)
            found += 1
    assert found > 10
    with pytest.raises(LookupError, match="k/5"):  # its image is broken
        stored(["k/5"], [None])
    with pytest.raises(LookupError):
        stored(["k/0"], [(1, 2, 3)])


def test_another_clip_is_refused(data, tmp_path):
    job = EmbedJob(f"clip-image:{tmp_path / 'clip'}", tmp_path / "store")
    first = save(tmp_path / "clip")
    embed_data(data, job, variants=2, grammar=GRAMMAR)
    for other in (save(tmp_path / "wide", embed_dim=12), save(tmp_path / "new", seed=1)):
        with pytest.raises(CalotypeError, match=f"{first.fingerprint:.12} of width 8"):
            ImageEmbeddings(tmp_path / "store", other)
    with pytest.raises(CalotypeError, match="no encoder"):
        ImageEmbeddings(tmp_path / "empty", first)
    with pytest.raises(UsageError, match="got CLIP"):
        embed_data(data, EmbedJob("clip-image:nowhere", tmp_path / "store"))


def test_keys_say_image_and_background():
    keys = {image_key("a", None), image_key("a", (0, 0, 0)), image_key("b", None)}
    assert len(keys) == 3 and image_key("a", (255, 255, 255)) == image_key("a", None)
