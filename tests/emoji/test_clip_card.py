"""The card of an embedded CLIP."""

import pytest

from calotype.emoji import clip_card


@pytest.mark.parametrize("noisy", [False, True])
def test_a_card_has_the_sections_of_what_was_measured(noisy):
    text = clip_card._template(noisy=noisy, ranked=not noisy)
    assert ("## At every noise level" in text, "{levels}" in text) == (noisy, noisy)
    assert ("## The best of several" in text, "{chosen}" in text) == (not noisy, not noisy)
    assert "## Retrieval among {pool}" in text and text.endswith("\n")
