"""Rows are taken as asked for, in runs and otherwise; tiles keep to blocks."""

import pytest
import torch

from calotype.errors import UsageError
from calotype.evaluation.metrics import rows
from calotype.evaluation.metrics.rows import take, take_unit, tiles


@pytest.mark.parametrize("chosen", [[2, 3, 4], [4], [5, 1, 7], [2, 4, 3, 5], [0, 0]])
def test_rows_are_taken_as_asked_for(chosen):
    features = torch.arange(16.0).reshape(8, 2)
    found = take(features, torch.tensor(chosen))
    assert found.dtype == torch.float64
    assert found.tolist() == features[chosen].tolist()


def test_tiles_keep_to_blocks(monkeypatch):
    monkeypatch.setattr(rows, "AT_ONCE", 3)
    blocks = torch.tensor([1, 0, 1, 1, 0, 1])
    found = [(block, part.tolist()) for block, part in tiles(6, blocks)]
    assert found == [(0, [1, 4]), (1, [0, 2, 3]), (1, [5])]
    assert [part.tolist() for _, part in tiles(4)] == [[0, 1, 2], [3]]


def test_unit_rows():
    found = take_unit(torch.tensor([[3.0, 4], [0, 0], [0, 2]]), torch.tensor([0, 2]))
    assert found.tolist() == [[0.6, 0.8], [0, 1]]
    with pytest.raises(UsageError, match="row 1 of the embeddings is zero"):
        take_unit(torch.tensor([[3.0, 4], [0, 0]]), torch.tensor([0, 1]))
