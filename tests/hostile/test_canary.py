"""Cascades, checkpoints, LoRAs, encoders and images that try to run code: no file is written.

Each way would write the canary's file if what is in it were run; the control shows that it can.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from apart import Outcome, in_child, tree
from things import CANARY, Bomb

from calotype.cli import run

SAMPLE = "--dtype float32 --device cpu --threads 1"
CODE = f"open({CANARY!r}, 'w').write('run')\nclass Stranger: pass\n"
CALL = "{{ cycler.__init__.__globals__.os.system('touch " + CANARY + "') }}"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><script>x()</script></svg>'
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n("
    + CANARY.encode()
    + b") (w) file closefile\nshowpage\n"
)


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Bomb()))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return stream.getvalue()


def _encoder(place: Path, **changes: dict[str, object]) -> None:
    """A T5 in the cascade's folder, with changes to its JSON files and code beside them."""
    import transformers
    from tokenizers import Tokenizer, models

    folder = place / "cascade" / "encoder"
    words = models.Unigram(
        [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("left", -1.0)], unk_id=2
    )
    transformers.T5TokenizerFast(tokenizer_object=Tokenizer(words)).save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2
    )
    transformers.T5EncoderModel(config).save_pretrained(folder)
    (folder / "stranger.py").write_text(CODE)
    for name, values in changes.items():
        file = folder / f"{name}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    cascade = place / "cascade" / "cascade.json"
    text = json.loads(cascade.read_text())
    cascade.write_text(json.dumps({**text, "text_encoder": "t5:cascade/encoder"}))


def _auto_map(place: Path) -> None:
    names = {"AutoConfig": "stranger.Stranger", "AutoModel": "stranger.Stranger"}
    _encoder(place, config={"auto_map": names, "model_type": "stranger"})


def _tokenizer(place: Path) -> None:
    names = {"AutoTokenizer": ["stranger.Stranger", "stranger.Stranger"]}
    _encoder(place, tokenizer_config={"auto_map": names, "tokenizer_class": "Stranger"})


def _chat_template(place: Path) -> None:
    _encoder(place, tokenizer_config={"chat_template": CALL})


def _pickled_weights(place: Path) -> None:
    data = pickle.dumps(Bomb())
    (place / "cascade" / "8" / "weights.safetensors").write_bytes(data)
    file = place / "cascade" / "cascade.json"
    text = json.loads(file.read_text())
    text["stages"][0]["sha256"] = hashlib.sha256(data).hexdigest()
    file.write_text(json.dumps(text))


def _pickled_checkpoint(place: Path) -> None:
    """Every weights file of a run a pickle, its size and hash as the manifest says."""
    for folder in (place / "run" / "checkpoints").iterdir():
        for file in folder.glob("*.json"):
            text = file.read_text()
            for weights in folder.glob("*.safetensors"):
                old = weights.read_bytes()
                text = text.replace(
                    hashlib.sha256(old).hexdigest(),
                    hashlib.sha256(pickle.dumps(Bomb())).hexdigest(),
                ).replace(f" {len(old)}", f" {len(pickle.dumps(Bomb()))}")
            file.write_text(text)
        for weights in folder.glob("*.safetensors"):
            weights.write_bytes(pickle.dumps(Bomb()))


def _file(name: str, data: bytes) -> Callable[[Path], None]:
    def make(place: Path) -> None:
        (place / name).write_bytes(data)

    return make


DRAW = f"sample left --model cascade -o out/a.png {SAMPLE}"
TRAIN = f"train micro.json --data images --out out/run --quiet --images 8 {SAMPLE}"
LOOK = (
    TRAIN,
    "data verify images --processes 1",
    f"upscale images/evil.png --model cascade {SAMPLE}",
)

WAYS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "auto_map of a model": (_auto_map, (DRAW, "info cascade")),
    "code of a tokenizer": (_tokenizer, (DRAW,)),
    "chat template": (_chat_template, (DRAW,)),
    "pickled weights in a cascade": (_pickled_weights, (DRAW, "info cascade")),
    "pickled checkpoint": (
        _pickled_checkpoint,
        (
            "train micro.json --data images --out run --quiet --resume --images 32",
            "assemble run -o out/c",
            "ema run --length 0.1 -o out/e.safetensors",
        ),
    ),
    "pickle as a LoRA": (
        _file("evil.pth", pickle.dumps(Bomb())),
        (f"{DRAW} --lora evil.pth", f"{TRAIN} --init evil.pth"),
    ),
    "zip of torch.save": (
        _file("evil.pt", _zip()),
        (
            "convert evil.pt -o out/c",
            "convert evil.pt -o out/c --text-encoder bytes:8",
            "info evil.pt",
            f"{DRAW} --lora evil.pt",
        ),
    ),
    "EPS": (_file("images/evil.png", EPS), LOOK),
    "SVG": (_file("images/evil.png", SVG), LOOK),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_8_nothing_in_a_file_is_run(place: Path, way: str) -> None:
    make, lines = WAYS[way]
    made = in_child(lambda: make(place) or 0, place, seconds=60)
    assert made.code == 0, made
    before = {name for name in tree(place) if not name.startswith(("out/", "run/"))}
    for line in lines:
        outcome = _answering_yes(line, place)
        assert outcome.code in (0, 1, 2), (line, outcome)
        assert "Traceback" not in outcome.err, (line, outcome)
        assert not list(place.rglob(CANARY)), (line, outcome)
    after = {name for name in tree(place) if not name.startswith(("out/", "run/"))}
    assert after == before


@pytest.mark.slow
def test_the_canary_sings_where_a_pickle_is_loaded(place: Path) -> None:
    assert in_child(lambda: bool(pickle.loads(pickle.dumps(Bomb()))) * 0, place).code == 0
    assert (place / CANARY).exists()


def _answering_yes(line: str, place: Path) -> Outcome:
    def task() -> int:
        read, write = os.pipe()
        os.write(write, b"y\n" * 99)
        os.close(write)
        os.dup2(read, 0)
        sys.stdin = os.fdopen(0, "r", closefd=False)
        return run(line.split())

    return in_child(task, place, seconds=60)
