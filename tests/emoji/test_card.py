"""The command, end to end, on a tiny cascade and a tiny set."""

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from calotype.config.network import DraftConfig
from calotype.config.sampling import SamplingConfig
from calotype.config.typed_json import to_dict
from calotype.emoji.card import main
from calotype.emoji.editing_results import EditedWay, EditingResults, EditingTask
from calotype.emoji.gallery import read_gallery
from calotype.emoji.naming import Key
from calotype.emoji.report import stages_section
from calotype.emoji.suite import measure_group, sample_suite
from calotype.emoji.sweep_results import AxisResult, Cell, Sweep, choose
from calotype.evaluation.about import About, StageFile
from calotype.training.recipes import load_recipe

FAST = ["--captions", "3", "--sweep-captions", "2", "--guidance", "1", "2", "--images", "2"]
FAST += ["--steps", "1", "3"]


@pytest.fixture(scope="module")
def model(cascade, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    cascade.save(folder)
    return folder


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


@pytest.fixture()
def sweep_file(tmp_path):
    cells = [
        Cell(sampling=SamplingConfig(steps=steps), trained=0.01, unseen=steps / 100, kid=1 / steps)
        for steps in (4, 8)
    ]
    axis = AxisResult(
        resolution=8,
        setting="steps",
        trained=48,
        unseen=48,
        reference=1056,
        chosen=choose(cells),
        cells=tuple(cells),
    )
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(to_dict(Sweep(model="tiny bars", axes=(axis,)))))
    return path


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
    return str(folder)


def test_writes_a_card_with_everything_in_it(model, data, run, tmp_path, sweep_file, editing_file):
    out = tmp_path / "card"
    named = [scored(tmp_path / "own", "tiny bars", 20), scored(tmp_path / "real", "real", 31)]
    arguments = ["--model", str(model), "--data", str(data), "--out", str(out), "--threads", "1"]
    arguments += ["--settings", str(sweep_file), "--naming", *named]
    arguments += ["--editing", str(editing_file)]
    assert main([*arguments, "--runs", str(run), str(tmp_path / "none"), *FAST]) == 0
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0") and "# tiny bars" in card
    # Training: one stage's figures, the others said to be missing.
    assert "| 8² | `tiny` | 600 | 0.00 | 100.0 | 0.1234 | 0 |" in card
    assert card.count("| not available | not available |") >= 2
    assert "## Learning curves" in card and "0.1250 / 0.2500" in card
    # Settings: the tables of the sweep.
    assert "| **4** | 0.0100 | 0.0400 | 0.2500 |\n| 8 | 0.0100 | 0.0800 | 0.1250 |" in card
    assert "8²: N = 48 trained + 48 unseen pairs; KID to 1056 real images." in card
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


def test_quick_looks_at_the_base_alone(model, data, tmp_path, capsys):
    out = tmp_path / "quick"
    arguments = ["--model", str(model), "--data", str(data), "--out", str(out), "--quick"]
    assert main([*arguments, *FAST, "--threads", "1"]) == 0
    assert not (out / "README.md").exists()
    assert sorted(path.name for path in out.glob("*.jpg")) == [
        "sheet-8-trained-pair.jpg",
        "sheet-8-unseen-pair.jpg",
    ]
    printed = capsys.readouterr().out
    assert printed.strip() == (out / "quick.md").read_text().strip()
    assert re.search(r"unseen concepts \| \d of 2 \|", printed)


def test_errors_are_one_line(model, data, tmp_path, capsys):
    common = ["--out", str(tmp_path / "out")]
    assert main(["--model", str(model), "--data", str(tmp_path / "none"), *common]) == 2
    assert main(["--model", str(model), "--data", str(data), *common, "--captions", "0"]) == 2
    assert capsys.readouterr().err.count("error: got") == 2
    missing = ["--settings", str(tmp_path / "none.json")]
    assert main(["--model", str(model), "--data", str(data), *common, *missing]) == 2
    assert "cannot read" in capsys.readouterr().err
    folder = scored(tmp_path / "named", "real", 3)
    (tmp_path / "named" / "score.json").unlink()
    assert main(["--model", str(model), "--data", str(data), *common, "--naming", folder]) == 2
    assert "without a readable score.json" in capsys.readouterr().err


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
