import asyncio
import base64
import hashlib
import io
import os
import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from calotype.cascade.png import encode_png
from calotype.cascade.provenance import parameters_text
from calotype.errors import UsageError
from calotype.serving.engine.files import encode_file
from calotype.serving.front import decoding, uploads
from calotype.serving.front.errors import ApiError
from calotype.serving.front.uploads import Upload, decode, fitted, hole_from_alpha, hole_from_mask

ROUGH = np.random.default_rng(0).integers(0, 256, (6, 9, 4), dtype=np.uint8)
RECIPE = {"caption": "a fox \ud800", "seed": 7, "version": "0.1"}


def saved(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def decoded(data, role="image"):
    return asyncio.run(decode(data, role=role))


def refused(data, role="image", retry=False):
    with pytest.raises(ApiError) as caught:
        decoded(data, role)
    error = caught.value
    assert error.retry is retry
    assert (error.status, error.param, error.code) == (400, role, f"invalid_{role}")
    assert "\n" not in error.message and "/" not in error.message and len(error.message) < 600
    return error.message


def png(width, height, *, rows=None, mode=2, depth=8, chunks=b""):
    """A PNG made by hand, of zeros or of what `rows` holds."""

    def chunk(kind, body):
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, mode, 0, 0, 0))
    if rows is None:
        channels = {0: 1, 2: 3, 6: 4}[mode]
        line = bytes(1 + (width * channels * depth + 7) // 8)
        packer = zlib.compressobj(9)
        rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    more = b"".join(chunk(kind, body) for kind, body in chunks)
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_pixels_come_back_with_recipe_and_text_and_nothing_else():
    data = encode_png(ROUGH, RECIPE)
    found = decoded(data)
    assert (found.width, found.height) == (9, 6)
    assert np.array_equal(found.pixels, ROUGH)
    assert found.recipe == {**RECIPE, "caption": "a fox ?"}
    assert found.parameters == parameters_text(RECIPE)
    assert found.sha256 == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("format", ["jpeg", "webp"])
def test_recipes_of_other_formats(format):
    data = encode_file(ROUGH, RECIPE, format=format, compression=90, metadata=True)
    found = decoded(data)
    assert found.recipe["seed"] == 7 and found.parameters.startswith("a fox")


SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TURNED = Image.Exif()
TURNED[0x112] = 6
GREY = Image.fromarray(np.linspace(0, 65535, 54).reshape(6, 9).astype(np.uint16))
SMOOTH = Image.fromarray(np.linspace(0, 255, 6 * 9 * 3).reshape(6, 9, 3).astype(np.uint8))
PALETTE = Image.fromarray(ROUGH[..., 0] % 4, "P")
PALETTE.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])


@pytest.mark.parametrize(
    ("data", "size", "pixel"),
    [
        (saved(SMOOTH.convert("CMYK"), "JPEG", quality=100), (9, 6), None),
        (saved(GREY), (9, 6), (0, 0, 0, 255)),
        (saved(PALETTE, transparency=bytes([0, 90, 255, 255])), (9, 6), None),
        (saved(SMOOTH, "JPEG", exif=TURNED, icc_profile=SRGB), (6, 9), None),
        (saved(SMOOTH, "WEBP", exif=TURNED, lossless=True), (6, 9), None),
        (saved(Image.new("1", (9, 6), 1)), (9, 6), (255, 255, 255, 255)),
        (saved(Image.new("LA", (9, 6), (7, 80))), (9, 6), (7, 7, 7, 80)),
        (saved(Image.new("RGB", (1, 1), "red")), (1, 1), (255, 0, 0, 255)),
        (png(1, 1, mode=6, depth=16), (1, 1), (0, 0, 0, 0)),
        (saved(SMOOTH, icc_profile=b"no profile at all"), (9, 6), None),
        (saved(SMOOTH) + b"PK\3\4 and what follows", (9, 6), None),
        (saved(SMOOTH, "JPEG") + b"<html><script>", (9, 6), None),
    ],
    ids=lambda value: None,
)
def test_every_kind_of_image(data, size, pixel):
    found = decoded(data)
    assert (found.width, found.height) == size and len(found.rgba) == size[0] * size[1] * 4
    if pixel is not None:
        assert tuple(found.pixels[0, 0]) == pixel


def _linear(profile):
    """An sRGB profile whose curves are straight lines."""
    at = profile.index(b"para", 128)  # all three colours point to it
    body = b"curv" + bytes(8)
    return profile[:at] + body + profile[at + len(body) :]


def test_colours_of_a_mask_are_numbers():
    # Grey whose gamma is 1: as a colour its middle is much brighter.
    data = saved(Image.new("RGB", (4, 4), (128, 128, 128)), icc_profile=_linear(SRGB))
    assert decoded(data, "mask").pixels[0, 0, 0] == 128
    assert decoded(data, "image").pixels[0, 0, 0] > 180


def test_files_of_other_kinds_are_not_even_opened(monkeypatch):
    monkeypatch.setattr(uploads, "_COMMAND", ("/nowhere",))
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for data in (
        saved(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        saved(frames[0], "BMP"),
        saved(frames[0], "TIFF"),
        b"%!PS-Adobe-3.0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"RIFF\0\0\0\0WAVE",
        b"\x89PN",
    ):
        assert "no PNG, JPEG or WebP" in refused(data)
    assert "empty" in refused(b"", "mask")
    head = b"\x89PNG\r\n\x1a\n"
    assert "20,971,521 bytes; expected at most 20,971,520" in refused(head.ljust(MOST + 1, b"\0"))
    assert "209,715,200 bytes" in refused(bytes(10 * MOST), "mask")


MOST = 20 * 2**20


def test_the_most_bytes_and_a_little_less_are_decoded():
    data = saved(SMOOTH, "JPEG")
    assert (
        decoded(data.ljust(MOST, b"\0")).width == 9
    )  # what stands behind the image is passed over


@pytest.mark.parametrize("make", ["PNG", "WEBP"])
def test_animations_are_refused(make):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = saved(frames[0], make, save_all=True, append_images=frames[1:])
    assert "holds 2 images" in refused(data)


LARGEST = png(4096, 4096, mode=0)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_the_largest_images_of_every_kind_fit_into_the_limits(format):
    side = np.add.outer(np.arange(4096), np.arange(4096)) >> 5
    image = Image.fromarray(np.dstack([side, side.T, side, side]).astype(np.uint8))
    options = {"exif": TURNED, "icc_profile": SRGB, "method": 0, "compress_level": 1}
    image = image.convert("RGB") if format == "JPEG" else image
    found = decoded(saved(image, format, progressive=True, **options))
    assert len(found.rgba) == 4 * decoding.MOST_PIXELS


@pytest.mark.slow
def test_the_largest_deep_grey_fits_into_the_limits():
    assert decoded(png(4096, 4096, mode=0, depth=16)).height == 4096


def test_pixels_at_above_and_far_above_the_limit():
    found = decoded(LARGEST)
    assert len(found.rgba) == 4 * decoding.MOST_PIXELS
    assert "4096x4097; expected at most 16,777,216 pixels" in refused(png(4096, 4097, mode=0))
    bomb = png(20_000, 20_000, mode=0, depth=1)
    assert len(bomb) < 60_000
    assert "far too many pixels; expected at most 16,777,216" in refused(bomb, "mask")
    assert "image" in refused(png(2**31 - 1, 2**31 - 1, rows=b""))
    assert decoded(png(1, 100_000, mode=0)).height == 100_000


@pytest.mark.parametrize(
    "data",
    [
        saved(SMOOTH)[:80],
        saved(SMOOTH, "JPEG")[:-40],
        saved(SMOOTH, "WEBP")[:-4],
        saved(SMOOTH, "WEBP")[:16],
        b"\xff\xd8\xff",
        png(9, 9, rows=b"no zlib"),
        png(0, 9, rows=b""),
        b"\x89PNG\r\n\x1a\n" + b"\xff" * 1000,
        b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff",
    ],
    ids=range(9),
)
def test_broken_files(data):
    assert refused(data)


def test_bombs_beside_the_pixels():
    bomb = zlib.compress(bytes(30 * 2**20), 9)
    for kind, body in (
        (b"iCCP", b"a\0\0" + bomb),
        (b"zTXt", b"parameters\0\0" + bomb),
        (b"iTXt", b"parameters\0\1\0\0\0" + bomb),
        (b"eXIf", b"MM\0*\0\0\0\x08" + b"\xff" * 10_000_000),
        (b"tEXt", b"calotype\0" + b"[" * 5_000_000),
        (b"tEXt", b"calotype\0" + b'{"a": NaN}'),
        (b"tEXt", b"calotype\0" + b'{"a": "' + b"a" * 5_000_000 + b'"}'),
    ):
        data = png(4, 4, chunks=[(kind, body)])
        try:
            found = decoded(data)
        except ApiError as error:
            assert error.status == 400
        else:
            assert (found.width, found.recipe) == (4, None)


def test_the_limits_hold(tmp_path):
    ask = "import os; from calotype.serving.front import decoding; decoding.limit();"
    for more in (
        "bytearray(decoding.MOST_MEMORY)",
        "os.write(os.open('here', os.O_CREAT | os.O_WRONLY), b'a')",
    ):
        command = [sys.executable, "-c", ask + more]
        ended = subprocess.run(command, capture_output=True, cwd=tmp_path, text=True)
        assert ended.returncode == 1 and ("MemoryError" in ended.stderr or "large" in ended.stderr)


def test_a_process_that_runs_out_of_memory_refuses_its_file(monkeypatch):
    code = (
        "import sys; from calotype.serving.front import decoding as d; d.MOST_MEMORY = 60 * 2**20;"
        "sys.argv = ['d', 'image']; d.main()"
    )
    monkeypatch.setattr(uploads, "_COMMAND", (sys.executable, "-c", code))
    assert "memory" in refused(LARGEST).lower()


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.kill(os.getpid(), 11)",
        "pass",
        "import sys; sys.stdin.buffer.read(); print('what' * 99)",
        "import sys; sys.stdin.buffer.read(); print('\\0\\0\\0\\2' + '\\0' * 8 + '[]')",
    ],
)
def test_a_process_that_dies_or_talks_nonsense(monkeypatch, code):
    monkeypatch.setattr(uploads, "_COMMAND", (sys.executable, "-S", "-c", code))
    assert "too much memory or time" in refused(saved(SMOOTH))


@pytest.mark.parametrize(
    "head",
    [
        "width=9, height=6",
        "width=-9, height=-6",
        "width='9', height=6",
        "width=None, height=[]",
        "width=0, height=0",
    ],
)
def test_a_process_that_was_taken_over_is_not_believed(monkeypatch, head):
    code = (
        "import sys; from calotype.serving import wire; sys.stdin.buffer.read();"
        f"[sys.stdout.buffer.write(p) for p in wire.encode(dict(op='decoded', {head}), [b'a'])]"
    )
    monkeypatch.setattr(uploads, "_COMMAND", (sys.executable, "-c", code))
    assert "cannot be decoded" in refused(saved(SMOOTH))


@pytest.mark.parametrize("reads", [True, False])
def test_a_decoder_that_hangs_is_ended(monkeypatch, tmp_path, reads):
    told = tmp_path / "pid"
    code = f"import os, sys, time; open({str(told)!r}, 'w').write(str(os.getpid()));"
    code += "sys.stdin.buffer.read();" * reads + "time.sleep(99)"
    monkeypatch.setattr(uploads, "_COMMAND", (sys.executable, "-S", "-c", code))
    monkeypatch.setattr(uploads, "MOST_SECONDS", 0.5)
    began = time.monotonic()
    assert "too long" in refused(saved(SMOOTH, "JPEG").ljust(2**20, b"\0"), retry=True)
    assert time.monotonic() - began < 20
    assert not os.path.exists(f"/proc/{told.read_text()}")


def test_a_cancelled_upload_leaves_no_process(monkeypatch, tmp_path):
    told = tmp_path / "pid"
    code = f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(99)"
    monkeypatch.setattr(uploads, "_COMMAND", (sys.executable, "-S", "-c", code))

    async def cancelled():
        task = asyncio.create_task(decode(saved(SMOOTH), role="image"))
        while not (told.exists() and told.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert not os.path.exists(f"/proc/{told.read_text()}")


def test_many_uploads_at_once_take_turns(monkeypatch):
    most, now = [0], [0]
    inner = uploads._decoded

    async def counted(data, role):
        now[0] += 1
        most[0] = max(most[0], now[0])
        try:
            return await inner(data, role)
        finally:
            now[0] -= 1

    monkeypatch.setattr(uploads, "_decoded", counted)

    async def several():
        images = [saved(Image.new("RGB", (4, 4), (n, 0, 0))) for n in range(6)]
        return await asyncio.gather(*(decode(data, role="image") for data in images))

    assert [found.rgba[0] for found in asyncio.run(several())] == list(range(6))
    assert most == [2]


def test_a_decoder_sees_no_secrets_of_the_environment(monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "hush")
    seen = []
    start = asyncio.create_subprocess_exec

    async def noted(*command, **options):
        seen.append(options["env"])
        return await start(*command, **options)

    monkeypatch.setattr(uploads.asyncio, "create_subprocess_exec", noted)
    decoded(saved(SMOOTH))
    assert "SECRET_KEY" not in seen[0] and "PATH" in seen[0]


def test_texts_that_are_files():
    data = saved(SMOOTH)
    bare = base64.b64encode(data).decode()
    for text in (bare, f"data:image/png;base64,{bare}", f"DATA:;BASE64,{bare}"):
        assert uploads.bytes_of(text, role="image") == data


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("http://169.254.169.254/latest", "not fetched"),
        ("  HTTPS://a\\@127.0.0.1", "not fetched"),
        ("file:///etc/passwd", "not fetched"),
        ("data:image/png,abc", "not base64"),
        ("data:image/png;base64", "not base64"),
        ("no base64!", "no base64"),
        ("YQ", "no base64"),
        ("YQ==YQ==", "no base64"),
        ("YQ==\n", "no base64"),
        ("é", "no base64"),
        ("a" * (4 * -(-MOST // 3) + 4), "expected at most 20,971,520"),
        ("a" * 100_000_000, "expected at most 20,971,520"),
    ],
)
def test_texts_that_are_none(text, message):
    with pytest.raises(ApiError, match=message) as caught:
        uploads.bytes_of(text, role="mask")
    assert caught.value.param == "mask"


def test_a_text_at_the_limit():
    assert len(uploads.bytes_of(base64.b64encode(bytes(MOST)).decode(), role="image")) == MOST


def upload(pixels):
    pixels = np.ascontiguousarray(pixels, np.uint8)
    return Upload(
        hashlib.sha256(pixels.tobytes()).hexdigest(),
        pixels.shape[1],
        pixels.shape[0],
        pixels.tobytes(),
    )


HALVES = np.full((20, 40, 4), 255, np.uint8)
HALVES[:, 20:, :3] = 0


def test_sizes():
    same = upload(ROUGH)
    assert fitted(same, 9, 6, "crop") is same
    stretched = fitted(upload(HALVES), 20, 20, "stretch").pixels
    assert stretched.shape == (20, 20, 4)
    assert stretched[10, 2, 0] == 255 and stretched[10, 17, 0] == 0
    cropped = fitted(upload(HALVES), 10, 10, "crop").pixels
    assert cropped[5, 1, 0] > 250 and cropped[5, 8, 0] < 5
    filled = fitted(upload(HALVES), 40, 40, "fill").pixels
    assert np.array_equal(filled[10:30], HALVES)
    assert np.array_equal(filled[0], HALVES[0]) and np.array_equal(filled[-1], HALVES[0])


def test_what_is_transparent_has_no_colour_that_shows():
    pixels = np.zeros((20, 40, 4), np.uint8)
    pixels[:, :20] = (255, 0, 0, 255)
    pixels[:, 20:] = (0, 255, 0, 0)
    found = fitted(upload(pixels), 10, 5, "stretch").pixels
    assert found[found[..., 3] > 0][:, 1].max() == 0


@settings(deadline=None, max_examples=60)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from(["stretch", "crop", "fill"]),
)
def test_every_size_goes_into_every_other(given_size, size, fit):
    plain = upload(np.full((*given_size, 4), 90))
    found = fitted(plain, *size, fit)
    assert (found.width, found.height) == size
    assert (found.pixels == 90).all() or np.abs(found.pixels.astype(int) - 90).max() <= 2


def test_masks():
    source = upload(np.zeros((2, 3, 4)))
    grey = np.array([[0, 127, 128], [255, 64, 200]])
    white = upload(np.dstack([grey] * 3 + [np.full((2, 3), 255)]))
    clear = upload(np.dstack([np.full((2, 3), 9)] * 3 + [255 - grey]))

    def hole(mask, **options):
        found = hole_from_mask(mask, source, **options)
        assert (found.width, found.height, found.sha256) == (3, 2, mask.sha256)
        return [value == 255 for value in found.values]

    expected = [False, False, True, True, False, True]
    assert hole(white) == hole(clear) == expected
    assert hole(white, invert=True) == [not one for one in expected]
    assert hole(white, threshold=129) == [False, False, False, True, False, True]
    assert hole(clear, opaque=True) == [True, True, False, False, True, False]
    with pytest.raises(ApiError, match="nothing is to change"):
        hole_from_mask(upload(np.full((2, 3, 4), (0, 0, 0, 255))), source)
    with pytest.raises(ApiError, match="mask of 3x3 for an image of 3x2"):
        hole_from_mask(upload(np.zeros((3, 3, 4))), source)


def test_holes_of_transparent_images():
    pixels = np.full((2, 2, 4), 255)
    assert hole_from_alpha(upload(pixels)) is None
    pixels[0, 1, 3], pixels[1, 1, 3] = 0, 1
    found = hole_from_alpha(upload(pixels))
    assert found.values == b"\0\xff\0\0" and found.sha256 == upload(pixels).sha256


WHOLE = [
    encode_file(ROUGH, RECIPE, format=format, compression=90, metadata=True)
    for format in ("png", "jpeg", "webp")
] + [saved(SMOOTH, "JPEG", exif=TURNED, icc_profile=SRGB, progressive=True)]


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(WHOLE), st.data())
def test_changed_files_decode_or_are_refused(data, drawn):
    changed = bytearray(data)
    for _ in range(drawn.draw(st.integers(1, 6))):
        at = drawn.draw(st.integers(0, len(changed) - 1))
        changed[at] = drawn.draw(st.integers(0, 255))
    cut = drawn.draw(st.sampled_from([None, None, len(data) // 2, 20]))
    try:
        head, pixels = decoding.decoded(bytes(changed[:cut]), "image")
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert len(pixels) == head["width"] * head["height"] * 4
