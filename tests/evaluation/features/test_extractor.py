"""Extractors by name: what each is called, and what they refuse."""

import pickle

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.features.extractor import ExtractorSpec, load_extractor


def test_unknown_names_and_lacking_weights_are_refused(tmp_path):
    with pytest.raises(UsageError, match="expected one of lite0, inception, clip"):
        load_extractor("vgg")
    for name in ("inception", "dinov2"):
        with pytest.raises(UsageError, match=f"got no weights for {name}"):
            load_extractor(name)
    with pytest.raises(UsageError, match="got CLIP"):
        load_extractor("clip", weights=tmp_path)


def test_a_spec_is_sent_and_loaded_once():
    spec = pickle.loads(pickle.dumps(ExtractorSpec("clip")))
    extractor = spec.load()
    assert ExtractorSpec("clip").load() is extractor
    images = torch.zeros(2, 3, 70, 90, dtype=torch.uint8)
    assert extractor(images).shape == (2, extractor.dimension)
