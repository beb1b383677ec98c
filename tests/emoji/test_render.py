"""Drawing: straight alpha, exact box shrinking, and losslessness."""

import io

import numpy as np
import pytest
from PIL import Image

from calotype.emoji.render import RenderJob, box_halve, pixel_digest, render, render_png

pytest.importorskip("pyvips")

SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg" width="SIZE" height="SIZE" viewBox="0 0 4 4">'
    b'<rect x="0" y="0" width="2" height="4" fill="#ff8000"/>'
    b'<rect x="2" y="0" width="2" height="2" fill="#0000ff" fill-opacity="0.5"/></svg>'
)


@pytest.mark.parametrize("size", [64, 256, 1024])
def test_colours_and_alpha_are_the_drawings(size):
    image = render(RenderJob(SVG, False, size))
    assert image.shape == (size, size, 4) and image.dtype == np.uint8
    quarter = size // 4
    assert image[quarter, quarter].tolist() == [255, 128, 0, 255]
    assert image[quarter, 3 * quarter].tolist() == pytest.approx([0, 0, 255, 128], abs=1)
    assert image[3 * quarter, 3 * quarter].tolist() == [0, 0, 0, 0]


def test_png_is_lossless():
    job = RenderJob(SVG, False, 256)
    decoded = np.asarray(Image.open(io.BytesIO(render_png(job))))
    assert decoded.shape == (256, 256, 4)
    np.testing.assert_array_equal(decoded, render(job))


def test_box_halve_weights_colour_by_alpha():
    block = np.zeros((2, 2, 4), np.uint8)
    block[0, 0] = (200, 0, 0, 255)  # one opaque red pixel among clear ones of any colour
    block[1, 1] = (0, 255, 0, 0)
    assert box_halve(block).tolist() == [[[200, 0, 0, 64]]]


def test_box_halve_is_the_premultiplied_mean():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 6, 4), dtype=np.uint8)
    halved = box_halve(pixels).astype(np.float64)
    premultiplied = pixels[..., :3] / 255 * pixels[..., 3:] / 255
    expected = premultiplied.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(halved[..., :3] / 255 * halved[..., 3:] / 255, expected, atol=0.004)


def test_broken_and_empty_drawings_are_none():
    assert render_png(RenderJob(b"<svg", False, 64)) is None
    empty = b'<svg xmlns="http://www.w3.org/2000/svg" width="SIZE" height="SIZE"></svg>'
    assert render_png(RenderJob(empty, False, 64)) is None


def webp(width, height):
    buffer = io.BytesIO()
    image = Image.new("RGBA", (width, height), (10, 20, 30, 255))
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def test_rasters_keep_their_pixels():
    image = render(RenderJob(webp(64, 64), True, 64))
    assert (image == (10, 20, 30, 255)).all()


def test_a_raster_that_is_not_square_is_padded():
    image = render(RenderJob(webp(64, 72), True, 64))
    assert image.shape == (64, 64, 4)
    assert image[32, 0, 3] < 128 and image[32, 32].tolist() == [10, 20, 30, 255]
    assert image[0, 32].tolist() == [10, 20, 30, 255]


def test_rasters_are_never_enlarged():
    assert render_png(RenderJob(webp(32, 32), True, 64)) is None


def test_pixel_digest_sees_pixels_and_not_spelling():
    spelled = SVG.replace(b"#ff8000", b"rgb(255,128,0)")
    other = SVG.replace(b"#ff8000", b"#ff8001")
    digest = pixel_digest(RenderJob(SVG, False, 64))
    assert digest == pixel_digest(RenderJob(spelled, False, 64))
    assert digest != pixel_digest(RenderJob(other, False, 64))
