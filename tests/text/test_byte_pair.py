"""The tokenizers of GLIDE, on a vocabulary made here and, where it is at hand, the published one.

Set CALOTYPE_GLIDE_TOKENIZER to the folder with encoder.json.gz, vocab.bpe.gz and
bpe_simple_vocab_16e6.txt.gz to compare with the reference's token numbers.
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from calotype.errors import CalotypeError, ConfigError
from calotype.text import Tokenizer, build_text_encoder
from calotype.text.byte_pair import byte_alphabet, load_caption_bpe, load_clip_bpe

RECORDED = Path(__file__).parent.parent / "interop" / "data" / "glide_tokens.json"
PUBLISHED = os.environ.get("CALOTYPE_GLIDE_TOKENIZER")
SPACE = byte_alphabet()[188 + 32]  # what stands for a blank, the 33rd byte that does not print
MERGES = [("f", "o"), ("fo", "x"), (SPACE, "fox"), (SPACE, SPACE)]


def write_caption_files(folder, *, zipped=False, names=("encoder.json", "vocab.bpe")):
    folder.mkdir(exist_ok=True)
    words = byte_alphabet() + ["".join(merge) for merge in MERGES] + ["<|endoftext|>"]
    vocabulary = json.dumps({word: index for index, word in enumerate(words)}).encode()
    merges = "\n".join(["#version: 0.2", *(" ".join(m) for m in MERGES), ""]).encode()
    for name, data in zip(names, (vocabulary, merges), strict=True):
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (folder / name).write_bytes(data)
    return folder


def write_clip_file(folder):
    folder.mkdir(exist_ok=True)
    lines = ["#version: 0.2", "f o", "fo x</w>", "' s</w>", ""]
    (folder / "bpe_simple_vocab_16e6.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def ids(text):
    """Numbers of single bytes."""
    alphabet = byte_alphabet()
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    places = {byte: place for place, byte in enumerate(plain + others)}
    assert len(alphabet) == 256
    return [places[byte] for byte in text.encode()]


@pytest.mark.parametrize("zipped", [False, True])
def test_merges_go_as_far_as_they_can(tmp_path, zipped):
    bpe = load_caption_bpe(write_caption_files(tmp_path, zipped=zipped))
    fo, fox, space_fox, two_spaces = 256, 257, 258, 259
    assert bpe.end_token == 260
    assert bpe.encode("FOX fox") == [fox, space_fox]
    assert bpe.encode("fo  fox ") == [fo, *ids(" "), space_fox, *ids(" ")]
    assert bpe.encode("x   ") == [*ids("x"), two_spaces, *ids(" ")]
    assert bpe.encode("") == []
    assert bpe.encode("é<|endoftext|>")[:2] == ids("é")  # never the special token


def test_names_of_other_distributions(tmp_path):
    folders = {
        ("encoder.json", "vocab.bpe"): write_caption_files(tmp_path / "a"),
        ("encoder.json.gz", "vocab.bpe.gz"): write_caption_files(tmp_path / "b", zipped=True),
    }
    names = ("vocab.json", "merges.txt")
    folders[names] = write_caption_files(tmp_path / "c", names=names)
    encoders = [build_text_encoder(f"glide:{folder}") for folder in folders.values()]
    assert len({encoder.fingerprint for encoder in encoders}) == 1
    assert len({str(encoder(["a fox  "]).ids.tolist()) for encoder in encoders}) == 1


def test_clip_words_end(tmp_path):
    bpe = load_clip_bpe(write_clip_file(tmp_path))
    fo, fox, possessive = 512, 513, 514
    assert (bpe.start_token, bpe.end_token) == (515, 516)
    assert bpe.encode("  FOX\n fo’s &amp;amp; ") == [
        fox,
        *(256 + i if last else i for i, last in zip(ids("fo"), (False, True), strict=True)),
        possessive,
        256 + ids("&")[0],
    ]
    assert bpe.encode("foxx")[0] == fo
    found = bpe.tokens(["fox", "fox " * 9, ""], 4)
    assert found.ids.tolist() == [[515, fox, 516, 0], [515, fox, fox, 516], [515, 516, 0, 0]]
    assert found.mask.sum(1).tolist() == [3, 4, 2]
    assert bpe.encode("<|endoftext|>") == [516]


def test_the_encoder_gives_ids_and_masks(tmp_path):
    spec = f"glide:{write_caption_files(tmp_path)}"
    encoder = build_text_encoder(spec)
    assert isinstance(encoder, Tokenizer)
    assert (encoder.vocabulary_size, encoder.max_tokens, encoder.spec) == (261, 128, spec)
    found = encoder(["fox", "", "x fox", "  "])
    assert found.mask.tolist() == [[True, False], [False, False], [True, True], [False, False]]
    assert found.ids[0, 0] == 257 and found.ids[2].tolist() == [*ids("x"), 258]
    assert encoder([""]).mask.sum() == 0
    short = build_text_encoder(spec, max_tokens=3)
    assert short(["x" * 10_000_000]).ids.shape == (1, 3)
    assert short.fingerprint != encoder.fingerprint
    assert encoder(["\ud800"]).ids[0, 0] == ids("?")[0]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("encoder.json", b"[1]"),
        ("encoder.json", b'{"a": 5}'),
        ("encoder.json", b"\xff\xfe"),
        ("encoder.json", b'{"a": 0}'),
        ("encoder.json", b"[" * 100_000),
        ("vocab.bpe", b"#version\none two three\n"),
        ("vocab.bpe", b"#version\nno such\n"),
    ],
)
def test_damaged_vocabularies_are_refused(tmp_path, name, data):
    write_caption_files(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CalotypeError, match=r"encoder\.json|vocab\.bpe"):
        load_caption_bpe(tmp_path)


def test_files_that_unpack_to_too_much_are_refused(tmp_path):
    write_caption_files(tmp_path)
    (tmp_path / "encoder.json").unlink()
    (tmp_path / "encoder.json.gz").write_bytes(gzip.compress(b" " * 70_000_000))
    with pytest.raises(CalotypeError, match="damaged"):
        load_caption_bpe(tmp_path)
    (tmp_path / "encoder.json.gz").write_bytes(b"no gzip")
    with pytest.raises(CalotypeError, match="damaged"):
        load_caption_bpe(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CalotypeError, match=r"encoder\.json"):
        build_text_encoder(f"glide:{tmp_path}")
    with pytest.raises(CalotypeError, match="bpe_simple_vocab"):
        load_clip_bpe(tmp_path)
    with pytest.raises(ConfigError):
        build_text_encoder("glide:")


@pytest.mark.skipif(PUBLISHED is None, reason="needs CALOTYPE_GLIDE_TOKENIZER")
def test_token_numbers_of_the_reference():
    recorded = json.loads(RECORDED.read_text("utf-8"))
    caption, clip = load_caption_bpe(Path(PUBLISHED)), load_clip_bpe(Path(PUBLISHED))
    assert (caption.vocabulary_size, caption.end_token) == (
        recorded["glide_vocab"],
        recorded["end_token"],
    )
    for entry in recorded["glide_bpe"]:
        assert caption.encode(entry["text"]) == entry["tokens"], entry["text"]
    for entry in recorded["clip"]:
        assert clip.encode(entry["text"]) == entry["tokens"], entry["text"]
        found = clip.tokens([entry["text"]], 77).padded(77)
        assert [found.ids[0].tolist(), int(found.mask.sum())] == entry["padded_77"], entry["text"]
    encoder = build_text_encoder(f"glide:{PUBLISHED}")
    for entry in recorded["glide_bpe"]:
        found = encoder([entry["text"]])
        numbers = found.ids[0][found.mask[0]].tolist()
        assert numbers == entry["tokens"][:128], entry["text"]
