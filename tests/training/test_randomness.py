import torch

from calotype.training.randomness import mixed_seed, seed_networks


def test_purposes_have_streams_of_their_own():
    seeds = {mixed_seed(s, p, name) for s in (0, 1) for p in (0, 1) for name in ("a", "b")}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    seed_networks(0, 5)
    a = torch.rand(3)
    seed_networks(0, 5)
    assert torch.equal(a, torch.rand(3))
