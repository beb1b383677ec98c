"""Images of other programs, paired with prompts in each of the layouts that they come in."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from calotype.errors import UsageError
from calotype.evaluation.samples import open_samples
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.suites.suite import Prompt, Suite

SUITE = Suite("s", tuple(Prompt(f"p{n}", f"a {w} thing") for n, w in enumerate("abc")), "0" * 64)


def image(shade, *, size=(12, 10), mode="RGB", kind="PNG", **options):
    stream = io.BytesIO()
    Image.new("RGB", size, (shade, 0, 0)).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


def shades(samples, prompt):
    chosen = [n for n, s in enumerate(samples.samples) if s.prompt == prompt]
    return [int(samples.pixels([n])[0, 0].float().mean().round()) for n in chosen]


def taken(folder, out, suite=SUITE):
    said = []
    import_samples(folder, suite, out, say=said.append)
    return open_samples(out), "\n".join(said)


def test_captions_beside_images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, word in enumerate("cab"):
        (folder / f"{number}.jpg").write_bytes(image(10 * number, kind="JPEG", quality=95))
        (folder / f"{number}.txt").write_text(f"a {word}  thing\n")
    samples, said = taken(folder, tmp_path / "out")
    assert samples.manifest.encoding == "jpeg" and samples.manifest.size == (10, 12)
    assert [shades(samples, p) for p in ("p0", "p1", "p2")] == [[10], [20], [0]]
    assert "paired by captions" in said and "a c thing" in said
    first = samples.encoded(0)
    assert first == (folder / "1.jpg").read_bytes()  # as they were encoded


def test_prompts_of_one_caption_share_its_images(tmp_path):
    suite = Suite("s", tuple(Prompt(f"p{n}", "a fox") for n in range(3)), "0" * 64)
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        (folder / f"{number}.png").write_bytes(image(10 * number))
        (folder / f"{number}.txt").write_text("a fox")
    samples, _ = taken(folder, tmp_path / "out", suite)
    counts = [len(shades(samples, prompt.id)) for prompt in suite.prompts]
    assert sorted(counts) == [1, 1, 2]


def test_geneval(tmp_path):
    folder = tmp_path / "in"
    for number, word in enumerate("ab"):
        place = folder / f"{number:05d}"
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_text(json.dumps({"prompt": f"a {word} thing"}))
        (place / "grid.png.txt").write_text("not this")
        for index in range(3):
            (place / "samples" / f"{index:04d}.png").write_bytes(image(10 * number + index))
    samples, said = taken(folder, tmp_path / "out")
    assert shades(samples, "p1") == [10, 11, 12] and samples.manifest.each == 3
    assert samples.manifest.missing == ("p2",) and "1 prompts have no image" in said


def test_recipes_and_parameters_in_pngs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, word in enumerate("abc"):
        info = PngInfo()
        if number == 1:
            info.add_text("calotype", json.dumps({"caption": f"a {word} thing"}))
        else:
            info.add_text("parameters", f"a {word} thing\nSteps: 20, Seed: 4")
        (folder / f"{2 - number}.png").write_bytes(image(number, pnginfo=info))
    samples, _ = taken(folder, tmp_path / "out")
    assert [shades(samples, p) for p in ("p0", "p1", "p2")] == [[0], [1], [2]]


def test_sorted_order_is_natural_and_even(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"image-{number}.png").write_bytes(image(number))
    samples, said = taken(folder, tmp_path / "out")
    assert [shades(samples, p) for p in ("p0", "p2")] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert "sorted order" in said and "image-0.png: 'a a thing'" in said
    (folder / "image-12.png").write_bytes(image(12))
    with pytest.raises(UsageError, match="13 images without captions for 3 prompts"):
        taken(folder, tmp_path / "other")


def test_transparent_images_are_seen_on_white_and_odd_modes_are_read(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "0.png").write_bytes(image(9, mode="P"))
    clear = io.BytesIO()
    Image.new("RGBA", (12, 10), (0, 0, 0, 0)).save(clear, "PNG")
    (folder / "1.png").write_bytes(clear.getvalue())
    (folder / "2.jpg").write_bytes(image(200, mode="CMYK", kind="JPEG", quality=100))
    samples, _ = taken(folder, tmp_path / "out")
    assert samples.manifest.encoding == "mixed"
    assert shades(samples, "p0") == [9] and shades(samples, "p1") == [255]
    assert abs(shades(samples, "p2")[0] - 200) < 4


def animation():
    stream = io.BytesIO()
    frames = [Image.fromarray(np.full((9, 9, 3), n, np.uint8)) for n in (0, 200)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image", "cannot read the image 1"),
        (image(1, size=(1, 1)), "cannot read the image 1.png: got 1x1"),
        (image(1)[:50], "cannot read"),
        (animation(), "holds 2 images"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_line(tmp_path, data, message):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(data if number == 1 else image(number))
    with pytest.raises(UsageError, match=message) as caught:
        taken(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_images_of_no_prompt_and_half_captioned_folders(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image(number))
    (folder / "0.txt").write_text("something else")
    with pytest.raises(UsageError, match="2 of 3 images have no caption"):
        taken(folder, tmp_path / "out")
    for number in range(3):
        (folder / f"{number}.txt").write_text("something else")
    with pytest.raises(UsageError, match="none of a prompt of 's'"):
        taken(folder, tmp_path / "out")


def test_a_second_import_finds_the_first_and_refuses_another(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(image(number))
    taken(folder, tmp_path / "out")
    before = (tmp_path / "out" / "00000.parquet").stat().st_mtime_ns
    taken(folder, tmp_path / "out")
    assert (tmp_path / "out" / "00000.parquet").stat().st_mtime_ns == before
    (folder / "2.png").write_bytes(image(2, size=(20, 20)))
    with pytest.raises(UsageError, match="other samples"):
        taken(folder, tmp_path / "out")
