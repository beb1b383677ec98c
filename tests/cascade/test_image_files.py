import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from calotype.cascade.image_files import rgba_of, to_rgba
from calotype.errors import UsageError

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_an_image_with_a_profile_is_turned_upright_too():
    exif = Image.Exif()
    exif[0x112] = 6  # lies on its side, as phones write it
    image = Image.fromarray(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10)
    data = saved(image, icc_profile=SRGB, exif=exif)
    found = rgba_of(data, "it", most_pixels=6, to_srgb=True)
    assert found.shape == (3, 2, 4)
    far = np.abs(found[..., :3].astype(int) - np.rot90(np.asarray(image), -1))
    assert far.max() <= 1


def test_too_many_pixels_are_refused_before_a_profile_is_applied(monkeypatch):
    data = saved(Image.new("RGB", (9, 9)), icc_profile=SRGB)
    monkeypatch.setattr(Image.Image, "load", None)
    with pytest.raises(UsageError, match="9x9; expected at most 80 pixels"):
        rgba_of(data, "it", most_pixels=80, to_srgb=True)


def test_a_profile_leaves_deep_grey_deep():
    grey = np.linspace(0, 65535, 200).reshape(2, 100).astype(np.uint16)
    data = saved(Image.fromarray(grey), icc_profile=SRGB)
    found = rgba_of(data, "it", most_pixels=200, to_srgb=True)
    assert np.array_equal(found[..., 0], np.rint(grey / 257))


def test_deep_grey_is_scaled_alike_in_every_row():
    values = np.random.default_rng(0).integers(0, 65536, (200, 7))
    found = to_rgba(Image.fromarray(values.astype(np.int32)))
    assert np.array_equal(found[..., 2], np.rint(values / 65535 * 255))
    assert (found[..., 3] == 255).all()


def test_of_a_camera_s_jpeg_with_a_preview_behind_it_the_first_is_taken():
    red, blue = Image.new("RGB", (9, 8), "red"), Image.new("RGB", (4, 4), "blue")
    data = saved(red, "MPO", save_all=True, append_images=[blue])
    found = rgba_of(data, "it", most_pixels=72, still=True)
    assert found.shape == (8, 9, 4) and found[0, 0, 0] > 250


def test_animations_are_no_still_image():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for format in ("PNG", "WEBP", "GIF"):
        data = saved(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.raises(UsageError, match="holds 2 images"):
            rgba_of(data, "it", most_pixels=16, still=True)
