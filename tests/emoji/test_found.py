"""Samples of the emoji set's captions are looked up among its real images."""

from calotype.emoji.captions import GRAMMAR
from calotype.emoji.found import found_check
from calotype.emoji.gallery import read_gallery
from calotype.emoji.suite import look_up
from calotype.evaluation.retrieval import NEAREST
from calotype.evaluation.samples.real import real_suite


def test_real_images_are_found_and_others_are_not(data, monkeypatch):
    monkeypatch.setattr("calotype.emoji.eleven.references.SIDE", 32)  # as the tiny set has them
    check, gallery = found_check(data), read_gallery(data, 32)
    real = real_suite(data, 12, side=16, split=None, grammar=GRAMMAR)
    answers = []
    for prompt in real.suite.prompts:
        row = gallery.rows[gallery.places[prompt.id]]
        assert prompt.caption == row.caption
        images = real.images.pixels(range(12), 64)
        own = [check(image, prompt) for image in images]
        truth = [look_up(image / 127.5 - 1, gallery.pool(row), row) for image in images]
        assert own == [rank < NEAREST for rank in truth]
        assert own[real.images.names.index(prompt.id)]
        answers += own
    assert set(answers) == {True, False}


def test_other_data_have_no_such_check(images):
    assert found_check(images) is None
