"""Small sets of samples, and studies made of them."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from calotype.evaluation.rating.new import create_study
from calotype.evaluation.rating.store import Store
from calotype.evaluation.rating.wanted import Wanted
from calotype.evaluation.samples.folders import import_samples
from calotype.evaluation.suites.suite import Prompt, Suite

WORDS = ("red apple", "blue boat", "green chair", "tall dog", "small engine", "old flag")


def make_suite(count=6, categories=1):
    prompts = [
        Prompt(f"p{n}", f"a {WORDS[n % 6]} number {n}", f"category {n % categories}")
        for n in range(count)
    ]
    return Suite("things", tuple(prompts), "0" * 64)


def make_set(folder, suite, *, seed, each=2, size=16):
    """A set whose images are noise around a colour of its own."""
    random = np.random.default_rng(seed)
    source = folder / f"in-{seed}"
    for number, prompt in enumerate(suite.prompts):
        place = source / f"{number:05d}"
        (place / "samples").mkdir(parents=True)
        (place / "metadata.jsonl").write_text(json.dumps({"prompt": prompt.caption}))
        for index in range(each):
            pixels = random.integers(40 * seed, 40 * seed + 40, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(place / "samples" / f"{index:04d}.png")
    out = folder / f"set-{seed}"
    import_samples(source, suite, out)
    return out


@pytest.fixture
def tmp_path(tmp_path):
    """In memory where the system has it: every answer waits for the disk, which others use."""
    if not Path("/dev/shm").is_dir():
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """Three sets of two images of six prompts, in one category."""
    folder = tmp_path_factory.mktemp("sets")
    return {name: make_set(folder, make_suite(), seed=n) for n, name in enumerate("abc", 1)}


@pytest.fixture(scope="session")
def many_sets(tmp_path_factory):
    """Two sets of one image of 27 prompts, in one category."""
    folder = tmp_path_factory.mktemp("many")
    suite = make_suite(27)
    return {name: make_set(folder, suite, seed=n, each=1) for n, name in enumerate("ab", 1)}


@pytest.fixture(scope="session")
def category_sets(tmp_path_factory):
    """Two sets of one image of 6 prompts, in two categories."""
    folder = tmp_path_factory.mktemp("categories")
    suite = make_suite(6, 2)
    return {name: make_set(folder, suite, seed=n, each=1) for n, name in enumerate("ab", 1)}


def _pair_of(folder, captions, names="ab"):
    """Two sets of one image of each caption."""
    prompts = tuple(Prompt(f"p{n}", text) for n, text in enumerate(captions))
    suite = Suite("few", prompts, "0" * 64)
    return {name: make_set(folder, suite, seed=n, each=1) for n, name in enumerate(names, 1)}


@pytest.fixture(scope="session")
def odd_sets(tmp_path_factory):
    """Prompts and names that a page could stumble over."""
    captions = ("<script>alert(1)</script> $HOME", "\u05d0\u05d1 \u202e red", "a\x1bb {{ 7*7 }}")
    names = ("<i>$(x)</i>", "\u05d0\u05d1")
    return _pair_of(tmp_path_factory.mktemp("odd"), captions, names)


@pytest.fixture(scope="session")
def long_sets(tmp_path_factory):
    """A prompt that nobody would read."""
    return _pair_of(tmp_path_factory.mktemp("long"), ("x" * 10_001, "short"))


@pytest.fixture(scope="session")
def people_sets(tmp_path_factory):
    """A prompt with people and one without."""
    return _pair_of(tmp_path_factory.mktemp("people"), ("two Women and a dog", "a manhole"))


@pytest.fixture(scope="session")
def browser_sets(tmp_path_factory):
    """Two sets of two images of 18 prompts, in one category."""
    folder = tmp_path_factory.mktemp("browser")
    suite = make_suite(18)
    return {name: make_set(folder, suite, seed=n) for n, name in enumerate("ab", 1)}


@pytest.fixture
def make_study(tmp_path, sets):
    """Make a study: `make_study("elo", "abc", raters=2)`; returns its folder and what it says."""

    def make(protocol="elo", names="ab", **options):
        folder = tmp_path / "study"
        chosen = {name: sets[name] for name in names}
        if protocol == "drawbench":
            options.setdefault("images", 2)
        study = create_study(folder, Wanted(protocol=protocol, sets=chosen, **options))
        return folder, study

    return make


@pytest.fixture
def make_store(make_study):
    """Make a study and open its answers."""

    def make(protocol="elo", names="ab", **options):
        folder, study = make_study(protocol, names, **options)
        return Store(folder, study)

    return make
