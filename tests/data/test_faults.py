"""Hostile data end to end: every fault is trained around, counted and named, or a clear error."""

import io
import itertools
import os
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from calotype.config.data import DataConfig
from calotype.data.batch import BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.data.shard import shard_data
from calotype.data.verify import verify_data
from calotype.errors import CalotypeError

SIDE = 16
LONG = ("long " * 200_001).strip()  # a megabyte


def encoded(image, form="PNG", **options):
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def noise(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def exif_rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(3), "JPEG", exif=exif.tobytes())


USED = {
    "cmyk.jpg": encoded(noise(1).convert("CMYK"), "JPEG"),
    "deep.png": encoded(Image.fromarray(np.full((SIDE, SIDE), 30000, np.uint16))),
    "palette.png": encoded(noise(2).convert("P", palette=Image.Palette.ADAPTIVE)),
    "rotated.jpg": exif_rotated(),
    "animated.gif": encoded(noise(4), "GIF", save_all=True, append_images=[noise(5), noise(6)]),
    "sound.png": encoded(noise(7)),
}
REFUSED = {
    "truncated.png": (encoded(noise(8))[:400], "truncated|image file|corrupt"),
    "truncated.jpg": (encoded(noise(9), "JPEG")[:-60], "truncated"),
    "zero.png": (b"", "empty file"),
    "dot.png": (encoded(Image.new("RGB", (1, 1))), "1x1"),
    "bomb.png": (encoded(Image.new("1", (20000, 20000))), "decompression bomb"),
    "words.png": (b"<html>not found</html>", "not an image"),
}
CAPTIONS = {
    "cmyk.jpg": b"B\xe4r",
    "deep.png": b"",
    "palette.png": LONG.encode(),
    "sound.png": b"\xef\xbb\xbfa sound image",
}
FILES = {**USED, **{name: data for name, (data, _) in REFUSED.items()}}


def as_folder(root):
    root.mkdir()
    for name, data in FILES.items():
        stem = name.replace(".", "-")  # a caption is found by the image's name
        file = root / f"{stem}.{name.rpartition('.')[2]}"
        file.write_bytes(data)
        file.with_suffix(".txt").write_bytes(CAPTIONS.get(name, b"text"))


def as_tar(root):
    root.mkdir()
    with tarfile.open(root / "0.tar", "w") as tar:
        for name, data in FILES.items():
            stem = name.replace(".", "-")
            for suffix, body in (
                (name.rpartition(".")[2], data),
                ("txt", CAPTIONS.get(name, b"text")),
            ):
                info = tarfile.TarInfo(f"{stem}.{suffix}")
                info.size = len(body)
                tar.addfile(info, io.BytesIO(body))


def as_parquet(root):
    root.mkdir()
    texts = pa.array([CAPTIONS.get(name, b"text") for name in FILES]).view(pa.string())
    keys = [name.replace(".", "-") for name in FILES]
    pq.write_table(
        pa.table({"key": keys, "image": list(FILES.values()), "text": texts}), root / "0.parquet"
    )


def stem(key):
    return key.rpartition("/")[2].partition(".")[0]


@pytest.mark.parametrize("make", [as_folder, as_tar, as_parquet])
def test_faulty_examples_are_trained_around_and_named(make, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    make(tmp_path / "d")
    source = open_source(tmp_path / "d", resolution=SIDE, data=DataConfig())
    assert len(source) == len(FILES)
    made = batches(
        source,
        BatchPlan(
            resolution=SIDE,
            lowres_resolution=None,
            config=DataConfig(broken_fraction=0.6),
            batch_size=4,
            seed=0,
        ),
        prefetch=0,
    )
    taken = list(itertools.islice(made, 9))
    made.close()
    seen = {stem(key): text for b in taken for key, text in zip(b.keys, b.captions, strict=True)}
    assert set(seen) == {name.replace(".", "-") for name in USED}
    assert seen["cmyk-jpg"] == "B�r"
    assert seen["deep-png"] == ""
    assert seen["palette-png"] == LONG
    assert seen["sound-png"] == "a sound image"
    broken = {stem(key): reason for key, reason in source.report.broken.items()}
    assert set(broken) == {name.replace(".", "-") for name in REFUSED}
    assert {stem(key) for key in source.report.replaced_captions} == {"cmyk-jpg"}
    assert {stem(key) for key in source.report.empty_captions} == {"deep-png"}

    report = verify_data(tmp_path / "d").parts[""]
    assert {stem(key): reason for key, reason in report.broken.items()} == broken
    for name, (_, reason) in REFUSED.items():
        assert any(word in broken[name.replace(".", "-")] for word in reason.split("|")), name

    (shard,) = shard_data(tmp_path / "d", tmp_path / "shards")
    assert shard.rows == len(USED)
    assert {stem(key) for key in shard.broken} == set(broken)
    assert verify_data(tmp_path / "shards").parts[""].broken == {}


def test_too_many_faults_stop_with_their_names(tmp_path):
    as_folder(tmp_path / "d")
    source = open_source(tmp_path / "d", resolution=SIDE, data=DataConfig())
    with pytest.raises(CalotypeError, match=r"of 12 images are broken.*calotype data verify"):
        list(itertools.islice(make_batches(source), 6))


def make_batches(source, **options):
    settings = {"lowres_resolution": None, "batch_size": 4, "seed": 0, **options}
    config = settings.pop("config", DataConfig(cache_bytes=0))
    return batches(source, BatchPlan(resolution=SIDE, config=config, **settings), prefetch=0)


def test_a_cut_tar_is_trained_on_as_far_as_it_goes_and_verify_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    members = [(f"{n:03d}.png", encoded(noise(n))) for n in range(20)]
    path = tmp_path / "d" / "0.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    os.truncate(path, tar_end(path, "010.png") - 100)  # within the tenth image
    source = open_source(path.parent, resolution=SIDE, data=DataConfig())
    keys = {key for b in itertools.islice(make_batches(source), 8) for key in b.keys}
    assert keys == {f"0.tar/{n:03d}" for n in range(10)} - {"0.tar/010"}
    report = verify_data(path.parent).parts[""]
    assert "cut off" in report.bad_metadata["0.tar"]
    assert report.usable == 10


def tar_end(path, name):
    with tarfile.open(path) as tar:
        member = tar.getmember(name)
    return member.offset_data + member.size


def image_folder(root, count=10):
    root.mkdir()
    for number in range(count):
        noise(number).save(root / f"{number}.png")
        (root / f"{number}.txt").write_text(f"text {number}")
    return root


def test_images_cut_short_under_a_run_are_counted(tmp_path):
    root = image_folder(tmp_path / "d")
    source = open_source(root, resolution=SIDE, data=DataConfig())
    made = make_batches(source)
    next(made)
    for name in ("3.png", "4.png"):
        os.truncate(root / name, 200)
    later = {key for b in itertools.islice(made, 5, 12) for key in b.keys}
    assert not {"3.png", "4.png"} & later
    assert len(later) == 8
    assert set(source.report.broken) == {"3.png", "4.png"}


def test_captions_that_change_under_a_run_are_read_as_they_are_then(tmp_path):
    root = image_folder(tmp_path / "d")
    source = open_source(root, resolution=SIDE, data=DataConfig())
    made = make_batches(source)
    next(made)
    for number in range(10):
        (root / f"{number}.txt").write_text("another text")
    assert {text for b in itertools.islice(made, 5, 9) for text in b.captions} == {"another text"}


def parquet_folder(root):
    root.mkdir()
    rows = [encoded(noise(n)) for n in range(40)]
    table = pa.table({"image": rows, "text": [f"t{n}" for n in range(40)]})
    pq.write_table(table, root / "0.parquet", row_group_size=4)
    return root


def cut(file):
    os.truncate(file, file.stat().st_size // 3)


def another(file):
    rows = [encoded(noise(n + 100)) for n in range(40)]
    text = [f"other {n}" for n in range(40)]
    pq.write_table(pa.table({"image": rows, "text": text}), file, row_group_size=1)


def gone(file):
    file.unlink()


@pytest.mark.parametrize("change", [cut, another, gone])
def test_parquet_that_changes_under_a_run_is_never_mixed_up(tmp_path, change):
    """The old rows from an open file, or an error in one line; no crash, no other images."""
    root = parquet_folder(tmp_path / "d")
    source = open_source(root, resolution=SIDE, data=DataConfig())
    truth = {f"t{n}": np.asarray(noise(n)) for n in range(40)}
    made = make_batches(source)
    next(made)
    change(root / "0.parquet")
    try:
        for batch in itertools.islice(made, 12):
            for x, text in zip(batch.x, batch.captions, strict=True):
                pixels = ((x.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
                np.testing.assert_array_equal(pixels, truth[text])
    except CalotypeError as error:
        assert "\n" not in str(error)
        assert "0.parquet" in str(error) or "row group" in str(error)


def tar_folder(root):
    root.mkdir()
    rewrite_tar(root / "0.tar", 0)
    return root


def rewrite_tar(file, first):
    with tarfile.open(file, "w") as tar:
        for number in range(first, first + 40):
            data = encoded(noise(number))
            info = tarfile.TarInfo(f"{number:03d}.png")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("change", [cut, gone, lambda file: rewrite_tar(file, 100)])
def test_a_tar_that_changes_under_a_run_is_an_error(tmp_path, monkeypatch, change):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tar_folder(tmp_path / "d")
    made = make_batches(open_source(root, resolution=SIDE, data=DataConfig()))
    next(made)
    change(root / "0.tar")
    with pytest.raises(CalotypeError, match=r"0\.tar.*changed?.* under the run") as error:
        list(itertools.islice(made, 12))
    assert "\n" not in str(error.value)


def saved_folder(root):
    """As `datasets` saves it: Arrow streams, and a file that lists them."""
    root.mkdir()
    rows = [encoded(noise(n)) for n in range(40)]
    table = pa.table({"image": rows, "text": [f"t{n}" for n in range(40)]})
    with pa.ipc.new_stream(root / "data-0.arrow", table.schema) as stream:
        for batch in table.to_batches(max_chunksize=4):
            stream.write(batch)
    (root / "state.json").write_text('{"_data_files": [{"filename": "data-0.arrow"}]}')
    return root


@pytest.mark.parametrize("change", [cut, gone])
def test_a_saved_data_set_cut_under_a_run_is_an_error_and_no_crash(tmp_path, change):
    root = saved_folder(tmp_path / "d")
    made = make_batches(open_source(root, resolution=SIDE, data=DataConfig()))
    next(made)
    change(root / "data-0.arrow")
    with pytest.raises(CalotypeError, match=r"data-0\.arrow changed under the run"):
        list(itertools.islice(made, 12))


def test_a_whole_folder_that_vanishes_under_a_run(tmp_path):
    root = image_folder(tmp_path / "d")
    made = make_batches(open_source(root, resolution=SIDE, data=DataConfig()))
    next(made)
    shutil.rmtree(root)
    with pytest.raises(CalotypeError, match=r"images are broken.*cannot be read"):
        list(itertools.islice(made, 12))
