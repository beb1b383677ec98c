"""Gradients of a step in parts are exchanged between processes once, not once a part."""

import dataclasses

import pytest
import torch
import torch.distributed as dist
from torch.distributed.fsdp._fully_shard import _fsdp_param_group

from calotype.data.batch import BatchPlan
from calotype.data.batches import batches
from calotype.data.open import open_source
from calotype.tasks.captions import build_encoder
from calotype.tasks.diffusion import DiffusionTask, new_stage
from calotype.training.distributed import Group
from calotype.training.parallel import DDP, FSDP
from calotype.training.state import TrainState
from calotype.training.step import train_step


@pytest.fixture
def group():
    """One process that talks to itself."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield Group()
    dist.destroy_process_group()


@pytest.fixture
def step(micro, images):
    """Take a step in so many parts."""
    config = micro(batch_size=8)
    source = open_source(images, resolution=8, data=config.data)
    plan = BatchPlan(resolution=8, lowres_resolution=None, config=config.data, batch_size=8, seed=0)
    made = batches(source, plan, prefetch=0)
    batch = next(made)
    made.close()
    encoder = build_encoder(config.text_encoder, 8)

    def take(wrap, parts):
        optimizer = dataclasses.replace(config.optimizer, accumulation=parts)
        parted = dataclasses.replace(config, optimizer=optimizer)
        task = DiffusionTask(parted, new_stage(parted, device="cpu", dtype=torch.float32), encoder)
        state = TrainState(task)
        state.parallel = wrap(state)
        return train_step(state, batch)

    return take


@pytest.mark.parametrize("parts", [1, 4])
def test_copies_exchange_gradients_once_a_step(group, step, parts):
    exchanged = []

    def hook(_, bucket):
        exchanged.append(bucket.index())
        done = torch.futures.Future()
        done.set_result(bucket.buffer())
        return done

    def wrap(state):
        copies = DDP(state.task, group)
        copies._loss.register_comm_hook(None, hook)
        return copies

    assert not step(wrap, parts).skipped
    assert exchanged and len(exchanged) == len(set(exchanged))  # every bucket once


def test_shards_exchange_gradients_once_a_step(group, step, monkeypatch):
    exchanged = []
    reduce = _fsdp_param_group.foreach_reduce

    def counted(*args, **options):
        exchanged.append(1)
        return reduce(*args, **options)

    monkeypatch.setattr(_fsdp_param_group, "foreach_reduce", counted)

    def wrap(state):
        shards = FSDP(state.task, state.ema.averaged(), group)
        state.optimizer = torch.optim.SGD(state.model.parameters())
        return shards

    counts = []
    for parts in (1, 4):
        exchanged.clear()
        assert not step(wrap, parts).skipped
        counts.append(len(exchanged))
    assert counts[0] == counts[1] > 0
