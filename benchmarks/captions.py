"""The caption store against padded float16 arrays: bytes a caption, captions a second.

    python benchmarks/captions.py [--encoder minilm] [--captions 20000] [--data DIR]

Padded arrays are what is commonly written: (captions, longest, width) float16 in one .npy file,
mapped for reading, with a mask and a dictionary from captions to rows in memory. `longest` is the
encoder's limit (128 for minilm), and, as a second and kinder case, the longest caption there is.

The encoder runs once, on as many distinct captions as asked for, and is timed apart; writing and
reading are then timed for each form on the same states. Reading asks for batches of 64 captions in
a shuffled order and makes the padded float32 tensor and mask that a network takes; files are in
the page cache. Rounds are interleaved and the median is given.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from calotype.conditioning import TextEmbedding
from calotype.data.columns import Selection
from calotype.data.open import open_part, parts
from calotype.emoji.captions import GRAMMAR, caption_variants
from calotype.text import TextEncoder, build_text_encoder
from calotype.text.layout import StoreLayout
from calotype.text.store import embed_captions

Read = Callable[[Sequence[str]], TextEmbedding]


@dataclass(frozen=True)
class Embedded:
    """Captions with the states (L_i, D) float16 of each."""

    captions: list[str]
    states: list[np.ndarray]
    max_tokens: int

    @property
    def longest(self) -> int:
        """Tokens of the longest caption."""
        return max(len(rows) for rows in self.states)


class Replayed:
    """Stands in for the encoder: hands out states that were computed before."""

    def __init__(self, encoder: TextEncoder, embedded: Embedded) -> None:
        self.embed_dim, self.max_tokens = encoder.embed_dim, encoder.max_tokens
        self.fingerprint, self.spec = encoder.fingerprint, "replayed"
        self._states = dict(zip(embedded.captions, embedded.states, strict=True))

    def __call__(self, captions: Sequence[str]) -> TextEmbedding:
        """The states of before, padded."""
        return padded([self._states[caption] for caption in captions])


def padded(states: Sequence[np.ndarray]) -> TextEmbedding:
    longest = max(len(rows) for rows in states)
    tokens = torch.zeros(len(states), longest, states[0].shape[1])
    mask = torch.zeros(len(states), longest, dtype=torch.bool)
    for index, rows in enumerate(states):
        tokens[index, : len(rows)] = torch.from_numpy(rows.astype(np.float32))
        mask[index, : len(rows)] = True
    return TextEmbedding(tokens=tokens, mask=mask)


def write_padded(embedded: Embedded, folder: Path, longest: int) -> Read:
    """The common way: one array as long as the longest caption may be."""
    folder.mkdir()
    count, width = len(embedded.captions), embedded.states[0].shape[1]
    shape = (count, longest, width)
    array = np.lib.format.open_memmap(folder / "tokens.npy", "w+", np.float16, shape)
    lengths = np.array([len(rows) for rows in embedded.states])
    for index, rows in enumerate(embedded.states):
        array[index, : len(rows)] = rows
    array.flush()
    np.save(folder / "mask.npy", np.arange(longest) < lengths[:, None])
    (folder / "captions.json").write_text(json.dumps(embedded.captions))
    tokens = np.load(folder / "tokens.npy", mmap_mode="r")
    mask = np.load(folder / "mask.npy", mmap_mode="r")
    rows_of = {caption: index for index, caption in enumerate(embedded.captions)}

    def read(captions: Sequence[str]) -> TextEmbedding:
        rows = [rows_of[caption] for caption in captions]
        picked = torch.from_numpy(tokens[rows].astype(np.float32))
        return TextEmbedding(tokens=picked, mask=torch.from_numpy(mask[rows]))

    return read


def write_store(embedded: Embedded, folder: Path, encoder: TextEncoder, precision: str) -> Read:
    layout = StoreLayout(precision=precision)
    replayed = Replayed(encoder, embedded)
    store = embed_captions(replayed, embedded.captions, folder=folder, layout=layout)
    return store.__getitem__


def example_captions() -> Iterator[str]:
    """Captions as the emoji recipe makes them: names, adjectives, styles, backgrounds."""
    names = "dog frog banana rocket castle violin penguin teapot lighthouse mushroom".split()
    colours = "red blue green golden silver dark pale striped spotted tiny huge old".split()
    places = ["", " on a hill", " in the rain", " beside a river under a full moon"]
    for number, (place, colour, name) in enumerate(
        itertools.cycle(itertools.product(places, colours, names))
    ):
        words = f"{colour} {name}{place}" + (f" number {number}" if number > 479 else "")
        for caption in caption_variants(words, [name], "flat style", key=str(number), count=12):
            yield caption.text


def data_captions(path: Path) -> Iterator[str]:
    for part in parts(path):
        source = open_part(path, part, Selection(None, grammar=GRAMMAR))
        for index in range(len(source)):
            yield from (caption.text for caption in source.captions(index))


def distinct(captions: Iterator[str], count: int) -> list[str]:
    seen: dict[str, None] = {}
    for caption in captions:
        if caption.strip():
            seen[caption] = None
        if len(seen) == count:
            break
    return list(seen)


def embed(encoder: TextEncoder, captions: list[str]) -> Embedded:
    """Every caption's states; by length, so that little is computed on padding."""
    order = sorted(range(len(captions)), key=lambda index: len(captions[index]))
    states: list[np.ndarray] = [np.zeros(0)] * len(captions)
    for start in range(0, len(order), 256):
        chosen = order[start : start + 256]
        with torch.no_grad():
            text = encoder([captions[index] for index in chosen])
        for index, tokens, mask in zip(chosen, text.tokens, text.mask, strict=True):
            states[index] = tokens[mask].numpy().astype(np.float16)
    return Embedded(captions, states, encoder.max_tokens)


def folder_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def measure(encoder: TextEncoder, embedded: Embedded, *, rounds: int, batches: int) -> list[dict]:
    forms: dict[str, Callable[[Path], Read]] = {
        f"padded float16, {embedded.max_tokens} tokens": lambda folder: write_padded(
            embedded, folder, embedded.max_tokens
        ),
        f"padded float16, {embedded.longest} tokens": lambda folder: write_padded(
            embedded, folder, embedded.longest
        ),
        "store float16": lambda folder: write_store(embedded, folder, encoder, "float16"),
        "store int8": lambda folder: write_store(embedded, folder, encoder, "int8"),
    }
    count = len(embedded.captions)
    rng = random.Random(0)
    asked = [rng.choices(embedded.captions, k=64) for _ in range(batches)]
    seconds: dict[str, dict[str, list[float]]] = {n: {"write": [], "read": []} for n in forms}
    sizes = {}
    for _ in range(rounds):
        for name, write in forms.items():
            with tempfile.TemporaryDirectory() as root:
                start = time.perf_counter()
                read = write(Path(root) / "data")
                os.sync()
                seconds[name]["write"].append(time.perf_counter() - start)
                sizes[name] = folder_bytes(Path(root) / "data")
                read(asked[0])
                start = time.perf_counter()
                for captions in asked:
                    read(captions)
                seconds[name]["read"].append(time.perf_counter() - start)
                del read
    return [
        {
            "form": name,
            "bytes_per_caption": sizes[name] / count,
            "written_per_second": count / statistics.median(seconds[name]["write"]),
            "read_per_second": 64 * batches / statistics.median(seconds[name]["read"]),
        }
        for name in forms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--captions", type=int, default=20000)
    parser.add_argument("--data", type=Path, help="captions of a data set instead of examples")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    encoder = build_text_encoder(options.encoder)
    if encoder is None:
        sys.exit("captions: got encoder 'none'; expected one that embeds")
    found = example_captions() if options.data is None else data_captions(options.data)
    captions = distinct(found, options.captions)
    start = time.perf_counter()
    embedded = embed(encoder, captions)
    encoding = len(captions) / (time.perf_counter() - start)
    rows = measure(encoder, embedded, rounds=options.rounds, batches=options.batches)
    tokens = sum(len(states) for states in embedded.states) / len(captions)
    if options.json:
        print(json.dumps({"encoder": options.encoder, "encoded_per_second": encoding,
                          "captions": len(captions), "tokens": tokens, "rows": rows}))  # fmt: skip
        return
    print(
        f"{len(captions):,} captions of {tokens:.1f} tokens on average, encoder {options.encoder}"
    )
    print(f"encoding alone: {encoding:,.0f} captions/s on {torch.get_num_threads()} threads\n")
    print(f"{'':32}{'bytes/caption':>14}{'written/s':>12}{'read/s':>12}")
    for row in rows:
        print(
            f"{row['form']:32}{row['bytes_per_caption']:14,.0f}"
            f"{row['written_per_second']:12,.0f}{row['read_per_second']:12,.0f}"
        )


if __name__ == "__main__":
    main()
