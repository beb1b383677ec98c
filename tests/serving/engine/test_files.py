import io

import numpy as np
import pytest
from PIL import Image
from sd_parsers import ParserManager

from calotype.cascade.png import noted, read_recipe
from calotype.errors import CalotypeError, UsageError
from calotype.serving.engine.files import encode_file, encode_preview

SMOOTH = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
GLASS = np.dstack((SMOOTH, np.full((48, 64), 0, np.uint8)))
RECIPE = {
    "kind": "sample",
    "caption": "a red fox, & <b>é🦊</b>",
    "negative_caption": "blur",
    "seed": 2**62 + 1,
    "version": "0.1",
    "model": {"name": "small", "weights": "abcdef0123456789"},
    "stages": [
        {
            "height": 48,
            "width": 64,
            "sampling": {"steps": 4, "sampler": "ddim", "guidance_weight": 2.0},
        }
    ],
}
FORMATS = ["png", "jpeg", "webp"]


def encoded(format, pixels=SMOOTH, recipe=RECIPE, compression=90, metadata=True):
    return encode_file(pixels, recipe, format=format, compression=compression, metadata=metadata)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_is_of_its_format_and_its_recipe_comes_back(tmp_path, format):
    path = tmp_path / "image.png"  # names say nothing
    path.write_bytes(encoded(format))
    assert read_recipe(path) == RECIPE
    assert noted(path, "caption") == RECIPE["caption"]
    with Image.open(path) as image:
        assert (image.format, image.size) == (format.upper(), (64, 48))
        far = np.abs(np.asarray(image).astype(int) - SMOOTH)
    assert far.mean() <= (0 if format == "png" else 3)


@pytest.mark.parametrize("format", FORMATS)
def test_other_programs_read_how_it_was_made(tmp_path, format):
    path = tmp_path / f"image.{format}"
    path.write_bytes(encoded(format))
    found = ParserManager().parse(path)
    assert found.generator.value == "AUTOMATIC1111"
    assert found.full_prompt == RECIPE["caption"]
    assert found.full_negative_prompt == "blur"
    sampler = found.samplers[0]
    assert sampler.name == "ddim" and sampler.model.name == "small"
    assert sampler.parameters["seed"] == str(2**62 + 1)
    with Image.open(path) as image:
        packet = image.info["xmp"]
    assert b"digitalsourcetype/trainedAlgorithmicMedia<" in packet


@pytest.mark.parametrize("format", FORMATS)
def test_no_metadata_means_none(tmp_path, format):
    path = tmp_path / "image"
    path.write_bytes(encoded(format, metadata=False))
    with Image.open(path) as image:
        told = set(image.info) - {"jfif", "jfif_version", "jfif_unit", "jfif_density", "loop"}
        told -= {"background", "timestamp", "duration"}  # of WebP's container
        assert told == set() and dict(image.getexif()) == {}
    assert b"fox" not in path.read_bytes() and b"calotype" not in path.read_bytes()
    with pytest.raises(UsageError, match="no recipe"):
        read_recipe(path)


def test_what_is_transparent_stays_so_but_in_a_jpeg(tmp_path):
    def shown(format, recipe=RECIPE):
        with Image.open(io.BytesIO(encoded(format, GLASS, recipe))) as image:
            return image.mode, np.asarray(image)

    for format in ("png", "webp"):
        mode, pixels = shown(format)
        assert mode == "RGBA" and not pixels[..., 3].any()
    mode, pixels = shown("jpeg")
    assert mode == "RGB" and (pixels == 255).all()
    _, pixels = shown("jpeg", {**RECIPE, "edit": {"background": [0, 0, 255]}})
    assert np.abs(pixels.astype(int) - (0, 0, 255)).max() <= 2


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_quality(format):
    rough = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sizes = [len(encoded(format, rough, compression=quality)) for quality in (0, 1, 50, 89, 100)]
    assert sizes == sorted(sizes) and sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("caption", ["\0\ud800]]>&", "x" * 32_000, "狐" * 32_000])
def test_any_caption_can_be_written(tmp_path, format, caption):
    path = tmp_path / "image"
    path.write_bytes(encoded(format, recipe={**RECIPE, "caption": caption}))
    got = read_recipe(path)
    whole = format != "jpeg" or len(caption) * (1 if caption.isascii() else 6) < 59_000
    assert (got["caption"] == caption) is whole
    assert caption.startswith(got["caption"]) and len(got["caption"]) in (len(caption), 7812)
    assert ("captions_cut" in got) is not whole


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_damaged_files(tmp_path, format):
    path = tmp_path / "image"
    whole = encoded(format)
    for end in (12, 40, len(whole) // 2):
        path.write_bytes(whole[:end])
        try:
            assert read_recipe(path) == RECIPE  # it stands before the pixels in a JPEG
        except CalotypeError as error:
            assert "\n" not in str(error)
    path.write_bytes(whole.replace(b'{"kind"', b'{"kind;'))
    with pytest.raises(CalotypeError, match="damaged"):
        read_recipe(path)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pixels", [SMOOTH, GLASS])
def test_previews_hold_nothing_but_pixels(format, pixels):
    data = encode_preview(pixels, format)
    assert b"calotype" not in data
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == (format.upper(), (64, 48))
