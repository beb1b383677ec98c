"""The checks of emoji-11 on drawn shapes, whose colours, counts and places are known."""

import random

import pytest
import torch
from PIL import Image, ImageDraw

pytest.importorskip("scipy")

from calotype.emoji.captions import BACKGROUND_COLOURS
from calotype.emoji.eleven.__main__ import main
from calotype.emoji.eleven.checks import checks, checks_with
from calotype.emoji.eleven.choice import CATEGORIES
from calotype.emoji.eleven.colours import basic_colours, ground_fraction, main_colour, oklab
from calotype.emoji.eleven.compositions import Composer
from calotype.emoji.eleven.parts import cut_out, find_parts, small
from calotype.emoji.eleven.proof import Proof, Trial, proof_table, prove, summarised
from calotype.emoji.eleven.references import References
from calotype.emoji.gallery import Gallery
from calotype.emoji.prompts import ImageRow
from calotype.evaluation.suites.suite import Prompt

SIDE = 64
STYLES = {"noto": "noto style", "fluent": "glossy gradient style"}
FILLS = {"noto": (40, 90, 200), "fluent": (200, 120, 30)}
SHAPES = {
    "box": [(8, 8), (56, 8), (56, 56), (8, 56)],
    "arrowhead": [(32, 6), (58, 58), (6, 58)],
    "plank": [(4, 24), (60, 24), (60, 40), (4, 40)],
    "mast": [(26, 4), (38, 4), (38, 60), (26, 60)],
    "hourglass": [(6, 6), (58, 6), (6, 58), (58, 58)],
    "wedge": [(6, 6), (58, 58), (6, 58)],
    "stair": [(6, 6), (26, 6), (26, 32), (58, 32), (58, 58), (6, 58)],
}
FILLERS = [f"filler {letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]  # so that five are few
COLOURED = {"red ball": (220, 40, 40), "blue ball": (30, 90, 210), "pair": (60, 60, 60)}


def row(name, emoji_set="noto", split="train"):
    return ImageRow(
        key=f"{emoji_set}/{name.replace(' ', '-')}",
        name=name,
        style=STYLES[emoji_set],
        set=emoji_set,
        license="MIT",
        concept=name,
        split=split,
        group="people-body" if name in FILLERS else "objects",
    )


def shape(name, emoji_set):
    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    fill = COLOURED.get(name, FILLS[emoji_set])
    if name == "pair":  # two parts of one thing
        pen.ellipse((2, 20, 24, 44), fill=fill)
        pen.ellipse((40, 20, 62, 44), fill=fill)
    elif name in COLOURED:
        pen.ellipse((6, 6, 58, 58), fill=fill)
    elif name in FILLERS:
        rng = random.Random(name)
        x, y = (rng.randint(2, 30) for _ in "xy")
        corner = (x + rng.randint(6, 30), y + rng.randint(6, 30))
        pen.rectangle((x, y, *corner), fill=tuple(rng.randint(0, 200) for _ in "rgb"))
    elif name == "frame":  # covers its rim
        pen.rectangle((0, 0, SIDE, SIDE), fill=fill)
    else:
        pen.polygon(SHAPES[name], fill=fill)
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(SIDE, SIDE, 4)


class Colours:
    """Features: an image's mean colour."""

    def __call__(self, images):
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


@pytest.fixture(scope="module")
def references():
    rows = [row(n, s) for s in STYLES for n in (*SHAPES, *COLOURED, *FILLERS, "frame")]
    images = torch.stack([shape(one.name, one.set) for one in rows]).permute(0, 3, 1, 2)
    return References(Gallery(tuple(rows), images.contiguous()), Colours())


@pytest.fixture(scope="module")
def judge(references):
    """Judges a uint8 image by a category's check."""
    made = checks_with(references)
    assert made.keys() == CATEGORIES.keys()

    def judged(category, image, name="box", **facts):
        one = row(name)
        more = {"key": one.key, "concept": name, "style": one.style, **facts}
        return made[category](image, Prompt("p", "a caption", category, more))

    return judged


@pytest.fixture
def compose(references):
    return Composer(references, random.Random(3))


def plain(colour, side=SIDE):
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, side, side)


def real(references, name, emoji_set="noto"):
    return references.real(row(name, emoji_set)).round().byte()


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_counts(judge, compose, count):
    image = compose.scattered([row("box")] * count)
    assert len(find_parts(small(image))) == count
    for asked in (2, 3, 4, 5):
        assert judge("counting", image, count=asked) is (asked == count)
    others = compose.scattered([row("plank")] * count)
    assert judge("counting", others, count=count) is False


def test_counts_at_any_size_and_over_any_colour(judge, compose):
    image = compose.scattered([row("box")] * 3)
    large = image.repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert judge("counting", large, count=3) is True
    ground = (image == 255).all(0)
    image = torch.where(ground, plain((120, 75, 40)), image)
    assert judge("counting", image, count=3) is True


def test_what_has_several_parts_cannot_be_counted(judge, compose):
    image = compose.scattered([row("pair")] * 2)
    assert judge("counting", image, "pair", count=2) is None
    together = {"kind": "together", "other_key": row("pair").key}
    assert judge("two things and conflicts", image, **together) is None


def test_specks_are_no_parts():
    image = plain((255, 255, 255))
    image[:, 10:40, 10:40] = 0
    image[:, 50:53, 50:53] = 0
    assert len(find_parts(small(image))) == 1
    assert find_parts(small(plain((9, 9, 9)))) == []


def test_a_cut_out_thing_is_centred_whatever_its_place():
    first, second = plain((255, 255, 255)), plain((0, 0, 200))
    first[0, 4:20, 4:36] = 30
    second[:, 40:56, 30:62] = torch.tensor([30, 255, 255])[:, None, None]
    cuts = [cut_out(small(x), find_parts(small(x))[0]) for x in (first, second)]
    torch.testing.assert_close(*cuts)


@pytest.mark.parametrize(
    ("place", "spot"),
    [
        ("left", (0.25, 0.5)),
        ("right", (0.75, 0.5)),
        ("top", (0.5, 0.25)),
        ("bottom", (0.5, 0.75)),
        ("top left", (0.25, 0.25)),
        ("bottom right", (0.75, 0.75)),
    ],
)
def test_places(judge, compose, references, place, spot):
    image = compose.placed([row("box")], [spot])
    assert judge("position", image, place=place) is True
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    for word in place.split():
        assert judge("position", image, place=opposite[word]) is False
    assert judge("position", image, "wedge", place=place) is False
    assert judge("position", real(references, "box"), place=place) is False
    assert judge("position", plain((255, 255, 255)), place=place) is False


def test_relations(judge, compose):
    spots = {"left": (0.25, 0.5), "right": (0.75, 0.55)}
    image = compose.placed([row("box"), row("wedge")], list(spots.values()))
    asked = {"other_key": row("wedge").key}
    said = {
        relation: judge("position", image, relation=relation, **asked)
        for relation in ("left", "right", "above", "below")
    }
    assert said == {"left": True, "right": False, "above": False, "below": False}
    upright = image.transpose(1, 2)  # the wedge's mirror image is another shape
    said = judge("position", upright, relation="above", other_key=row("box").key)
    assert said is False


def test_two_things(judge, compose):
    asked = {"kind": "together", "other_key": row("hourglass").key}
    category = "two things and conflicts"
    assert judge(category, compose.scattered([row("box"), row("hourglass")]), **asked) is True
    for wrong in ("box", "wedge"):
        image = compose.scattered([row("box"), row(wrong)])
        assert judge(category, image, **asked) is False
    assert judge(category, image, kind="conflict", other_key=row("hourglass").key) is None


def test_basic_colours():
    known = {
        "red": (220, 40, 40),
        "orange": (255, 140, 20),
        "yellow": (250, 215, 60),
        "green": (60, 170, 70),
        "blue": (40, 110, 220),
        "purple": (140, 70, 190),
        "pink": (255, 160, 200),
        "brown": (120, 75, 45),
        "black": (20, 20, 25),
        "grey": (140, 140, 140),
        "white": (250, 250, 250),
    }
    pixels = torch.tensor(list(known.values()), dtype=torch.float32).T
    assert basic_colours(pixels) == list(known)


def test_oklab_of_white_and_black():
    found = oklab(torch.tensor([[255.0, 0], [255, 0], [255, 0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 0], [0, 0], [0, 0]]), atol=1e-3, rtol=0)


def test_object_colour_is_of_what_is_shown(judge, references):
    image = real(references, "red ball")
    assert judge("object colour", image, colour="red") is True
    assert judge("object colour", image, colour="blue") is False
    on_blue = references.real(row("red ball"), BACKGROUND_COLOURS["sky blue"]).round().byte()
    assert main_colour(small(on_blue)) == "red"
    assert judge("object colour", plain((255, 0, 0)), colour="red") is False  # nothing is shown


@pytest.mark.parametrize("colour", BACKGROUND_COLOURS)
def test_backgrounds(judge, references, colour):
    image = references.real(row("box"), BACKGROUND_COLOURS[colour]).round().byte()
    for asked in BACKGROUND_COLOURS:
        assert judge("background colour", image, colour=asked) is (asked == colour)
    assert judge("background colour", image, "frame", colour=colour) is None


def test_half_a_rim_is_enough_and_less_is_not():
    image = small(plain((215, 45, 45)))
    image[:, :, :20] = 255
    assert ground_fraction(image, "red") > 0.5
    image[:, :, :44] = 255
    assert ground_fraction(image, "red") < 0.5


@pytest.mark.parametrize(
    "category", ["unseen pairs", "unseen concepts", "rare words", "misspellings", "descriptions"]
)
def test_a_concept_is_found_or_not(judge, references, category):
    assert judge(category, real(references, "plank"), "plank") is True
    assert judge(category, real(references, "mast"), "plank") is False


def test_styles_are_told_apart_and_doubt_is_said(judge, references):
    ours, theirs = (real(references, "box", s) for s in STYLES)
    assert judge("styles", ours) is True
    assert judge("styles", theirs) is False
    between = ((ours.float() + theirs.float()) / 2).round().byte()
    assert judge("styles", between) in (None, False)
    assert references.is_in_style(small(between), "box", STYLES["noto"]) is None


def test_a_recoloured_thing_has_the_colour(compose):
    for name, colour in BACKGROUND_COLOURS.items():
        if name.split()[-1] not in ("turquoise", "lavender", "beige", "grey"):
            image = compose.recoloured(row("hourglass", "fluent"), colour)
            assert main_colour(small(image)) == name.split()[-1]


def test_the_proof_counts_each_kind():
    right, wrong = (Trial(plain((0, 0, 0)), Prompt("p", "c"), kind) for kind in (True, False))
    found = summarised("x", [(right, True), (right, False), (right, None), (wrong, True)])
    assert found == Proof("x", judged_right=1, right=2, fooled=1, wrong=1, silent=1)
    assert not found.holds
    assert Proof("x", 98, 100, 2, 100, 0).holds
    assert not Proof("x", 97, 100, 2, 100, 0).holds and not Proof("x", 98, 100, 3, 100, 0).holds
    assert not Proof("x", 0, 0, 0, 0, 9).holds  # what never speaks is not to be trusted
    assert "| x | 50.0% (1 of 2) | 100.0% (1 of 1) | 1 | no" in proof_table([found])


def test_every_check_is_tried_on_real_images(references):
    lines = []
    proofs = prove(references, 6, lines.append)
    assert len(lines) == len(proofs) == 9
    by_name = {proof.what: proof for proof in proofs}
    for what in ("counting", "position, of one", "position, of two", "two things"):
        assert by_name[what].judged_right == by_name[what].right > 0, what
        assert by_name[what].fooled < by_name[what].wrong / 4, what  # some shapes are much alike
    named = by_name["object colour, named"]
    assert (named.judged_right, named.right, named.fooled) == (4, 4, 0)
    assert by_name["background colour"].wrong == 2 * by_name["background colour"].right


def test_the_command_says_what_is_missing(tmp_path, capsys):
    assert main([]) == 2
    assert "--measure" in capsys.readouterr().err
    assert main(["--measure", str(tmp_path / "nowhere")]) == 2
    with pytest.raises(Exception, match="does not exist"):
        checks(tmp_path / "nowhere")
