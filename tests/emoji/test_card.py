"""The command, end to end, on a tiny cascade and a tiny set."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from calotype.config.network import DraftConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.emoji.card import CardOptions, read_parts, renew_card
from calotype.emoji.editing_results import EditedWay, EditingResults, EditingTask
from calotype.emoji.gallery import read_gallery
from calotype.emoji.measure import Effort
from calotype.emoji.naming import Key
from calotype.emoji.report import stages_section
from calotype.emoji.suite import measure_group, sample_suite
from calotype.errors import UsageError
from calotype.evaluation.about import About, StageFile
from calotype.evaluation.results import CHECKED, Number, ReferenceNote, Results
from calotype.evaluation.samples import Manifest
from calotype.evaluation.samples.manifest import SuiteNote
from calotype.evaluation.sweep.axes import Axis
from calotype.evaluation.sweep.found import SweepCell, SweepResults, choose, write_sweep
from calotype.evaluation.sweep.plots import write_plots
from calotype.training.recipes import load_recipe

FAST = Effort(captions=3, images=2, steps=(1, 3))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.json").write_text(json.dumps(to_dict(load_recipe("tiny"))))
    line = {"images": 600, "stage": 8, "loss": 0.1234, "images_per_second": 100.0, "skipped": 0}
    (folder / "log.jsonl").write_text(json.dumps(line) + "\n")
    check = {"images": 600, "stage": 8, "validation": {"20": 0.25}, "trained": {"20": 0.125}}
    (folder / "validation.jsonl").write_text(json.dumps(check) + "\n")
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def number(metric, value, **facts):
    facts = {"count": 33, "higher_is_better": metric != "KID", "low": value / 2, "high": 1, **facts}
    return Number(metric=metric, value=value, **facts)


@pytest.fixture()
def evaluation():
    suite = SuiteNote(name="emoji-11", sha256="0" * 64, prompts=11)
    manifest = Manifest(
        name="tiny bars", suite=suite, count=33, each=3, seed=0, size=(32, 32), encoding="png",
        shards=(),
    )  # fmt: skip
    numbers = (
        number("KID", 0.25, features="lite0", side=32, seeds=(0.2, 0.25, 0.3)),
        number(CHECKED, 0.5, group="counting"),
    )
    return Results(
        samples=manifest, side=32, extractors=(), numbers=numbers, options={}, version="0",
        reference=ReferenceNote(name="emoji", fingerprint="", count=17),
        left_to_people={"misspellings": "people have to say"},
    )  # fmt: skip


@pytest.fixture()
def sweep(tmp_path, evaluation):
    """The folder of a sweep of two guidance weights, the second of which is better."""
    cells = tuple(
        SweepCell(
            values=("static", weight),
            stages=(SamplingConfig(),),
            numbers=(
                number("KID", kid, features="lite0"), number("CLIP score", 30, features="clip"),
                number("precision", 0.5), number("recall", 0.5),
            ),
        )
        for weight, kid in (("1", 0.5), ("2", 0.25))
    )  # fmt: skip
    axes = (Axis(8, "thresholding", ("static",)), Axis(8, "guidance_weight", ("1", "2")))
    found = SweepResults(
        first=evaluation, axes=axes, resolutions=(8,), cells=cells, chosen=choose(cells)
    )
    folder = tmp_path / "sweep"
    folder.mkdir()
    write_sweep(folder, found)
    write_plots(folder, found)
    return folder


@pytest.fixture()
def editing_file(tmp_path):
    ways = [
        EditedWay(name=name, calls=calls, psnr=19.5, found=3, seams=(1.25,), kept=4)
        for name, calls in (("before", 24), ("this cascade", 6))
    ]
    task = EditingTask(
        name="things hidden", images=4, resolutions=(8,), ways=tuple(ways), real=(1.0,)
    )
    path = tmp_path / "editing.json"
    path.write_text(json.dumps(to_dict(EditingResults(model="tiny bars", tasks=(task,)))))
    return path


def scored(folder, model, named):
    """A folder as `naming score` leaves it."""
    folder.mkdir()
    key = Key(model=model, group="unseen_pair", resolution=16, seed=0, images=())
    (folder / "key.json").write_text(json.dumps(to_dict(key)))
    (folder / "score.json").write_text(json.dumps({"named": named, "images": 32, "answers": []}))
    return folder


def test_writes_a_card_with_everything_in_it(
    cascade, data, run, tmp_path, evaluation, sweep, editing_file
):
    out = tmp_path / "card"
    named = [scored(tmp_path / "own", "tiny bars", 20), scored(tmp_path / "real", "real", 31)]
    parts = read_parts([run, *named, editing_file])
    options = CardOptions(data=data, machine="a machine", parts=parts, sweep=sweep, effort=FAST)
    assert renew_card(out, cascade, evaluation, options) == out / "README.md"
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0") and "# tiny bars" in card
    # Training: one stage's figures, the others said to be missing.
    assert "| 8² | `tiny` | 600 | 0.00 | 100.0 | 0.1234 | 0 |" in card
    assert card.count("| not available | not available |") >= 2
    assert "## Learning curves" in card and "0.1250 / 0.2500" in card
    # The suite: categories with a rule, and those that are left to people; each seed's number.
    assert "| counting | 50% | 25% – 100% | 33 |" in card
    assert "| misspellings | – |  |  | people have to say |" in card
    assert "| KID[lite0, N=33, 32px] | 0.2500 | 0.1250 – 1.000 | 0.2000, 0.2500, 0.3000 |" in card
    # Guidance: a chart, and the chosen cell in bold.
    assert "| **static** | **2** | 0.2500 | 0.5000 | 0.5000 | 30.000 |" in card
    assert "![CLIP score against KID](chart-kid-alignment.png)" in card
    Image.open(out / "chart-kid-alignment.png").verify()
    # Editing: before, beside.
    assert "| before | 24 | 19.50 dB | 3 of 4 | 1.25 | 4 of 4 |" in card
    # Naming: the model's beside the ceiling.
    assert "| unseen pairs | 16² | 20 of 32 | 31 of 32 |" in card
    # Failures stand before the sheets.
    assert card.index("## What it gets wrong") < card.index("## Sample sheets")
    # Data and attribution.
    assert "| noto | noto style | MIT | 10 | 8 | [Somebody](https://example.org/noto) |" in card
    assert "17 images of 9 concepts" in card
    assert "Somebody drew" in (out / "ATTRIBUTION.md").read_text()
    # Enlargement: bicubic, and 1, 2 (the default) and 3 steps of two stages.
    assert len(re.findall(r"^\| (16|32)² \| 2 \| (bicubic|1|2|3) \|", card, re.M)) == 8
    # Every sheet that is shown is there, and small.
    files = re.findall(r"\]\((sheet-[^)]*)\)", card)
    assert len(files) == 5 and "sheet-enlargement.jpg" in files
    for file in files:
        assert (out / file).stat().st_size < 1_500_000
        Image.open(out / file).verify()
    assert "nan" not in card and str(tmp_path) not in card


def test_parts_of_a_card_are_known_by_what_they_hold(tmp_path, run):
    assert read_parts([]).runs == () and read_parts([run]).runs == (run,)
    with pytest.raises(UsageError, match="for the card; expected the folder of a run"):
        read_parts([tmp_path])
    two = [scored(tmp_path / name, name, 3) for name in ("one", "two")]
    with pytest.raises(UsageError, match="naming sheets of the models"):
        read_parts(two)
    (tmp_path / "one" / "score.json").unlink()
    with pytest.raises(UsageError, match=r"without a readable score\.json"):
        read_parts(two[:1])
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="missing"):
        read_parts([tmp_path / "other.json"])


def test_says_how_a_base_with_a_draft_works(cascade):
    config = cascade.stages[0].config
    network = replace(
        config.network,
        text_pooling="whitened_mean",
        draft=DraftConfig(width=8, rank=5, resolution=8),
    )
    sampling = replace(config.sampling, grid="karras", start="draft", sigma_max=0.7)
    drafted = replace(config, network=network, sampling=sampling)
    text = stages_section(about_stage(drafted))
    assert "2 steps dpmpp_2m, guidance 1, from the draft at sigma/alpha 0.7 |" in text
    assert "an image of 8² that a regression makes of the caption, from 5 coefficients" in text
    assert "and sampling starts from it" in text
    from_noise = replace(drafted, sampling=config.sampling)
    text = stages_section(about_stage(from_noise))
    assert "conditioned on the draft" in text and "starts from it" not in text
    assert "draft" not in stages_section(about_stage(config))


def about_stage(config):
    return About(
        name="bars",
        text_encoder="bytes:16",
        stages=(StageFile(config, 1000, "0" * 64),),
        machine="",
        version="",
        sheets={},
        data_recipe={},
    )


def test_suite_looks_up_every_stage(cascade, data):
    from calotype.emoji.gallery import prompts_for

    gallery = read_gallery(data, 8)
    prompts = prompts_for(gallery).prompts[:3]
    drawn = sample_suite(cascade, gallery, prompts)
    again = cascade.sample([prompts[1].prompt], seeds=[1])
    for number, side in enumerate((8, 16, 32)):
        image = drawn.prompts[1].images[side]
        assert (image - again.images[number][0]).abs().mean() < 1e-3
        assert set(drawn.prompts[1].ranks) == {8, 16, 32}
    # The gallery is 8 wide: no real image is fine enough to compare sharpness with.
    assert drawn.contrasts == {}


def test_a_perfect_cascade_finds_everything(cascade, data, monkeypatch):
    from calotype.cascade import Cascade, CascadeSample

    gallery = read_gallery(data, 8)
    rows = gallery.sample("train", 6)

    def sample(self, captions, *, seeds, **options):
        reals = {row.caption: gallery.real(row.key) for row in gallery.rows}
        import torch

        return CascadeSample((torch.stack([reals[c] for c in captions]),), tuple(seeds))

    monkeypatch.setattr(Cascade, "sample", sample)
    result = measure_group(cascade, gallery, rows, name="trained")
    assert result.found == 6 and result.error == 0
    assert result.chance == pytest.approx(6 * 5 / (len(gallery.pool(rows[0]).concepts)), rel=0.2)
