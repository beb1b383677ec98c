import pytest
import torch

from calotype.cascade import (
    KnownPixels,
    Resampling,
    StageEdit,
    image_to_image,
    inpaint,
)
from calotype.diffusion import Estimate
from calotype.errors import UsageError


def test_keep_known_replaces_known_pixels_alone():
    known, mask = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[:, :, :2] = True

    def denoise(z, logsnr):
        return Estimate(z)

    z = torch.randn(2, 3, 4, 4)
    pixels = KnownPixels(known, mask, seamless=False)
    x_hat = pixels.keep(denoise)(z, torch.zeros(2)).x_hat
    assert torch.equal(x_hat[:, :, :2], known[:, :, :2])
    assert torch.equal(x_hat[:, :, 2:], z[:, :, 2:])


def test_what_is_made_meets_what_is_kept():
    """An estimate that is too bright by 0.3 is right again beside what is kept, and only there."""
    truth = torch.rand(1, 3, 12, 12)
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    mask[..., :4] = True
    keep = KnownPixels(truth, mask).keep
    x_hat = keep(lambda z, logsnr: Estimate(truth + 0.3))(truth, torch.zeros(1)).x_hat
    error = (x_hat - truth)[0, 0, 6]
    assert float(error[:4].abs().max()) == 0 and 0 <= float(error[4]) < 0.01
    assert float(error[4]) < float(error[5]) < float(error[6])
    torch.testing.assert_close(error[6:], torch.full((6,), 0.3))
    exact = keep(lambda z, logsnr: Estimate(truth))(truth, torch.zeros(1)).x_hat
    torch.testing.assert_close(exact, truth)


def test_edits_are_cut_with_their_batch():
    known = torch.arange(3.0).reshape(3, 1, 1, 1).expand(3, 3, 2, 2) / 4
    mask = torch.ones(3, 1, 2, 2, dtype=torch.bool)
    edit = StageEdit(start=known, known=KnownPixels(known, mask))
    part = edit.rows(slice(1, 2))
    assert torch.equal(part.start, known[1:2])
    assert torch.equal(part.known.image, known[1:2])


@pytest.mark.parametrize("repeats", [1, 2])
def test_inpaint_keeps_the_known_half_and_samples_the_other(cascade, repeats):
    image = cascade.sample(["a", "b", "c"], seeds=[1, 2, 3]).images[-1]
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., :16] = True
    calls = {"seeds": [7, 8, 9], "resampling": Resampling(jump=1, repeats=repeats)}
    result = inpaint(cascade, image, mask, ["d"] * 3, max_batch=2, **calls)
    final = result.images[-1]
    torch.testing.assert_close(final[..., :16], image[..., :16], atol=1e-5, rtol=0)
    assert (final[..., 16:] - image[..., 16:]).abs().mean() > 1e-2
    # The small stage knows what the image's averages are.
    small = torch.nn.functional.adaptive_avg_pool2d(image, 8)
    torch.testing.assert_close(result.images[0][..., :4], small[..., :4], atol=1e-5, rtol=0)


def test_resampling_walks_further(cascade):
    image, mask = torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    arguments = (cascade, image, mask, ["x"])
    once = inpaint(*arguments, seeds=[1], stop_at=8).images[0]
    twice = inpaint(*arguments, seeds=[1], stop_at=8, resampling=Resampling(2, 2)).images[0]
    assert not torch.equal(once, twice)


def test_an_edit_may_change_the_levels_that_are_walked(cascade):
    edit = StageEdit(regrid=lambda levels: torch.cat((levels[:1], levels[-1:])))
    previews = list(cascade.steps(["x"], seeds=[1], stop_at=8, edits={8: edit}))
    assert [(preview.steps, preview.state.index) for preview in previews] == [(1, 0), (1, 1)]


def test_image_to_image_stays_nearer_the_weaker_it_is(cascade):
    image = cascade.sample(["a fox"], seeds=[1]).images[-1]
    small = torch.nn.functional.adaptive_avg_pool2d(image, 8)
    distances = []
    for strength in (0.02, 0.5, 1.0):
        result = image_to_image(cascade, image, ["pizza"], strength=strength, seeds=[5])
        distances.append(float((result.images[0] - small).square().mean()))
    assert distances == sorted(distances)
    assert distances[0] < 0.1 * distances[2]


def test_wrong_edits_are_refused(cascade):
    image, mask = torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    with pytest.raises(UsageError, match="of bool"):
        inpaint(cascade, image, mask.float(), ["x"], seeds=[1])
    with pytest.raises(UsageError, match="of bool"):
        inpaint(cascade, image, mask[..., :8], ["x"], seeds=[1])
    with pytest.raises(UsageError, match="multiples"):
        inpaint(cascade, image[..., :31], mask[..., :31], ["x"], seeds=[1])
    with pytest.raises(UsageError, match="2 rows"):
        inpaint(
            cascade,
            image.expand(2, -1, -1, -1),
            mask.expand(2, -1, -1, -1),
            ["x"] * 3,
            seeds=[1, 2, 3],
        )
    with pytest.raises(UsageError, match="strength"):
        image_to_image(cascade, image, ["x"], strength=0, seeds=[1])
    with pytest.raises(UsageError, match="strength"):
        image_to_image(cascade, image, ["x"], strength=float("nan"), seeds=[1])
