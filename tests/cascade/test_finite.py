"""Numbers that are not finite are no image; numbers of the findings in docs/limits.md."""

import copy

import pytest
import torch

from calotype.cascade import Cascade, load_stage, save_stage
from calotype.conditioning import Conditioning, TextEmbedding
from calotype.config.sampling import SamplingConfig
from calotype.diffusion import PerSampleNoise, thresholding
from calotype.diffusion.parametrization import Estimate
from calotype.errors import NotFiniteError


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf, 1e30])
@pytest.mark.parametrize("percentile", [None, 0.9, 1.0])
@pytest.mark.parametrize("static", [True, False])
def test_12_an_estimate_that_is_no_number_stays_none(number, percentile, static):
    x = torch.linspace(-1, 1, 12).reshape(1, 3, 2, 2)
    x[0, 0, 0, 0] = number
    denoise = thresholding(percentile, static=static)(lambda z, logsnr: Estimate(x, None))
    assert not denoise(x, torch.zeros(1)).x_hat.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("percentile", [None, 0.995])
def test_12_a_network_that_overflows_names_its_stage(cascade, dtype, index, percentile):
    own = copy.deepcopy(cascade)
    stage = own.stages[index]
    with torch.no_grad():
        list(stage.parameters())[-2].fill_(3e38)  # finite, and a sum of some is not
    stage.compute_dtype = dtype
    sampling = {
        one.config.resolution: SamplingConfig(
            steps=1, sampler="ddim", threshold_percentile=percentile
        )
        for one in own.stages
    }
    resolution = stage.config.resolution
    with pytest.raises(NotFiniteError, match=f"the {resolution} stage sampled numbers that are"):
        own.sample(["a fox"], seeds=[0], sampling=sampling)
    if index > 0:
        lowres = torch.zeros(1, 3, resolution // 2, resolution // 2)
        with pytest.raises(NotFiniteError, match=f"the {resolution} stage"):
            own.upscale(lowres, [""], seeds=[0], sampling={resolution: sampling[resolution]})
    else:
        with pytest.raises(NotFiniteError, match=f"the {resolution} stage"):
            cond, noise = Conditioning(TextEmbedding.null(1, 16)), PerSampleNoise([0])
            stage.sample(cond, None, noise, size=(8, 8), sampling=sampling[8])


def test_12_embeddings_that_are_not_finite_name_the_encoder(cascade):
    own = copy.deepcopy(cascade)
    encoder = own.text_encoder

    class Broken:
        spec, embed_dim, fingerprint = "broken:1", encoder.embed_dim, "0" * 64

        def __call__(self, captions):
            made = encoder(captions)
            made.tokens[0, 0, 0] = torch.nan
            return made

    with pytest.raises(NotFiniteError, match="the text encoder 'broken:1' made numbers"):
        Cascade(Broken(), own.stages).sample(["a fox"], seeds=[0])


def test_17_a_compiled_network_is_saved_under_its_own_names(cascade, tmp_path):
    plain = cascade.stages[0]
    compiled = copy.deepcopy(plain)
    compiled.network = torch.compile(compiled.network, backend="eager")
    save_stage(compiled, tmp_path)
    again = load_stage(tmp_path).state_dict()
    assert again.keys() == plain.state_dict().keys()
    assert all(torch.equal(value, again[name]) for name, value in plain.state_dict().items())
