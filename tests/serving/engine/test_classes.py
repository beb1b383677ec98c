"""What an engine makes of requests for a class: of models with classes, and of others."""

from types import SimpleNamespace

import pytest
import torch

from calotype.cascade import Stage, save_cascade
from calotype.config.adm import AdmConfig, AdmLevel
from calotype.config.sampling import SamplingConfig
from calotype.config.stage import StageConfig
from calotype.errors import UsageError
from calotype.generation.loaded import load
from calotype.runtime import Runtime
from calotype.serving.engine.open import plan_request
from calotype.serving.engine.refusal import refusal
from calotype.serving.engine.shelf import Entry, Shelf, open_model
from calotype.serving.job import JobRequest

NAMES = ("fluent", "noto")


def stage(resolution: int, *, lowres: int | None = None, names=NAMES, null=True) -> Stage:
    torch.manual_seed(resolution)
    network = AdmConfig(
        levels=(AdmLevel(channels=8, blocks=1),),
        norm_groups=4,
        middle="none",
        classes=len(names),
        lowres=lowres is not None,
    )
    made = Stage(
        StageConfig(
            resolution=resolution,
            lowres_resolution=lowres,
            network=network,
            classes=names,
            null_class=null,
            sampling=SamplingConfig(steps=2, sampler="ddim", threshold_percentile=None),
        )
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def opened(folder, *stages: Stage):
    save_cascade(folder, stages=list(stages), text_encoder="none", name="styles")
    return open_model(Entry("styles", str(folder)), Runtime("cpu", "float32", 1))


@pytest.fixture(scope="module")
def styles(tmp_path_factory):
    model = opened(tmp_path_factory.mktemp("classes") / "styles", stage(16))
    return SimpleNamespace(model=model, loaded=load(model.job))


def test_images_of_several_classes_are_made_together_each_as_alone(make_bench, styles):
    assert styles.model.told()["classes"] == list(NAMES)
    bench = make_bench(styles.model, styles.loaded)
    asked = [{}, {"class": "noto"}, {"class": "fluent"}, {"class": "noto", "guidance": 2.0}]
    orders = [bench.start(number, one) for number, one in enumerate(asked)]
    bench.run()
    made = [bench.sink.made[order.id] for order in orders]
    assert [one.recipe.get("class") for one in made] == [None, "noto", "fluent", "noto"]
    assert len({one.pixels.tobytes() for one in made}) == 4
    for order, one in zip(orders, made, strict=True):
        alone, _ = bench.alone(order)
        assert abs(alone.pixels.astype(int) - one.pixels).max() <= 1


def test_the_front_is_told_which_stages_take_a_class_and_need_one(tmp_path):
    stages = (stage(8, null=False), stage(16, lowres=8), stage(32, lowres=16, names=()))
    told = opened(tmp_path / "chain", *stages).told()
    assert [one["class"] for one in told["stages"]] == ["required", "optional", None]


def test_a_last_stage_without_classes_goes_over_large_images_of_one(make_bench, tmp_path):
    model = opened(tmp_path / "chain", stage(8), stage(16, lowres=8, names=()))
    bench = make_bench(model, load(model.job))
    bench.start("large", {"class": "noto", "size": (40, 40)})
    bench.run()
    assert bench.sink.last_word("large") == "image", bench.sink.said("failed")
    assert bench.sink.made["large"].pixels.shape == (40, 40, 3)


def test_a_class_that_does_not_fit_is_refused_by_the_name_of_its_field(styles, tmp_path):
    plain = opened(tmp_path / "plain", stage(16, names=()))
    for model, name, message in (
        (styles.model, "nota", "expected one of its 2: 'fluent', 'noto'; did you mean 'noto'?"),
        (
            plain,
            "noto",
            "which has none; expected no class (sample and edit take one with classifier)",
        ),
    ):
        request = JobRequest(**{"class": name})
        with pytest.raises(UsageError) as raised:
            plan_request(Shelf([model]), request, None)
        told = refusal(Shelf([model]), request, None, raised.value)
        assert told["param"] == "class" and told["message"].endswith(message)
