import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from calotype.data import fast_png
from calotype.data.images import BrokenImage, decode_image


def encode(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def png_header(width, height):
    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


RGBA = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)


@pytest.fixture(params=["with libvips", "without"], autouse=True)
def decoder(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(fast_png, "_pyvips", lambda: None)
    else:
        pytest.importorskip("pyvips")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_rgba_comes_back_exactly(form):
    data = encode(Image.fromarray(RGBA), form, **({"lossless": True, "exact": True}))
    np.testing.assert_array_equal(decode_image(data), RGBA)


@pytest.mark.parametrize("options", [{}, {"gamma": 1}, {"dpi": (300, 300)}])
def test_both_decoders_give_the_same_pixels_of_rgb(options):
    noise = np.random.default_rng(2).integers(0, 256, (70, 50, 3), dtype=np.uint8)
    rgba = decode_image(encode(Image.fromarray(noise), "PNG", **options))
    np.testing.assert_array_equal(rgba[..., :3], noise)
    assert (rgba[..., 3] == 255).all()


def test_a_transparent_colour_of_rgb():
    image = Image.new("RGB", (4, 4), (1, 2, 3))
    image.putpixel((0, 0), (9, 9, 9))
    rgba = decode_image(encode(image, transparency=(9, 9, 9)))
    assert rgba[0, 0, 3] == 0
    assert rgba[1, 1].tolist() == [1, 2, 3, 255]


def test_every_cut_of_a_png_is_broken():
    for length in range(0, len(NOISE) - 20, 501):
        with pytest.raises(BrokenImage):
            decode_image(NOISE[:length])


def test_grey_palette_and_rgb_become_opaque_rgba():
    grey = Image.new("L", (4, 4), 100)
    assert (decode_image(encode(grey)) == (100, 100, 100, 255)).all()
    assert (decode_image(encode(Image.new("1", (4, 4), 1))) == 255).all()
    palette = Image.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert (decode_image(encode(palette)) == (10, 200, 30, 255)).all()


def test_transparent_palette_keeps_its_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((0, 0), 0)
    rgba = decode_image(encode(image, transparency=0))
    assert rgba[0, 0, 3] == 0
    assert rgba[1, 1].tolist() == [255, 0, 0, 255]


def test_cmyk_is_converted():
    cmyk = Image.new("RGB", (16, 16), (200, 40, 90)).convert("CMYK")
    rgba = decode_image(encode(cmyk, "JPEG", quality=100)).astype(int)
    assert np.abs(rgba - (200, 40, 90, 255)).max() <= 3


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(form):
    values = np.array([[0, 257 * 100], [257 * 200, 65535]], dtype=np.uint16)
    rgba = decode_image(encode(Image.fromarray(values), form))
    assert rgba[..., 0].tolist() == [[0, 100], [200, 255]]
    assert (rgba[..., 3] == 255).all()


def test_exif_rotation_is_undone():
    upright = np.zeros((20, 10, 3), np.uint8)
    upright[:5] = 255  # white on top
    exif = Image.Exif()
    exif[0x0112] = 6  # to be seen upright, turn it 90 degrees clockwise
    stored = Image.fromarray(np.rot90(upright).copy())
    rgba = decode_image(encode(stored, "PNG", exif=exif.tobytes()))
    np.testing.assert_array_equal(rgba[..., :3], upright)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation(form):
    frames = [Image.new("RGB", (8, 8), colour) for colour in [(255, 0, 0), (0, 0, 255)]]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert (decode_image(data) == (255, 0, 0, 255)).all()


NOISE = encode(Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (NOISE[: len(NOISE) // 2], "truncated|Truncated|image file"),
        (NOISE[:40], "."),
        (encode(Image.new("RGB", (1, 1))), "got 1x1 pixels"),
        (png_header(20000, 20000), "decompression bomb"),
        (png_header(9500, 9500), "decompression bomb: got 9500x9500"),
        (png_header(64, 64), "."),
    ],
)
def test_broken_images_give_a_reason(data, reason):
    with pytest.raises(BrokenImage, match=reason):
        decode_image(data)
