import io
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from calotype.cascade.png import encode_png
from calotype.cascade.provenance import (
    exif_parameters,
    parameters_in,
    parameters_text,
    recipe_in_xmp,
    recipe_json,
    xmp_packet,
)

RECIPE = {"caption": "a fox", "seed": 7, "version": "0.1", "model": {"name": "a<&>\n\ud800é"}}
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"


def properties(packet):
    root = ElementTree.fromstring(packet.decode())
    return {one.tag: one.text for one in root.iter() if one.text and one.text.strip()}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"kind": "sample"}, "trainedAlgorithmicMedia"),
        ({"kind": "edit"}, "compositeWithTrainedAlgorithmicMedia"),
        ({"kind": "upscale", "source_sha256": "ab"}, "compositeWithTrainedAlgorithmicMedia"),
    ],
)
def test_the_packet_says_what_kind_of_image_it_is(more, kind):
    found = properties(xmp_packet({**RECIPE, **more}))
    assert found[f"{IPTC}DigitalSourceType"] == TYPES + kind
    assert found[f"{IPTC}AISystemUsed"] == "calotype, model a<&>é"  # no XML may break out
    assert found[f"{IPTC}AISystemVersionUsed"] == "0.1"


def test_a_png_carries_the_packet():
    with Image.open(io.BytesIO(encode_png(np.zeros((2, 3, 3), np.uint8), RECIPE))) as image:
        assert properties(image.info["xmp"]) == properties(xmp_packet(RECIPE))
        assert parameters_in(image) == parameters_text(RECIPE)


@pytest.mark.parametrize("caption", ["]]> </calotype:recipe>&amp;", "\0\ud800", "é🦊\n", ""])
def test_a_recipe_goes_through_xml(caption):
    text = recipe_json({**RECIPE, "caption": caption})
    assert recipe_in_xmp(xmp_packet(RECIPE, text)) == text


BOMB = b"""<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb"><!ENTITY c "&b;&b;&b;">]><a>&c;</a>"""


@pytest.mark.parametrize(
    "packet", [b"", b"\0" * 99, b"<", BOMB, b"<a>" * 100_000, b"\xff\xfe<\0a\0/\0>\0", b"<a/>"]
)
def test_what_is_no_packet_of_ours_holds_no_recipe(packet):
    assert recipe_in_xmp(packet) is None


def test_long_texts_are_cut_only_where_they_do_not_fit():
    recipe = {**RECIPE, "caption": "é" * 20_000}
    assert recipe_json(recipe).count(r"\u00e9") == 20_001
    cut = recipe_json(recipe, most_bytes=60_000)
    assert 10_000 < len(cut) <= 60_000 and '"captions_cut":true' in cut


@pytest.mark.parametrize("caption", ["", "a fox", "é🦊\nzwei", "x" * 40_000, "🦊" * 40_000])
def test_exif_is_what_other_programs_read_and_fits_a_segment(caption):
    exif = exif_parameters({**RECIPE, "caption": caption, "negative_caption": caption})
    assert len(exif.tobytes()) < 65_533
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "JPEG", exif=exif)
    with Image.open(file) as image:
        text = parameters_in(image)
    assert "Seed: 7" in text and text.startswith(caption[:1000])


@pytest.mark.parametrize(
    ("comment", "text"),
    [
        (b"UNICODE\0\0a\0b", "ab"),
        (b"UNICODE\0a\0b\0", "ab"),
        (b"UNICODE\0", ""),
        (b"UNICODE\0\0a\xd8", "a\N{REPLACEMENT CHARACTER}"),
        (b"ASCII\0\0\0ab", None),
        (b"", None),
    ],
)
def test_user_comments_of_others(comment, text):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = comment
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "WEBP", exif=exif)
    with Image.open(file) as image:
        assert parameters_in(image) == text


def test_the_size_is_the_finished_image_s():
    stages = [{"width": 64, "height": 48}]
    assert "Size: 64x48," in parameters_text({"stages": stages})
    assert "Size: 32x24," in parameters_text({"stages": stages, "size": [32, 24]})
