"""The benchmark of caption stores runs, and its forms hold the same numbers."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from calotype.text.byte import ByteTextEncoder

FILE = Path(__file__).parents[2] / "benchmarks" / "captions.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_captions", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["bench_captions"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["bench_captions"]


def test_all_forms_hold_the_same(bench, tmp_path):
    encoder = ByteTextEncoder(8)
    captions = bench.distinct(bench.example_captions(), 40)
    assert len(captions) == len(set(captions)) == 40
    embedded = bench.embed(encoder, captions)
    wide = bench.write_padded(embedded, tmp_path / "wide", encoder.max_tokens)(captions[:9])
    store = bench.write_store(embedded, tmp_path / "store", encoder, "float16")(captions[:9])
    length = store.tokens.shape[1]
    assert torch.equal(wide.tokens[:, :length], store.tokens)
    assert torch.equal(wide.mask[:, :length], store.mask)
    assert not wide.mask[:, length:].any()


def test_it_prints_what_it_measured(bench, capsys, monkeypatch):
    words = ["captions.py", "--encoder", "bytes:8", "--captions", "30", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", [*words, "--batches", "2", "--json"])
    bench.main()
    rows = {row["form"]: row for row in json.loads(capsys.readouterr().out)["rows"]}
    assert (
        rows["store int8"]["bytes_per_caption"]
        < rows["padded float16, 128 tokens"]["bytes_per_caption"]
    )
    assert all(row["read_per_second"] > 0 for row in rows.values())
