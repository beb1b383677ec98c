"""A tokenizer trained here: the files GLIDE's has, and the numbers `tokenizers` itself gives."""

import json
import random

import pytest
from tokenizers import ByteLevelBPETokenizer

from calotype.errors import UsageError
from calotype.text import build_text_encoder
from calotype.text.byte_pair import byte_alphabet, load_caption_bpe
from calotype.text.train_byte_pair import END_MARK, train_tokenizer

CAPTIONS = [
    "A red owl, front view",
    "a red owl's house",
    "ein grüner Käse an der Straße",
    "赤い 猫 と 犬",
    "don't   look \t here\n",
    "RED CATS and red dogs 2024",
    "🦉 owl \ud800",
]
VOCABULARY = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("made") / "tokenizer"
    train_tokenizer(CAPTIONS, place, vocabulary=VOCABULARY)
    return place


def test_bytes_come_first_then_merges_and_the_end_mark_is_last(folder):
    numbers = json.loads((folder / "encoder.json").read_text("utf-8"))
    words = sorted(numbers, key=numbers.get)
    assert list(numbers.values()) == list(range(VOCABULARY))
    assert words[:256] == byte_alphabet() and words[-1] == END_MARK
    first, *merges, last = (folder / "vocab.bpe").read_text("utf-8").split("\n")
    assert first == "#version: 0.2" and last == ""
    assert ["".join(line.split(" ")) for line in merges] == words[256:-1]
    bpe = load_caption_bpe(folder)
    assert (bpe.vocabulary_size, bpe.end_token) == (VOCABULARY, VOCABULARY - 1)


def test_numbers_are_those_of_the_package(folder):
    """Its own class for such files, told to lower-case, reads them anew."""
    files = (str(folder / name) for name in ("encoder.json", "vocab.bpe"))
    theirs = ByteLevelBPETokenizer(*files, lowercase=True)
    ours = build_text_encoder(f"glide:{folder}")
    for caption in [*CAPTIONS[:-1], "an unseen word: Ωmega, naïve", "<|endoftext|>"]:
        text = ours([caption])
        found = text.ids[0][text.mask[0]].tolist()
        assert found == theirs.encode(caption).ids, caption
        assert max(found) < VOCABULARY - 1  # nothing that is written is the end mark
        assert theirs.decode(found) == caption.lower()


def test_the_order_of_captions_does_not_matter(folder, tmp_path):
    mixed = random.Random(0).sample(CAPTIONS, len(CAPTIONS))
    train_tokenizer(iter(mixed), tmp_path, vocabulary=VOCABULARY)
    for name in ("encoder.json", "vocab.bpe"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_what_comes_often_is_merged_first(tmp_path):
    train_tokenizer(["zq xk"] * 3 + ["vw"] * 2, tmp_path, vocabulary=258)
    assert (tmp_path / "vocab.bpe").read_text("utf-8").split("\n")[1] in ("z q", "x k")


@pytest.mark.parametrize(
    ("captions", "vocabulary", "reason"),
    [
        (CAPTIONS, 257, "got a vocabulary of 257; expected at least 258"),
        (["ab"], 1000, "got a vocabulary of 1,000; expected at most 258"),
        (["a", "b"], 300, "got a vocabulary of 300; expected at most 257"),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path, captions, vocabulary, reason):
    with pytest.raises(UsageError, match=reason):
        train_tokenizer(captions, tmp_path / "out", vocabulary=vocabulary)
    assert not (tmp_path / "out").exists()
