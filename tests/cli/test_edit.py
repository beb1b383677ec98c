import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import read_recipe
from calotype.cascade.recipe import image_id
from calotype.generation.edit import edit_image
from calotype.generation.edit_source import Step
from calotype.generation.request import Request
from calotype.serving.front.recall import request_of_recipe

SIDE = 32  # of the model's last stage
NO_NOISE = ("--stage-option", "16:aug_level=0", "--stage-option", "32:aug_level=0")


def pixels(name):
    with Image.open(name) as image:
        return np.asarray(image)


@pytest.fixture
def source(tmp_path):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "source.png")
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[8:24, 8:16] = 255
    Image.fromarray(mask).save(tmp_path / "hole.png")
    return image, mask > 0


def test_a_hole_is_filled_in_and_the_rest_is_kept(command, source):
    image, hole = source
    code, out, err = command("edit", "source.png", "a fox", "--mask", "hole.png", "-o", "out.png")
    assert (code, out) == (0, "out.png\n"), err
    made = pixels("out.png")
    assert np.array_equal(made[~hole], image[~hole]) and not np.array_equal(made[hole], image[hole])
    recipe = read_recipe(Path("out.png"))
    assert (recipe["kind"], recipe["caption"]) == ("edit", "a fox")
    assert recipe["source_sha256"] == hashlib.sha256(Path("source.png").read_bytes()).hexdigest()
    # The box and the mask the other way round are the same hole.
    for number, how in enumerate(
        (["--box", "8,8,8,16"], ["--box", "8,8,8,8", "--box", "8,16,8,8"])
    ):
        command("edit", "source.png", "a fox", *how, "-o", f"{number}.png")
        assert np.array_equal(pixels(f"{number}.png"), made)
    Image.fromarray(~hole).save("inverse.png")
    command("edit", "source.png", "a fox", "--mask", "inverse.png", "--invert-mask", "-o", "i.png")
    assert np.array_equal(pixels("i.png"), made)


def test_a_mask_is_noted_so_that_a_strength_in_it_is_no_change_of_all(command, source):
    mask = hashlib.sha256(Path("hole.png").read_bytes()).hexdigest()
    strength = ["a fox", "--strength", "0.5"]
    Path("scene.jsonl").write_text(
        '{"caption": "a hat", "strength": 0.5, "mask": "hole.png"}\n'
        '{"caption": "b", "strength": 0.5}\n'
    )
    for arguments, noted, kind in (
        ([*strength, "--mask", "hole.png", "-o", "x.png"], mask, "inpaint"),
        ([*strength, "-o", "x.png"], None, "image_to_image"),
        (["--list", "scene.jsonl", "-o", "x.png"], None, "image_to_image"),
    ):
        Path("x.png").unlink(missing_ok=True)
        code, _, err = command("edit", "source.png", *arguments)
        assert code == 0, err
        recipe = read_recipe(Path("x.png"))
        assert recipe.get("mask_sha256") == noted
        assert request_of_recipe(recipe).fields["kind"] == kind
    assert read_recipe(Path("x-1.png"))["mask_sha256"] == mask


def test_the_size_that_is_noted_is_the_whole_image_s(command):
    Image.new("RGB", (40, 30), "red").save("red.png")
    code, _, err = command("edit", "red.png", "a fox", "--box", "4,4,8,8", "-o", "out.png")
    assert code == 0, err
    recipe = read_recipe(Path("out.png"))
    assert recipe["size"] == [40, 30] and recipe["stages"][-1]["width"] != 40
    with Image.open("out.png") as image:
        assert image.size == (40, 30) and "Size: 40x30," in image.text["parameters"]


@pytest.mark.parametrize(
    ("arguments", "step"),
    [
        (["--mask", "hole.png", "--grow", "1"], {"mask": "hole.png", "grow": 1}),
        (["--extend", "8,0,8,0"], {"extend": (8, 0, 8, 0)}),
        (["--strength", "0.4"], {"strength": 0.4}),
        (["--vary", "0.2"], {"vary": 0.2}),
    ],
)
def test_python_makes_what_the_command_makes(command, source, model, arguments, step):
    code, out, err = command("edit", "source.png", "a fox", *arguments, "-n", "2", "-o", "x.png")
    assert code == 0, err
    request = Request(model=str(model), threads=1, dtype="float32")
    made = edit_image("source.png", Step(caption="a fox", **step), count=2, request=request)
    for one, name in zip(made, out.splitlines(), strict=True):
        assert np.array_equal(one.pixels, pixels(name))
        assert image_id(one.recipe) == image_id(read_recipe(Path(name)))


def test_what_lies_under_the_hole_changes_no_byte(command, source):
    image, hole = source
    other = image.copy()
    other[hole] = 255 - other[hole]
    Image.fromarray(other).save("other.png")
    for name in ("source.png", "other.png"):
        command("edit", name, "a fox", "--mask", "hole.png", "-o", f"made-{name}")
    assert np.array_equal(pixels("made-source.png"), pixels("made-other.png"))


def test_all_to_generate_is_sampling(command, source):
    command("edit", "source.png", "a fox", "--box", "0,0,32,32", "--seed", "7", "-o", "e.png")
    command("sample", "a fox", "--seed", "7", "-o", "s.png")
    assert np.array_equal(pixels("e.png"), pixels("s.png"))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "CMYK", "1", "I;16"])
def test_kept_pixels_of_every_mode_are_equal(command, tmp_path, mode):
    random = np.random.default_rng(1)
    image = Image.fromarray(random.integers(0, 256, (20, 44, 4), dtype=np.uint8), "RGBA")
    if mode == "I;16":
        image = Image.new(mode, (44, 20), 40000)
    else:
        image = image.convert("RGB" if mode == "CMYK" else mode).convert(mode)
    name = "a.tif" if mode in ("CMYK", "I;16") else "a.png"
    image.save(tmp_path / name)
    from calotype.cascade.image_files import read_rgba

    before = read_rgba(tmp_path / name, most_pixels=10_000)
    code, _, err = command("edit", name, "x", "--box", "4,4,8,8", "-o", "out.png")
    assert code == 0, err
    with Image.open("out.png") as made:
        after = np.asarray(made.convert("RGBA"))
        assert made.mode == ("RGBA" if (before[..., 3] < 255).any() else "RGB")
    hole = np.zeros((20, 44), bool)
    hole[4:12, 4:12] = True
    assert np.array_equal(after[~hole], before[~hole])
    assert (after[hole][:, 3] == 255).all()


def test_the_source_is_upright_and_a_mask_as_it_is_seen(command, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.jpg", exif=exif)
    code, _, err = command("edit", "a.jpg", "x", "--box", "0,30,20,10", "-o", "out.png")
    assert code == 0, err
    assert pixels("out.png").shape == (40, 20, 3)
    Image.new("L", (40, 20), 255).save(tmp_path / "mask.png")
    code, _, err = command("edit", "a.jpg", "x", "--mask", "mask.png", "-o", "out.png")
    assert code == 2 and "40x20" in err and "20x40" in err and "--fit-mask" in err
    code, _, err = command("edit", "a.jpg", "x", "--mask", "mask.png", "--fit-mask", "-o", "o.png")
    assert code == 0, err


def test_margins_are_added(command, source):
    image, _ = source
    code, _, err = command("edit", "source.png", "x", "--extend", "5,0,40,9", "-o", "w.png")
    assert code == 0, err
    made = pixels("w.png")
    assert made.shape == (SIDE + 9, SIDE + 45, 3)
    assert np.array_equal(made[:SIDE, 5 : 5 + SIDE], image)


def test_a_little_strength_changes_little(command, source):
    image, hole = source
    distances = []
    for strength in ("0.02", "1"):
        code, _, err = command("edit", "source.png", "x", "--strength", strength, "-o", "s.png")
        assert code == 0, err
        distances.append(np.abs(pixels("s.png").astype(int) - image).mean())
    assert distances[0] < 0.3 * distances[1]
    command("edit", "source.png", "x", "--strength", "0.02", "--mask", "hole.png", "-o", "m.png")
    made = pixels("m.png")
    assert np.array_equal(made[~hole], image[~hole])
    assert np.abs(made[hole].astype(int) - image[hole]).mean() < 0.3 * distances[1]


def test_variations_and_their_names(command, source):
    code, out, err = command("edit", "source.png", "x", "--vary", "0.3", "-n", "3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["files"] == [f"source-edited-{seed}.png" for seed in range(3)]
    made = [pixels(name) for name in found["files"]]
    assert not np.array_equal(made[0], made[1])
    assert [one["seed"] for one in found["images"]] == [0, 1, 2]
    command("edit", "source.png", "x", "--vary", "0.3", "--seed", "1", "-o", "alone.png")
    assert np.abs(pixels("alone.png").astype(int) - made[1]).max() <= 1


def test_settings_of_a_hole(command, source, tmp_path):
    image, _ = source
    Image.new("RGB", (200, 160), "white").save("large.png")
    code, _, err = command("edit", "large.png", "x", "--box", "50,60,16,16", "-o", "small.png")
    assert code == 0, err
    command("edit", "large.png", "x", "--box", "50,60,16,16", "--crop", "off", "-o", "whole.png")
    assert not np.array_equal(pixels("small.png"), pixels("whole.png"))
    base = ("edit", "source.png", "x", "--mask", "hole.png")
    for options in (["--grow", "3"], ["--feather", "3"], ["--resampling", "1,2"]):
        code, _, err = command(*base, *options, "-o", "o.png")
        assert code == 0, err
    command(*base, "--feather", "2", "-o", "o.png")
    changed = (pixels("o.png") != image).any(-1)
    assert changed[6, 8:16].any() and not changed[:6].any()
    code, _, err = command(*base, "--best-of", "3", "-o", "b.png", "--json")
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask", "missing.png"], "missing.png"),
        (["--mask", "black.png"], "nothing is to be generated"),
        (["--mask", "hole.png", "--box", "0,0,4,4"], "one of them"),
        (["--box", "0,0,0,4"], "within it"),
        (["--box", "30,0,4,4"], "within it"),
        (["--box", "1,2,3"], "four whole numbers"),
        (["--box", "-1,0,4,4"], "within it"),
        (["--extend", "0,0,0,0"], "above 0"),
        (["--extend", "-1,0,0,0"], "0 to"),
        (["--strength", "0"], "strength"),
        (["--strength", "nan"], "strength"),
        (["--strength", "1.5"], "strength"),
        (["--vary", "2"], "vary"),
        (["--vary", "0.3", "--strength", "0.3"], "one of them"),
        (["--vary", "0.3", "--box", "0,0,4,4"], "--vary"),
        (["--vary", "0.3", "--size", "8"], "--vary"),
        (["--grow", "-1", "--box", "0,0,4,4"], "--grow"),
        (["--feather", "-1", "--box", "0,0,4,4"], "--feather"),
        (["--padding", "-1", "--box", "0,0,4,4"], "--padding"),
        (["--resampling", "0,4", "--box", "0,0,4,4"], "above 0"),
        (["--resampling", "4", "--box", "0,0,4,4"], "two whole numbers"),
        (["--background", "nocolour", "--box", "0,0,4,4"], "colour"),
        (["--invert-mask"], "--mask"),
        ([], "does not say what changes"),
        (["--grow", "3", "--strength", "0.5"], "without a hole"),
        (["--feather", "3", "--extend", "4,0,0,0"], "without a hole"),
        (["--blind", "--box", "0,0,4,4"], "not trained to see"),
        (["--extend", "20000,20000,0,0"], "20032x20032"),
        (["--invert", "--vary", "0.3"], "--invert with --vary"),
        (["--invert", "--box", "0,0,4,4", "--resampling", "2,2"], "--invert with --vary or --resa"),
        (["--refine", "2", "--strength", "0.5"], "--refine or --source-caption alone"),
        (["--source-caption", "a fox", "--strength", "0.5"], "--refine or --source-caption alone"),
        (["--invert", "--refine", "-1"], "--refine"),
        (["--invert", "--strength", "0"], "strength"),
        (["--invert", "--sampler", "ddpm"], "--sampler ddpm with --invert"),
        (["--invert", "--stage-option", "16:sampler=heun"], "'heun' with --invert"),
        (["--invert", *NO_NOISE, "-n", "2"], "2 seeds with --invert"),
        (["--invert", *NO_NOISE, "--best-of", "2"], "2 seeds with --invert"),
        (["--box", "0,0,4,4", "-n", "0"], "-n"),
        (["--box", "0,0,4,4", "--seed", "-1"], "seed"),
        (["--box", "0,0,4,4", "--size", "17"], "--size"),
    ],
)
def test_what_does_not_fit_is_one_line_and_leaves_nothing(command, source, arguments, message):
    Image.new("L", (SIDE, SIDE), 0).save("black.png")
    code, out, err = command("edit", "source.png", "x", *arguments, "-o", "out.png")
    assert code == 2 and out == "" and message in err and err.count("\n") == 1, err
    assert not Path("out.png").exists()


def test_sources_that_are_none(command, tmp_path):
    (tmp_path / "text.png").write_text("no image")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    for name, message in (("text.png", "no image"), ("moving.gif", "2 images"), (".", "")):
        code, _, err = command("edit", name, "x", "--box", "0,0,4,4", "-o", "out.png")
        assert code == 2 and message in err and err.count("\n") == 1


def test_one_pixel_can_be_edited(command, tmp_path):
    Image.new("RGB", (1, 1), "red").save(tmp_path / "one.png")
    code, _, err = command("edit", "one.png", "x", "--box", "0,0,1,1", "-o", "out.png")
    assert code == 0, err
    assert pixels("out.png").shape == (1, 1, 3)


def test_grey_masks_are_thresholded_and_counted(command, source):
    Image.fromarray(np.tile(np.arange(SIDE, dtype=np.uint8) * 8, (SIDE, 1))).save("grey.png")
    code, _, err = command("edit", "source.png", "x", "--mask", "grey.png", "-o", "o.png")
    assert code == 0 and "992 pixels of the mask are neither black nor white" in err
    clear = np.full((SIDE, SIDE, 4), 255, np.uint8)
    clear[:8, :, 3] = 0
    Image.fromarray(clear).save("clear.png")
    command("edit", "source.png", "x", "--mask", "clear.png", "-o", "a.png")
    command("edit", "source.png", "x", "--box", f"0,0,{SIDE},8", "-o", "b.png")
    assert np.array_equal(pixels("a.png"), pixels("b.png"))


LIST = """
{"caption": "a fox", "boxes": [[8, 8, 8, 16]], "seed": 3}
{"caption": "a meadow", "extend": [0, 0, 32, 0]}
{"caption": "a house", "mask": "wide.png", "strength": 0.8}
"""


def test_a_list_builds_on_what_the_step_before_made(command, source):
    mask = np.zeros((SIDE, 2 * SIDE), bool)
    mask[4:12, 40:50] = True
    Image.fromarray(mask).save("wide.png")
    Path("scene.jsonl").write_text(LIST)
    code, out, err = command("edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png")
    assert (code, out.split()) == (0, ["scene-1.png", "scene-2.png", "scene.png"]), err
    one, two, three = (pixels(name) for name in out.split())
    command("edit", "source.png", "a fox", "--box", "8,8,8,16", "--seed", "3", "-o", "alone.png")
    assert np.array_equal(pixels("alone.png"), one)
    assert np.array_equal(two[:, :SIDE], one) and two.shape == (SIDE, 2 * SIDE, 3)
    assert np.array_equal(three[~mask], two[~mask]) and not np.array_equal(three, two)
    # Again: nothing is made anew; a step that changes, and what follows it, is.
    before = {name: Path(name).stat().st_mtime_ns for name in out.split()}
    assert command("edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png")[0] == 0
    assert before == {name: Path(name).stat().st_mtime_ns for name in out.split()}
    Path("scene.jsonl").write_text(LIST.replace("a meadow", "a desert"))
    code, _, err = command("edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png")
    assert code == 0, err
    after = {name: Path(name).stat().st_mtime_ns for name in out.split()}
    assert [name for name in before if before[name] != after[name]] == ["scene-2.png", "scene.png"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"captoin": "x"}', "captoin"),
        ('{"boxes": [[0, 0, 100, 4]]}', "line 2: got --box 0,0,100,4"),
        ('{"mask": "none.png"}', "line 2: the mask: cannot read none.png"),
        ('{"strength": 2}', "strength"),
        ('{"vary": 0.2, "boxes": [[0, 0, 4, 4]]}', "--vary"),
        ('{"seed": -1, "boxes": [[0, 0, 4, 4]]}', "seed"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_made(command, source, line, message):
    Path("scene.jsonl").write_text('{"boxes": [[0, 0, 4, 4]]}\n' + line + "\n")
    code, out, err = command("edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png")
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1, err
    assert not list(Path().glob("scene*.png"))
    code, _, err = command("edit", "source.png", "x", "--list", "scene.jsonl")
    assert code == 2 and "--list" in err


def test_an_edit_is_repeated_from_its_image(command, source):
    image, _ = source
    for number, how in enumerate((["--mask", "hole.png"], ["--box", "2,3,9,7", "--grow", "1"])):
        words = ["edit", "source.png", "a fox", *how, "--seed", "5", "--guidance", "3"]
        assert command(*words, "-o", "a.png")[0] == 0
        again = how if number == 0 else []
        code, _, err = command("edit", "source.png", "--like", "a.png", *again, "-o", "b.png")
        assert code == 0, err
        assert np.array_equal(pixels("a.png"), pixels("b.png"))
        assert read_recipe(Path("a.png"))["edit"] == read_recipe(Path("b.png"))["edit"]
    Image.fromarray(255 - image).save("other.png")
    code, _, err = command("edit", "other.png", "--like", "a.png", "-o", "c.png")
    assert code == 2 and "another source" in err
    command("edit", "source.png", "a fox", "--mask", "hole.png", "-o", "a.png")
    for mask, message in (([], "--mask"), (["--mask", "source.png"], "another hole")):
        code, _, err = command("edit", "source.png", "--like", "a.png", *mask, "-o", "c.png")
        assert code == 2 and message in err.splitlines()[-1]
    code, _, err = command("edit", "source.png", "x", "--like", "a.png", "-o", "c.png")
    assert code == 2 and "--like" in err
    command("sample", "a fox", "-o", "s.png")
    code, _, err = command("edit", "source.png", "--like", "s.png", "-o", "c.png")
    assert code == 2 and "calotype edit" in err and not Path("c.png").exists()


def test_the_source_is_never_written_over(command, source):
    before = Path("source.png").read_bytes()
    code, _, err = command("edit", "source.png", "x", "--box", "0,0,4,4", "-o", "source.png")
    assert code == 2 and "another name" in err and Path("source.png").read_bytes() == before


def test_full_strength_is_sampling(command, source):
    command("edit", "source.png", "a fox", "--strength", "1", "--seed", "7", "-o", "e.png")
    command("sample", "a fox", "--seed", "7", "-o", "s.png")
    assert np.array_equal(pixels("e.png"), pixels("s.png"))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_colour_profiles_are_applied_and_told(command, tmp_path, mode):
    from PIL import ImageCms

    random = np.random.default_rng(2)
    image = Image.fromarray(random.integers(0, 256, (16, 16, 4), dtype=np.uint8), "RGBA")
    image = image.convert(mode)
    space = "sGRY" if mode == "L" else None
    if space is not None:
        pytest.skip("Pillow makes no grey profiles")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "srgb.png", icc_profile=srgb)
    image.save(tmp_path / "bare.png")
    image.save(tmp_path / "broken.png", icc_profile=b"no profile")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    image.save(tmp_path / "other.png", icc_profile=lab)
    made = {}
    for name in ("srgb.png", "bare.png", "broken.png", "other.png"):
        code, _, err = command("edit", name, "x", "--box", "0,0,4,4", "-o", f"made-{name}")
        assert code == 0 and ("colour" in err) == (name in ("broken.png", "other.png")), err
        made[name] = pixels(f"made-{name}").astype(int)
        assert np.array_equal(made[name][..., 3:], made["srgb.png"][..., 3:])
    assert np.abs(made["srgb.png"] - made["bare.png"])[8:].max() <= 1
    assert np.array_equal(made["broken.png"][8:], made["bare.png"][8:])


def test_steps_of_a_list_are_written_over_nothing_else(command, source):
    Path("scene.jsonl").write_text('{"boxes": [[0, 0, 4, 4]]}\n' * 2)
    for name in ("scene-1.png", "scene.png"):
        Path("source.png").rename(name)  # the source, under the name of a step
        before = Path(name).read_bytes()
        code, _, err = command("edit", name, "--list", "scene.jsonl", "-o", "scene.png")
        assert code == 2 and Path(name).read_bytes() == before, err
        Path(name).rename("source.png")
    Path("scene-1.png").write_text("mine")
    code, _, err = command("edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png")
    assert code == 2 and "scene-1.png is there already" in err
    assert Path("scene-1.png").read_text() == "mine" and not Path("scene.png").exists()


TAME = ["--guidance", "1", "--steps", "8"]  # random weights are followed back at little noise


def test_an_image_is_inverted_with_its_own_caption_and_comes_back(command, source):
    """A sampled image says its caption; any other is told, or has none."""
    assert command("sample", "a fox", "--seed", "3", "-o", "fox.png")[0] == 0
    image, far = pixels("fox.png").astype(int), {}
    for name, words in (
        ("noise", []), ("plain", ["--invert"]), ("refined", ["--invert", "--refine", "8"]),
    ):  # fmt: skip
        how = ["--strength", "0.05", *TAME, *words, "-o", f"{name}.png"]
        code, _, err = command("edit", "fox.png", "a fox", *how)
        assert code == 0, err
        far[name] = np.abs(pixels(f"{name}.png") - image).mean()
    assert far["refined"] < far["plain"] < far["noise"], far
    recipe = read_recipe(Path("refined.png"))
    assert recipe["negative_caption"] == "a fox"
    edit = {name: recipe["edit"][name] for name in ("invert", "refine", "source_caption")}
    assert edit == {"invert": True, "refine": 8, "source_caption": "a fox"}
    assert {stage["sampling"]["sampler"] for stage in recipe["stages"]} == {"ddim"}
    told = {None: "", "a dog": "a dog"}
    for words, shown in told.items():
        how = [] if words is None else ["--source-caption", words]
        code, _, err = command("edit", "source.png", "x", "--invert", *how, "-o", "o.png")
        assert code == 0, err
        assert read_recipe(Path("o.png"))["edit"]["source_caption"] == shown


def test_an_inverted_edit_is_repeated_and_keeps_what_a_mask_keeps(command, source):
    image, hole = source
    how = ["--mask", "hole.png", "--crop", "off"]
    code, _, err = command("edit", "source.png", "x", *how, "--invert", "-o", "a.png")
    assert code == 0, err
    made = pixels("a.png")
    assert np.array_equal(made[~hole], image[~hole]) and not np.array_equal(made[hole], image[hole])
    code, _, err = command("edit", "source.png", "--like", "a.png", *how[:2], "-o", "b.png")
    assert code == 0, err
    assert np.array_equal(pixels("b.png"), made)
    assert read_recipe(Path("a.png"))["edit"] == read_recipe(Path("b.png"))["edit"]
    # Seeds make different images only where noise is asked for.
    noisy = ["--stage-option", "16:aug_level=0.2", "-n", "2", "-o", "n.png"]
    code, _, err = command("edit", "source.png", "x", "--invert", *noisy)
    assert code == 0, err
    assert not np.array_equal(pixels("n-0.png"), pixels("n-1.png"))


def test_a_list_inverts_what_the_step_before_made(command, source):
    lines = [
        {"caption": "a fox", "boxes": [[8, 8, 8, 16]]},
        {"caption": "a red fox", "invert": True, "refine": 1},
    ]
    Path("scene.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["edit", "source.png", "--list", "scene.jsonl", "-o", "scene.png"]
    code, _, err = command(*words)
    assert code == 0, err
    assert read_recipe(Path("scene.png"))["edit"]["source_caption"] == "a fox"
    before = Path("scene.png").stat().st_mtime_ns
    assert command(*words)[0] == 0 and Path("scene.png").stat().st_mtime_ns == before
    code, _, err = command(*words, "--sampler", "heun")
    assert code == 2 and "line 2: got the sampler 'heun' with --invert" in err


def test_recipes_of_other_edits_say_nothing_of_inversion(command, source):
    """So they have the ids they had before, and lists find their images."""
    command("edit", "source.png", "x", "--box", "0,0,4,4", "-o", "a.png")
    assert set(read_recipe(Path("a.png"))["edit"]) == {
        "hole_sha256", "strength", "vary", "blind", "resampling", "crop", "padding", "feather",
        "background", "invert_mask", "fit_mask", "boxes", "extend", "grow",
    }  # fmt: skip
