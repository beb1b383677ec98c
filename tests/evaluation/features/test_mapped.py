from pathlib import Path

import numpy as np
import pytest
import torch

from calotype.evaluation.features.mapped import MappedRows
from calotype.evaluation.metrics.kernels import kid
from calotype.evaluation.metrics.manifold import manifold, reference_balls

SMAPS = Path("/proc/self/smaps")


def mapped(tensor, folder):
    """As rows of a file that is gone."""
    path = folder / "rows"
    with path.open("wb+") as file:
        file.write(tensor.numpy().tobytes())
        rows = MappedRows(file, tensor.shape[1])
    path.unlink()
    return rows


def test_rows_are_those_of_the_tensor(tmp_path):
    tensor = torch.randn(700, 5, generator=torch.Generator().manual_seed(0))
    rows = mapped(tensor, tmp_path)
    assert (len(rows), rows.shape, rows.ndim) == (700, tensor.shape, 2)
    some = torch.tensor([699, 3, 3, 0])
    for part in (slice(None), slice(10, 650), slice(690, 900), some, some[:0], tensor[:, 0] > 0):
        assert torch.equal(rows[part], tensor[part])
    with pytest.raises(IndexError):
        rows[torch.tensor([700])]


def test_what_is_read_is_a_copy(tmp_path):
    rows = mapped(torch.ones(4, 2), tmp_path)
    rows[:2].zero_()
    assert bool((rows[:] == 1).all())


def test_metrics_are_those_of_the_tensor(tmp_path):
    generator = torch.Generator().manual_seed(0)
    real, sampled = torch.randn(60, 8, generator=generator), torch.randn(50, 8, generator=generator)
    (tmp_path / "real").mkdir(), (tmp_path / "sampled").mkdir()
    files = mapped(real, tmp_path / "real"), mapped(sampled, tmp_path / "sampled")
    assert kid(*files) == kid(real, sampled)
    assert manifold(reference_balls(files[0]), files[1]) == manifold(reference_balls(real), sampled)


@pytest.mark.skipif(not SMAPS.exists(), reason="Linux says what of a map is in memory")
@pytest.mark.parametrize("scattered", [False, True])
def test_what_was_read_is_let_go(tmp_path, scattered):
    count, dimension = 8000, 1280  # 41 MB
    with (tmp_path / "rows").open("wb+") as file:
        for _ in range(count // 1000):
            file.write(np.zeros((1000, dimension), np.float32).data)
        rows = MappedRows(file, dimension)
    places = torch.arange(count)
    if scattered:
        places = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    for part in places.split(1024):
        rows[part] if scattered else rows[int(part[0]) : int(part[-1]) + 1]
        assert resident_kilobytes(tmp_path / "rows") < 1000


def resident_kilobytes(path):
    """Of what is mapped of a file."""
    lines = SMAPS.read_text().splitlines()
    (place,) = [number for number, line in enumerate(lines) if line.endswith(str(path))]
    return next(int(line.split()[1]) for line in lines[place:] if line.startswith("Rss:"))
