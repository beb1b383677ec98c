import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from calotype.config.diffusion import PreservationConfig
from calotype.config.optimizer import OptimizerConfig
from calotype.config.recipe import Recipe
from calotype.data.batch import Batch
from calotype.data.open import open_source
from calotype.errors import CalotypeError, ConfigError
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.training.preparation import Job
from calotype.training.state import TrainState
from calotype.training.step import train_step
from calotype.training.stream import joined, shortened, training_batches

QUIET = {"grid_images": 0, "validation_images": 0}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """Three grey images."""
    folder = tmp_path_factory.mktemp("prior")
    for number in range(3):
        pixels = np.full((16, 16, 3), 100 + number, np.uint8)
        Image.fromarray(pixels).save(folder / f"grey-{number}.png")
        (folder / f"grey-{number}.txt").write_text(f"grey {number}")
    return folder


def _job(config, images, prior, *, position=0):
    open_one = {"resolution": config.stage.resolution, "data": config.data}
    state = TrainState(DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32)))
    state.images_seen = position
    kept = None if prior is None else open_source(prior, **open_one)
    return Job(state.task, open_source(images, **open_one), kept), state


def _take(job, count):
    stream = training_batches(*job)
    found = [next(stream) for _ in range(count)]
    stream.close()
    return found


def test_every_batch_holds_the_share_and_can_begin_anywhere(micro, images, prior):
    preservation = PreservationConfig(data=str(prior), fraction=0.3, weight=0.5)
    config = micro(batch_size=10, preservation=preservation)
    found = _take(_job(config, images, prior), 4)
    for number, batch in enumerate(found):
        old = torch.tensor([caption.startswith("grey") for caption in batch.captions])
        assert old.sum() == 3 and (batch.position, len(batch.x)) == (10 * number, 10)
        assert torch.equal(batch.weights, torch.where(old, 0.5, 1.0))
        assert ["grey" in key for key in batch.keys] == old.tolist()
        # Each image has its own caption: grey ones are about (100 / 127.5) - 1.
        assert ((batch.x.mean((1, 2, 3)) + 0.21).abs() < 0.03).equal(old)
        places = old.nonzero().flatten().diff()
        assert places.min() >= 3  # spread along the batch, as noise levels are
    assert {key for batch in found for key in batch.keys if "grey" in key} == {
        "grey-0.png",
        "grey-1.png",
        "grey-2.png",
    }
    for number in (1, 3):
        again = _take(_job(config, images, prior, position=10 * number), 1)[0]
        assert torch.equal(again.x, found[number].x) and again.keys == found[number].keys


def test_without_preservation_batches_are_as_ever(micro, images):
    (batch,) = _take(_job(micro(), images, None), 1)
    assert batch.weights is None and len(batch.x) == 4


def test_low_resolution_images_stay_with_theirs():
    def made(value, count):
        x = torch.full((count, 3, 4, 4), value)
        return Batch(
            x,
            x[..., :2, :2],
            ("c",) * count,
            ("k",) * count,
            0,
            first_captions=("f",) * count,
            concepts=("c",) * count,
        )

    batch = joined(made(1.0, 3), made(2.0, 2), weight=1.0, position=0)
    assert torch.equal(batch.x[:, 0, 0, 0], batch.lowres[:, 0, 0, 0])
    assert len(shortened(batch, 2).weights) == 2


def test_weights_multiply_the_loss(micro, images, prior):
    """Weight 0 leaves the gradient of the new images, scaled by their share."""
    moved = []
    network = micro().stage.network
    stage = dataclasses.replace(
        micro().stage, network=dataclasses.replace(network, dropout=0.0, text_pooling="attention")
    )
    config = micro(stage=stage, optimizer=OptimizerConfig(grad_clip_norm=None))
    x = torch.linspace(-1, 1, 4 * 3 * 64).reshape(4, 3, 8, 8)
    for weights in (None, torch.ones(4), torch.full((4,), 0.5), torch.tensor([1.0, 1, 0, 0])):
        config = dataclasses.replace(config, stage=_without_text(stage), text_encoder="none")
        state = TrainState(
            DiffusionTask(config, new_stage(config, device="cpu", dtype=torch.float32))
        )
        batch = Batch(x, None, ("",) * 4, ("k",) * 4, 0, weights)
        moved.append(train_step(state, batch))
    assert (moved[0].loss, moved[0].grad_norm) == (moved[1].loss, moved[1].grad_norm)
    assert moved[2].loss == pytest.approx(moved[0].loss / 2)
    assert moved[2].grad_norm == pytest.approx(moved[0].grad_norm / 2, rel=1e-4)
    assert 0 < moved[3].loss < moved[0].loss


def _without_text(stage):
    from calotype.config.network import LevelConfig, UNetConfig

    network = UNetConfig(levels=(LevelConfig(channels=8, blocks=1),), text_dim=0)
    return dataclasses.replace(stage, network=network)


def test_a_run_with_preservation(train, micro, prior, tmp_path):
    preservation = PreservationConfig(data=str(prior))
    config = micro(preservation=preservation, total_images=8, checkpoint_images=8, **QUIET)
    recipe = Recipe(name="kept", stages=(config,))
    assert train(recipe, tmp_path / "run") == 0
    # Other images to preserve are other data.
    longer = Recipe(name="kept", stages=(dataclasses.replace(config, total_images=16),))
    extra = prior / "more.png"
    Image.new("RGB", (16, 16)).save(extra)
    try:
        with pytest.raises(CalotypeError, match="--allow-inexact-resume"):
            train(longer, tmp_path / "run", resume=True, images=16)
    finally:
        extra.unlink()


def test_there_must_be_room_for_both(micro, prior):
    with pytest.raises(ConfigError, match="room for both"):
        micro(batch_size=1, preservation=PreservationConfig(data=str(prior)))
    for share in (0.0, 1.0, -1.0):
        with pytest.raises(ConfigError, match="fraction"):
            PreservationConfig(data="x", fraction=share)
