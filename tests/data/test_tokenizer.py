"""A tokenizer of a data set's captions: of those that are trained on, however they are stored."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calotype.data.columns import Selection
from calotype.data.tokenizer import make_tokenizer
from calotype.emoji.captions import GRAMMAR
from calotype.errors import UsageError
from calotype.text.tokenizer_folder import tokenizer_sha256
from calotype.text.train_byte_pair import train_tokenizer

TEXTS = [["An owl", "A red owl"], ["two owls, red"], [""], ["Ein Käuz"]]


def write(folder, **columns):
    folder.mkdir()
    count = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": [b"unread"] * count, **columns}), folder / "0.parquet")
    return folder


def test_every_caption_counts_as_often_as_it_comes(tmp_path):
    data = write(tmp_path / "d", text=TEXTS)
    shown = []
    report = make_tokenizer(
        data,
        tmp_path / "out",
        vocabulary=264,
        selection=Selection(),
        progress=lambda *numbers: shown.append(numbers),
    )
    train_tokenizer([t for texts in TEXTS for t in texts if t], tmp_path / "plain", vocabulary=264)
    assert report.sha256 == tokenizer_sha256(tmp_path / "plain")
    assert (report.examples, report.captions) == (4, 4)
    assert report.longest == 9  # "Ein Käuz", most of it in bytes
    assert shown[-1] == (4, 4)


def test_what_is_set_aside_is_not_read(tmp_path):
    """A token of its own, never trained, would say nothing of a word that training never met."""
    texts, splits = ["owl owl", "tree tree"], ["train", "unseen_concept"]
    data = write(tmp_path / "d", text=texts, split=splits)
    make_tokenizer(data, tmp_path / "out", vocabulary=260, selection=Selection())
    numbers = json.loads((tmp_path / "out/encoder.json").read_text("utf-8"))
    assert "owl" in numbers and "tr" not in numbers


def test_captions_made_of_parts(tmp_path):
    names = ["owl", "red apple"]
    data = write(tmp_path / "d", name=names, keywords=[["bird"], ["fruit"]], style=["noto", "noto"])
    selection = Selection(variants=5, grammar=GRAMMAR)
    report = make_tokenizer(data, tmp_path / "out", vocabulary=300, selection=selection)
    assert report.captions == 10


@pytest.mark.parametrize(
    ("texts", "reason"),
    [(["", ""], "no captions"), (["a", "a"], "a vocabulary of 300; expected at most 257")],
)
def test_too_few_captions(tmp_path, texts, reason):
    data = write(tmp_path / "d", text=texts)
    with pytest.raises(UsageError, match=reason):
        make_tokenizer(data, tmp_path / "out", vocabulary=300, selection=Selection())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    data = write(tmp_path / "d", text=["an owl"])
    for place in (data, data / "0.parquet"):
        with pytest.raises(UsageError, match="which is there; expected a new folder"):
            make_tokenizer(data, place, vocabulary=260, selection=Selection())
    assert pq.read_table(data / "0.parquet").num_rows == 1
