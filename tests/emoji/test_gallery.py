"""The real images: compositing, pools by split and style, reading."""

import pytest
import torch

from calotype.emoji.gallery import (
    in_hash_order,
    keys_at,
    over_background,
    prompts_for,
    read_gallery,
    read_images,
    read_rows,
)
from calotype.emoji.suite import look_up
from calotype.errors import UsageError
from calotype.evaluation.retrieval import concept_rank, thumbnails


def test_over_background_closed_form():
    half = torch.tensor([0.5, 0.0, 0.0, 0.5]).reshape(4, 1, 1)  # red, half transparent
    assert over_background(half).flatten().tolist() == pytest.approx([1, 0, 0])
    assert over_background(half, (0, 0, 0)).flatten().tolist() == pytest.approx([0, -1, -1])


def test_reads_rows_and_pools_by_style_and_split(data):
    gallery = read_gallery(data, 16)
    assert len(gallery.rows) == 20 and gallery.images.shape == (20, 4, 16, 16)
    by_key = {row.key: row for row in gallery.rows}
    trained = gallery.pool(by_key["noto/red-bar"])
    assert len(trained.concepts) == 8  # of its style, without the held-out two
    assert "purple bar" in trained.concepts and "navy bar" not in trained.concepts
    for key in ("noto/navy-bar", "noto/olive-bar"):
        held_out = gallery.pool(by_key[key])
        assert len(held_out.concepts) == 10 and by_key[key].concept in held_out.concepts


def test_reads_rows_alone(data):
    rows = read_rows(data)
    assert tuple(rows) == read_gallery(data, 8).rows and rows[0].keywords
    assert in_hash_order(rows) == in_hash_order(reversed(rows)) != rows


@pytest.mark.parametrize("background", [None, (20, 40, 110)])
def test_real_images_are_found_over_any_colour(data, background):
    gallery = read_gallery(data, 16)
    for row in gallery.rows:
        real = gallery.real(row.key, background)
        assert look_up(real, gallery.pool(row, background), row) == 0


def test_the_background_decides_the_pool(data):
    gallery = read_gallery(data, 16)
    row = gallery.rows[gallery.places["noto/black-bar"]]
    on_black = gallery.real(row.key, (0, 0, 0))
    assert look_up(on_black, gallery.pool(row, (0, 0, 0)), row) == 0
    pool = gallery.pool(row)  # over white
    small = thumbnails(on_black[None])[0]
    distances = (pool.images - small).square().sum((1, 2, 3))
    assert distances.min() > 100  # looked up over white, nothing is near
    assert concept_rank(small, pool.images, pool.concepts, concept=row.concept) >= 0


def test_reads_some_images_and_only_as_fine_as_they_are(data):
    found = dict(read_images(data, {"noto/red-bar", "fluent/blue-bar", "no/such"}, 32))
    assert set(found) == {"noto/red-bar", "fluent/blue-bar"}
    red = found["noto/red-bar"]
    assert red.shape == (4, 32, 32) and red[:, 5, 8].tolist() == [1, 0, 0, 1]
    assert not red[:, 31, 31].any()
    # 32 pixels cannot stand in for 64
    assert not list(read_images(data, {"noto/red-bar"}, 64))
    assert keys_at(data, 64) == set() and len(keys_at(data, 32)) == 20


def test_prompts_of_other_data_are_chosen_from_it(data):
    suite = prompts_for(read_gallery(data, 8))
    assert not suite.installed
    assert {p.group for p in suite.prompts} == {"trained_pair", "unseen_pair"}


def test_says_what_is_missing(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        read_gallery(tmp_path / "nowhere", 8)
    with pytest.raises(UsageError, match="calotype data emoji"):
        read_gallery(tmp_path, 8)
    (tmp_path / "256").mkdir()
    (tmp_path / "256" / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(UsageError, match="make it again"):
        read_gallery(tmp_path, 8)
