"""The whole build on three tiny packages: what is taken, resuming, and what is written."""

import io
import json
import os
import shutil
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from calotype.emoji import build as build_module
from calotype.emoji import shards as shards_module
from calotype.emoji.build import build_emoji
from calotype.emoji.fetch import FetchedPackage
from calotype.emoji.recipe import EmojiRecipe, PackageConfig, SourceConfig
from calotype.errors import CalotypeError, MissingExtra, UsageError

pytest.importorskip("pyvips")
parquet = pytest.importorskip("pyarrow.parquet")

GROUPS = {
    "groups": {"0": "animals-nature", "1": "symbols", "2": "people-body"},
    "subgroups": {"0": "animal", "1": "arrow", "2": "family", "3": "person"},
}


def entry(hexcode, label, group, subgroup, order, **more):
    base = {"hexcode": hexcode, "label": label, "group": group, "subgroup": subgroup}
    return {**base, "order": order, "tags": ["pet", "friend"], **more}


LABELS = [
    entry("1F436", "dog", 0, 0, 1),
    entry("1F438", "frog", 0, 0, 2),
    entry("1F34C", "banana", 0, 0, 3),
    entry("27A1", "right arrow", 1, 1, 4),
    entry("1F46A", "family", 2, 2, 5),
    entry(
        "1F44B", "waving hand", 2, 3, 6,
        skins=[{"hexcode": "1F44B-1F3FB", "label": "waving hand: light skin tone", "tone": 1}],
    ),
]  # fmt: skip


def body(colour):
    return {"body": f'<rect width="8" height="16" fill="{colour}"/>'}


ICONS = {
    "dog": body("#010203"),
    "frog": body("#020304"),
    "banana": {**body("#030405"), "height": 32},
    "arrow-right": body("#040506"),
    "family": body("#050607"),
    "waving-hand": body("#060708"),
    "waving-hand-light": body("#070809"),
    "old-dog": {**body("#000000"), "hidden": True},
    "mystery": body("#08090a"),
    "dog-2": body("#010203"),
    "dog-3": {"body": "<rect"},
}


def write_json(folder, files):
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data))


@pytest.fixture
def packages(tmp_path):
    presets = ("cldr", "emojibase", "emojibase-legacy", "iamcal", "github", "joypixels")
    shortcodes = {f"en/shortcodes/{preset}.json": {} for preset in presets}
    write_json(
        tmp_path / "labels",
        {"en/data.json": LABELS, "meta/groups.json": GROUPS, **shortcodes},
    )
    icons = {"width": 16, "height": 16, "icons": ICONS}
    write_json(tmp_path / "noto", {"icons.json": icons, "chars.json": {"27a1": "arrow-right"}})
    write_json(tmp_path / "fluent", {"icons.json": icons, "chars.json": {}})
    assets = tmp_path / "3d" / "assets"
    assets.mkdir(parents=True)
    for code in ("1f436", "1f34c", "1f436-fe0f"):
        Image.new("RGBA", (256, 256), (9, 8, 7, 255)).save(assets / f"{code}.webp", lossless=True)
    folders = {"labels": "labels", "noto": "noto", "fluent": "fluent", "3d": "3d"}
    return {n: FetchedPackage(n, "1", f"sha512-{n}", tmp_path / f) for n, f in folders.items()}


def source(name, package, **more):
    return SourceConfig(
        set=name,
        package=PackageConfig(name=package, version="1"),
        style=f"{name} style",
        license="MIT",
        author="A",
        url="https://example.org",
        **more,
    )


RECIPE = EmojiRecipe(
    sets=("noto", "fluent-3d"),
    excluded_groups=("symbols",),
    excluded_subgroups=("family",),
    skin_tones=False,
    label_package=PackageConfig(name="labels", version="1"),
    sources=(
        source("noto", "noto"),
        source("fluent", "fluent", codes_from="noto", drop_duplicates=True),
        source("fluent-3d", "3d", raster=True, counterparts=("fluent",)),
    ),
)


@pytest.fixture
def build(packages, tmp_path, monkeypatch):
    @contextmanager
    def fake_fetched(wanted):
        yield {package.name: packages[package.name] for package in wanted}

    monkeypatch.setattr(build_module, "fetched", fake_fetched)
    monkeypatch.setitem(shards_module.ROWS_PER_SHARD, 256, 3)
    out = tmp_path / "out"

    def run(recipe=RECIPE, **more):
        return out, build_emoji(out, recipe=recipe, processes=0, **more)

    return run


def rows(folder):
    return [
        row
        for file in sorted(folder.glob("*.parquet"))
        for row in parquet.read_table(file).to_pylist()
    ]


def test_what_is_taken_and_left_out(build):
    out, report = build(sizes=[256])
    found = {row["key"]: row for row in rows(out / "256")}
    assert set(found) == {
        "noto/dog", "noto/dog-2", "noto/frog", "noto/banana", "noto/waving-hand",
        "fluent-3d/dog", "fluent-3d/banana",
    }  # fmt: skip
    assert dict(report.plan.left_out) == {
        ("noto", "no name"): 1,
        ("noto", "skin tone"): 1,
        ("noto", "excluded group"): 2,
        ("fluent-3d", "same code points"): 1,
    }
    assert report.plan.unmatched == ["noto/mystery"]
    assert report.broken == ["256/noto/dog-3"]
    assert found["noto/frog"]["split"] == "unseen_concept"
    assert found["fluent-3d/banana"]["split"] == "unseen_pair"
    assert found["noto/banana"]["split"] == "train"
    assert found["noto/dog"]["keywords"] == ["pet", "friend"]
    assert (found["noto/dog"]["style"], found["noto/dog"]["license"]) == ("noto style", "MIT")


def test_images_are_the_drawings(build):
    out, _ = build()
    for size in (256, 1024):
        found = {row["key"]: row for row in rows(out / str(size))}
        image = np.asarray(Image.open(io.BytesIO(found["noto/dog"]["image"]["bytes"])))
        assert image.shape == (size, size, 4)
        assert (image[:, : size // 2] == (1, 2, 3, 255)).all()
        assert (image[:, size // 2 :] == 0).all()
        tall = np.asarray(Image.open(io.BytesIO(found["noto/banana"]["image"]["bytes"])))
        assert tall[0, 3 * size // 8, 3] == 255 and tall[0, size // 8, 3] == 0  # centred
    assert not any(key.startswith("fluent-3d") for key in found)


def test_hugging_face_features(build):
    out, _ = build(sizes=[256])
    schema = parquet.read_schema(next((out / "256").glob("noto-*.parquet")))
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert list(features) == schema.names


def test_a_second_run_draws_nothing_and_a_changed_plan_draws_again(build, monkeypatch):
    out, _ = build(sizes=[256])
    before = {file: file.stat().st_mtime_ns for file in (out / "256").glob("*.parquet")}
    drawn = []
    real = build_module.render_png
    monkeypatch.setattr(build_module, "render_png", lambda job: drawn.append(job) or real(job))
    _, report = build(sizes=[256])
    assert drawn == []
    assert before == {file: file.stat().st_mtime_ns for file in before}
    assert report.broken == ["256/noto/dog-3"]
    next(file for file in before if "noto-00001" in file.name).write_bytes(b"PAR1")
    build(sizes=[256])
    assert len(drawn) == 3
    build(replace(RECIPE, skin_tones=True), sizes=[256])
    assert len(rows(out / "256")) == 8


def test_shards_that_are_no_longer_wanted_go_and_other_sets_stay(build):
    out, _ = build(sizes=[256])
    shutil.copy(out / "256" / "noto-00001.parquet", out / "256" / "noto-00009.parquet")
    unfinished = out / "256" / ".noto-00000.parquet.7.tmp"
    unfinished.write_bytes(b"cut")
    os.utime(unfinished, (1, 1))
    build(sizes=[256], sets=["noto"])
    names = sorted(file.name for file in (out / "256").iterdir())
    assert names == ["fluent-3d-00000.parquet", "noto-00000.parquet", "noto-00001.parquet"]


def test_10_files_of_others_are_never_taken_for_leftovers(build):
    out, _ = build(sizes=[256])
    kept = ("noto-00000.parquet.bak", ".noto-00001.parquet.tmp", ".noto-x.parquet.7.tmp")
    for name in kept:
        (out / "256" / name).write_bytes(b"mine")
        os.utime(out / "256" / name, (1, 1))
    build(sizes=[256], sets=["noto"])
    assert {file.name for file in (out / "256").iterdir()} > set(kept)
    (out / "256" / "noto-00009.parquet").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"noto-00009\.parquet is not a shard of an emoji"):
        build(sizes=[256])
    assert (out / "256" / "noto-00009.parquet").read_bytes() == b"mine"


def test_card_attribution_and_recipe_describe_the_whole_folder(build):
    build(sizes=[256])
    out, report = build(sizes=[256, 1024], sets=["noto"])
    built = json.loads((out / "recipe.json").read_text())
    assert built["recipe"]["sets"] == ["noto", "fluent-3d"]
    assert built["counts"]["256/fluent-3d"] == 2 and built["counts"]["1024/noto"] == 5
    assert built["counts"] == report.counts
    assert built["packages"]["3d@1"] == "sha512-3d"
    card = (out / "README.md").read_text()
    assert "| fluent-3d | fluent-3d style | MIT | 2 | none |" in card
    assert "fluent-3d ships 256x256 renders" in card
    attribution = (out / "ATTRIBUTION.md").read_text()
    assert "## noto" in attribution and "## fluent-3d" in attribution
    assert "fluent-3d: same code points" in built["left_out"]


def test_duplicates_are_dropped_where_the_source_says_so(build):
    out, report = build(sets=["fluent"], sizes=[256])
    assert "fluent/dog-2" not in {row["key"] for row in rows(out / "256")}
    assert report.plan.left_out["fluent", "duplicate"] == 1


def test_a_concept_without_counterpart_is_left_out(build, packages):
    icons = {"width": 16, "height": 16, "icons": {"banana": body("#123456")}}
    write_json(packages["fluent"].folder, {"icons.json": icons})
    out, report = build(sets=["fluent-3d"], sizes=[256])
    assert [row["key"] for row in rows(out / "256")] == ["fluent-3d/banana"]
    assert report.plan.left_out["fluent-3d", "no counterpart"] == 1


def test_wrong_sizes_and_sets_come_before_any_work(build):
    with pytest.raises(UsageError, match="got size 512"):
        build(sizes=[512])
    with pytest.raises(UsageError, match="got the emoji set 'blob'"):
        build(sets=["blob"])


def test_an_output_that_cannot_be_written_leaves_nothing(build, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(CalotypeError, match="cannot write"):
        build(sizes=[256])
    assert (tmp_path / "out").read_text() == "in the way"


def test_worker_processes_draw_the_same(build, tmp_path):
    out, _ = build(sizes=[256])
    alone = rows(out / "256")
    build_emoji(tmp_path / "two", recipe=RECIPE, sizes=[256], processes=2)
    assert rows(tmp_path / "two" / "256") == alone


def test_a_missing_package_is_told_before_anything_is_fetched(tmp_path, monkeypatch):
    def fetch(names):
        raise AssertionError("fetched")

    monkeypatch.setattr(build_module, "fetched", fetch)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"calotype\[data\]"):
        build_module.build_emoji(tmp_path / "out", processes=0)
