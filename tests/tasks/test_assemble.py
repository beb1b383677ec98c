import pytest
import torch
from safetensors.torch import load_file

from calotype.cascade import Cascade
from calotype.config.recipe import Recipe
from calotype.errors import UsageError
from calotype.tasks.assemble import assemble
from calotype.training.recipes import load_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def runs(folder, train):
    """Each stage of `tiny` trained as a run of its own, for a batch."""
    paths = [folder / str(number) for number in range(3)]
    if not paths[0].exists():
        for stage, path in zip(load_recipe("tiny").stages, paths, strict=True):
            assert train(Recipe(name="part", stages=(stage,)), path, images=8) == 0
    return paths


def test_runs_in_any_order_become_a_cascade_of_their_averaged_weights(runs, tmp_path):
    out = assemble(runs[::-1], tmp_path / "cascade", name="joined", dtype=torch.float16)
    for run, side in zip(runs, (8, 16, 32), strict=True):
        joined = load_file(out / str(side) / "weights.safetensors")
        averaged = load_file(run / "checkpoints" / "8" / "ema.safetensors")
        assert joined.keys() == averaged.keys()
        for name, weight in averaged.items():
            assert torch.equal(joined[name].float(), weight.to(joined[name].dtype).float())
    images = Cascade.load(out).sample(["red left"], seeds=[3]).images
    assert tuple(images[-1].shape) == (1, 3, 32, 32)


def test_runs_that_do_not_fit_are_refused(runs, tmp_path, train):
    with pytest.raises(UsageError, match="two stages of 8 pixels"):
        assemble([runs[0], runs[0]], tmp_path / "a", name="a", dtype=torch.float32)
    with pytest.raises(UsageError, match="lowres_resolution=8"):
        assemble([runs[0], runs[2]], tmp_path / "b", name="b", dtype=torch.float32)
    with pytest.raises(UsageError, match="expected at least one"):
        assemble([], tmp_path / "c", name="c", dtype=torch.float32)
    assert list(tmp_path.iterdir()) == []
