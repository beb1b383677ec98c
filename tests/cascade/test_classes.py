"""Cascades that are told classes: rows, guidance, what does not fit, files."""

from dataclasses import replace

import pytest
import torch

from calotype.cascade import Cascade, Stage, image_to_image
from calotype.cascade.edit import EditSettings, plan_edit
from calotype.cascade.results import drain
from calotype.config.adm import AdmConfig, AdmLevel, StatesText
from calotype.config.network import EfficientUNetConfig, LevelConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import ConfigError, UsageError

NAMES = ("fluent", "noto", "openmoji")
ONE_STEP = SamplingConfig(steps=1, sampler="ddim", threshold_percentile=None, static_clip=False)


def stage(resolution=8, *, null_class=True, names=NAMES, text=False, lowres=None) -> Stage:
    torch.manual_seed(resolution)
    network = AdmConfig(
        levels=(AdmLevel(channels=8, blocks=1), AdmLevel(channels=8, blocks=1)),
        norm_groups=4,
        middle="none",
        classes=len(names),
        lowres=lowres is not None,
        text_dim=16 if text else 0,
        text=StatesText(width=8, pool_heads=2) if text else None,
    )
    config = StageConfig(
        resolution=resolution,
        network=network,
        lowres_resolution=lowres,
        parametrization="v",
        classes=names,
        null_class=null_class,
        sampling=SamplingConfig(steps=2, sampler="ddim", threshold_percentile=None),
    )
    made = Stage(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def cascade(**options) -> Cascade:
    return Cascade(None, [stage(**options)], name="styles")


def image(made, seeds=(1,), captions=None, **options):
    captions = [""] * len(seeds) if captions is None else captions
    return made.sample(captions, seeds=seeds, **options).images[-1]


def estimate(made, weight=1.0, caption="", **options):
    """Of one step from noise, which is all that a sampler makes of it, not clipped."""
    sampling = [replace(ONE_STEP, guidance_weight=weight)]
    *_, last = made.steps([caption], seeds=[1], sampling=sampling, **options)
    return last.state.z


def test_each_image_is_of_its_class_alone_and_in_a_batch():
    made = cascade()
    both = image(made, (1, 1, 1), classes=["noto", None, "fluent"], max_batch=2)
    alone = [image(made, classes=[name]) for name in ("noto", None, "fluent")]
    torch.testing.assert_close(both, torch.cat(alone))
    torch.testing.assert_close(alone[1], image(made))  # nobody says
    assert min((alone[1] - alone[n]).abs().max() for n in (0, 2)) > 0.01


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_guidance_leads_away_from_the_null_class(weight):
    made = cascade()
    with_class, without = estimate(made, classes=["noto"]), estimate(made)
    expected = weight * with_class + (1 - weight) * without
    torch.testing.assert_close(estimate(made, weight, classes=["noto"]), expected)
    torch.testing.assert_close(estimate(made, weight), without)  # nothing to be led to


@pytest.mark.parametrize("null_class", [True, False])
def test_beside_text_both_are_null_or_the_caption_alone(null_class):
    made = Cascade("bytes:16", [stage(text=True, null_class=null_class)])
    told = {"classes": ["noto"]}
    both = estimate(made, caption="owl", **told)
    away = estimate(made, caption="cat", **({} if null_class else told))
    found = estimate(made, 2.0, caption="owl", negative_captions=["cat"], **told)
    torch.testing.assert_close(found, 2 * both - away)


def test_stages_with_classes_are_told_and_others_are_not():
    levels = (LevelConfig(channels=8, blocks=1),)
    plain = StageConfig(
        resolution=16,
        lowres_resolution=8,
        network=EfficientUNetConfig(levels=levels, text_dim=0),
        sampling=SamplingConfig(steps=1),
    )
    made = Cascade(None, [stage(), Stage(plain)])
    assert image(made, classes=["noto"]).shape == (1, 3, 16, 16)
    both = Cascade(None, [stage(), stage(16, lowres=8)])
    small = image(Cascade(None, [stage()]), classes=["noto"])
    told = both.upscale(small, [""], seeds=[1], classes=["noto"]).images[-1]
    torch.testing.assert_close(image(both, classes=["noto"]), told)
    assert (told - both.upscale(small, [""], seeds=[1]).images[-1]).abs().max() > 0.01
    with pytest.raises(ConfigError, match="expected the same names in all that have classes"):
        Cascade(None, [stage(), stage(16, lowres=8, names=("a", "b"))])


def test_edits_are_told_their_classes_and_inversions_too():
    made, start = cascade(), torch.rand(1, 3, 8, 8) - 0.5
    options = {"strength": 0.5, "seeds": [1]}
    told = image_to_image(made, start, [""], classes=["noto"], **options).images[-1]
    assert (told - image_to_image(made, start, [""], **options).images[-1]).abs().max() > 0.01
    settings = EditSettings(invert=True, refine=4, strength=0.5)
    sampling = [SamplingConfig(steps=20, sampler="ddim", threshold_percentile=None)]
    plan = plan_edit(made, start, settings, [""], seeds=[1], classes=["noto"], sampling=sampling)
    back = drain(made.generate(plan)).images[-1]  # the class's own noise gives the image back
    assert (back - start).abs().max() < 0.02


def test_what_nobody_trained_is_refused_in_one_line():
    made, bare = cascade(), cascade(null_class=False)
    with pytest.raises(UsageError, match=r"'notto', which .*its 3: 'fluent', .*; did you mean 'no"):
        made.plan([""], seeds=[1], classes=["notto"])
    with pytest.raises(UsageError, match=r"got no class for the 8 stage.*one of its 3: 'fluent'"):
        bare.plan(["", ""], seeds=[1, 2], classes=["noto", None])
    with pytest.raises(UsageError, match="got no class"):
        bare.plan([""], seeds=[1])
    with pytest.raises(UsageError, match="guidance 2 for the 8 stage, whose null class was not"):
        strong = replace(ONE_STEP, guidance_weight=2.0)
        bare.plan([""], seeds=[1], classes=["noto"], sampling=[strong])
    with pytest.raises(UsageError, match=r"takes no captions; expected none, .*--class NAME"):
        made.plan(["owl"], seeds=[1])
    with pytest.raises(UsageError, match="got 1 classes for 2 captions"):
        made.plan(["", ""], seeds=[1, 2], classes=["noto"])
    with pytest.raises(UsageError, match="got one text as classes"):
        made.plan([""], seeds=[1], classes="noto")
    with pytest.raises(UsageError, match="for a model without classes; expected none"):
        cascade(names=()).plan([""], seeds=[1], classes=["noto"])


def test_parts_of_a_plan_and_files_keep_the_names(tmp_path):
    made = cascade(null_class=False)
    plan = made.plan([""] * 3, seeds=range(3), classes=["noto", "fluent", "openmoji"])
    assert plan.rows(slice(1, 3)).classes == ("fluent", "openmoji")
    made.save(tmp_path / "model")
    again = Cascade.load(tmp_path / "model")
    assert again.config.classes == NAMES and not again.stages[0].config.null_class
    assert torch.equal(image(again, classes=["noto"]), image(made, classes=["noto"]))
