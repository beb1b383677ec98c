"""What an image file says of how it was made, in forms that other programs read; and reads back.

The recipe as JSON; the `parameters` text of AUTOMATIC1111's web UI (PNG text, or EXIF's
UserComment); and an XMP packet with the IPTC's digital source type and the AI system used, which in
formats without text chunks holds the recipe, too.
Reference: IPTC Photo Metadata Standard 2025.1; XMP specification part 1 (ISO 16684-1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

if TYPE_CHECKING:
    from PIL.Image import Exif, Image

SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
MOST_RECIPE_BYTES = 48 * 2**20
"""Readers such as Pillow refuse files with more than 64 MiB of text."""
MOST_JPEG_BYTES = 60_000
"""Of a recipe or a text in a JPEG, whose segments hold 65,533 bytes."""

_NAMESPACE = "urn:x-calotype:xmp:1.0:"
_KEPT_CHARACTERS = 1_000_000
_MOST_PARAMETERS_CHARACTERS = 100_000
_EXIF_IFD, _USER_COMMENT, _UNICODE = 0x8769, 0x9286, b"UNICODE\0"
_PACKET = """<?xpacket begin="\N{ZERO WIDTH NO-BREAK SPACE}" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:calotype="{namespace}">
<xmp:CreatorTool>{tool}</xmp:CreatorTool>
<Iptc4xmpExt:DigitalSourceType>{source}</Iptc4xmpExt:DigitalSourceType>
<Iptc4xmpExt:AISystemUsed>{system}</Iptc4xmpExt:AISystemUsed>
<Iptc4xmpExt:AISystemVersionUsed>{version}</Iptc4xmpExt:AISystemVersionUsed>
{recipe}</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def recipe_json(recipe: Mapping[str, Any], *, most_bytes: int = MOST_RECIPE_BYTES) -> str:
    """The recipe as ASCII without `&`, `<` and `>`; long texts are cut until it fits.

    A recipe whose texts were cut says so: "captions_cut".
    """
    text, kept = _ascii_json(recipe), _KEPT_CHARACTERS
    while len(text) > most_bytes and kept > 0:
        cut = {k: v[:kept] if isinstance(v, str) else v for k, v in recipe.items()}
        text, kept = _ascii_json({**cut, "captions_cut": True}), kept // 2
    return text


def _ascii_json(value: Mapping[str, Any]) -> str:
    # Escapes keep NUL bytes and lone surrogates exactly, and XML whole.
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def parameters_text(
    recipe: Mapping[str, Any], *, most_characters: int = _MOST_PARAMETERS_CHARACTERS
) -> str:
    """The recipe of one image as `parameters` text: prompt, negative prompt, settings.

    Steps, sampler and guidance are those of the first stage; the size is the finished image's,
    which a recipe says where it is not that of the last stage. Longer prompts are cut.
    """
    stages = recipe.get("stages") or [{}]
    sampling = stages[0].get("sampling", {})
    model = recipe.get("model", {})
    width, height = recipe.get("size") or (stages[-1].get("width"), stages[-1].get("height"))
    settings = {
        "Steps": sampling.get("steps"),
        "Sampler": sampling.get("sampler"),
        "CFG scale": sampling.get("guidance_weight"),
        "Seed": recipe.get("seed"),
        "Size": f"{width}x{height}",
        **({"Class": _setting(recipe["class"])} if recipe.get("class") else {}),
        "Model hash": str(model.get("weights", ""))[:10],
        "Model": model.get("name"),
        "Version": f"calotype {recipe.get('version')}",
    }
    lines = [str(recipe.get("caption", ""))[:most_characters]]
    negative = str(recipe.get("negative_caption") or "")[:most_characters]
    if negative:
        lines.append(f"Negative prompt: {negative}")
    lines.append(", ".join(f"{k}: {v}" for k, v in settings.items()))
    text = "\n".join(lines).replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode("utf-8", errors="replace").decode("utf-8")


def _setting(text: str) -> str:
    """A text as a setting of `parameters`: quoted where it might be read as several."""
    return text if re.fullmatch(r"[\w-]+( [\w-]+)*", text) else json.dumps(text)


def source_type(recipe: Mapping[str, Any]) -> str:
    """The IPTC's digital source type, an address: made by a model, or with one from an image."""
    edited = recipe.get("kind") == "edit" or "source_sha256" in recipe
    name = "compositeWithTrainedAlgorithmicMedia" if edited else "trainedAlgorithmicMedia"
    return SOURCE_TYPES + name


def xmp_packet(recipe: Mapping[str, Any], noted: str = "") -> bytes:
    """The XMP packet of an image; with `noted`, its recipe by `recipe_json`, if that is given."""
    version, model = recipe.get("version"), recipe.get("model")
    name = model.get("name") if isinstance(model, Mapping) else None
    return _PACKET.format(
        namespace=_NAMESPACE,
        tool=_plain(f"calotype {version}"),
        source=source_type(recipe),
        system=_plain("calotype" if name is None else f"calotype, model {name}"),
        version=_plain(str(version)),
        recipe=f"<calotype:recipe>{noted}</calotype:recipe>\n" if noted else "",
    ).encode()


def _plain(text: str) -> str:
    return escape("".join(letter for letter in text[:200] if letter.isprintable()), quote=False)


def exif_parameters(recipe: Mapping[str, Any]) -> Exif:
    """EXIF whose UserComment is the `parameters` text, as AUTOMATIC1111's web UI writes it."""
    from PIL import Image

    for most in (_MOST_PARAMETERS_CHARACTERS, 14_000, 7_000):
        comment = parameters_text(recipe, most_characters=most).encode("utf-16-be")
        if len(comment) <= MOST_JPEG_BYTES:
            break
    exif = Image.Exif()
    exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = _UNICODE + comment
    return exif


def parameters_in(image: Image) -> str | None:
    """The `parameters` text that an opened PNG, JPEG or WebP carries, whoever wrote it."""
    text = image.info.get("parameters")
    if isinstance(text, str):
        return text
    comment = image.getexif().get_ifd(_EXIF_IFD).get(_USER_COMMENT)
    if not isinstance(comment, bytes) or not comment.startswith(_UNICODE):
        return None
    comment = comment.removeprefix(_UNICODE)
    little = comment[1:2] == b"\0"  # EXIF leaves it open; texts mostly begin with a Latin letter
    return comment.decode("utf-16-le" if little else "utf-16-be", "replace")


def recipe_in_xmp(packet: bytes) -> str | None:
    """The text of the recipe in an XMP packet; None = there is none, or it is no XML."""
    parser = expat.ParserCreate("utf-8", namespace_separator=" ")
    inside, parts = False, list[str]()

    def start(name: str, _attributes: object) -> None:
        nonlocal inside
        inside = name == f"{_NAMESPACE} recipe"

    def end(_name: str) -> None:
        nonlocal inside
        inside = False

    def refuse(*_declaration: object) -> None:
        raise ValueError("a document type, which XMP has not")  # entities could grow without end

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.StartDoctypeDeclHandler = refuse
    parser.CharacterDataHandler = lambda text: parts.append(text) if inside else None
    try:
        parser.Parse(packet.rstrip(b"\0"), True)
    except (expat.ExpatError, ValueError):
        return None
    return "".join(parts) or None
