"""Devices that are not here: a pretended one refuses float64 and to be mixed with the CPU.

It computes on the CPU, so that images must be those of the CPU.
"""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from calotype.cascade import Cascade
from calotype.cascade.prior import Prior
from calotype.conditioning import TextEmbedding
from calotype.config.prior import PriorConfig, PriorNetworkConfig
from calotype.config.sampling import SamplingConfig
from calotype.networks.text import WhitenedMeanPooling

PLACE = torch.device("mps", 0)


class Elsewhere(torch.Tensor):
    """A tensor that says it is on an MPS device; torch itself takes it for one of "meta"."""

    device = property(lambda self: PLACE)
    __torch_dispatch__ = None

    @staticmethod
    def __new__(cls, held):
        if held.dtype == torch.float64:
            raise TypeError("the MPS framework doesn't support float64")
        shown = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device="meta"
        )
        shown.held = held
        return shown


class PretendedDevice(TorchDispatchMode):
    """Sends what concerns the pretended device to the CPU, and refuses what it would refuse."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        there = any(isinstance(t, Elsewhere) for t in tensors)
        copies = func in (torch.ops.aten.copy_.default, torch.ops.aten._to_copy.default)
        here = any(not isinstance(t, Elsewhere) and t.ndim > 0 for t in tensors)
        if here and there and not copies:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device")
        if kwargs.get("device") is not None:
            there = torch.device(kwargs["device"]).type in ("mps", "meta")
            kwargs["device"] = torch.device("cpu")
        elif func is torch.ops.aten._local_scalar_dense.default:
            there = False
        held_args, held_kwargs = tree_map(_held, (args, kwargs))
        result = func(*held_args, **held_kwargs)
        if func is torch.ops.aten.copy_.default:
            return args[0]
        return tree_map(_shown, result) if there else result


def _held(value):
    return value.held if isinstance(value, Elsewhere) else value


def _shown(value):
    return Elsewhere(value) if isinstance(value, torch.Tensor) else value


def move(module):
    """`module.to("mps")`, which torch itself refuses."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    tensors[name] = Elsewhere(tensor.detach())
    return module


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(steps=2, sampler="dpmpp_2m", guidance_weight=2.0, grid="karras"),
        SamplingConfig(steps=2, sampler="heun", guidance_weight=2.0, guidance_interval=(0.1, 9.0)),
        SamplingConfig(steps=2, guidance_weight=2.0, oscillating_guidance=True, aug_level=0.2),
        SamplingConfig(steps=2, sampler="ddim", guidance_weight=2.0, guidance_rescale=0.5),
    ],
    ids=lambda sampling: sampling.sampler,
)
def test_samples_the_same_images(cascade, sampling):
    sampled = []
    for place in (lambda stage: stage, move):
        moved = Cascade("bytes:16", [place(deepcopy(stage)) for stage in cascade.stages[:2]])
        with PretendedDevice():
            base = replace(sampling, aug_level=0.0)  # which enlarges nothing
            sample = moved.sample(["ab", ""], seeds=[1, 2], sampling=[base, sampling])
        sampled.append(sample.images)
    for here, there in zip(*sampled, strict=True):
        torch.testing.assert_close(here, there, atol=1e-5, rtol=0)


def test_an_encoder_may_be_elsewhere(cascade, monkeypatch):
    class MovedEncoder:
        embed_dim, max_tokens, fingerprint = 16, 128, ""

        def __call__(self, captions):
            text = cascade.text_encoder(captions)
            return text.to(PLACE) if text.mask.any() else text

    monkeypatch.setattr("calotype.text.encoder.CAPTIONS_AT_ONCE", 1)
    sampled = []
    for encoder in ("bytes:16", MovedEncoder()):
        with PretendedDevice():
            both = Cascade(encoder, cascade.stages[:1]).sample(["ab", ""], seeds=[1, 2])
        sampled.append(both.images[0])
    assert torch.equal(*sampled)


def test_prior_samples_the_same_embeddings():
    network = PriorNetworkConfig(clip_dim=4, heads=2, head_dim=4, layers=1, context=3)
    prior = Prior(PriorConfig(network=network, steps=2)).eval()
    text = TextEmbedding(torch.randn(2, 4, 4), torch.ones(2, 4, dtype=torch.bool))
    sampled = []
    for place in (lambda module: module, move):
        moved = place(deepcopy(prior))
        with PretendedDevice():
            sampled.append(moved.complete(text, text.drop(torch.tensor([True, False])), [1, 2]))
    torch.testing.assert_close(sampled[0].tokens, sampled[1].tokens)


def test_statistics_of_captions_reach_it():
    mean, covariance = torch.randn(4), torch.eye(4)
    here, there = WhitenedMeanPooling(4), move(WhitenedMeanPooling(4))
    here.set_statistics(mean, covariance)
    with PretendedDevice():
        there.set_statistics(mean.to(PLACE), covariance.to(PLACE))
    assert torch.equal(here.whitening, there.whitening.held)
