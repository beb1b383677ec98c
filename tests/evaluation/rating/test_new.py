"""A study being made: who meets whom, blind images, controls, what is refused."""

import io
import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from calotype.errors import CalotypeError, UsageError
from calotype.evaluation.rating.blind import read_transform, ruined
from calotype.evaluation.rating.new import create_study
from calotype.evaluation.rating.sides import BestOf
from calotype.evaluation.rating.study import image_path, read_study, verify_images
from calotype.evaluation.rating.wanted import Wanted
from calotype.evaluation.samples import SampleSet, open_samples


def test_every_pair_of_every_prompt_meets_once(make_study):
    _, study = make_study("elo", "abc")
    met = Counter((trial.prompt, *(side.set for side in trial.sides)) for trial in study.real)
    assert len(met) == 6 * 3 and set(met.values()) == {1}
    assert study.planned == 5 * 6  # raters x prompts, of each pair


def test_realism_and_caption_take_the_reference(make_study, sets, tmp_path):
    _, study = make_study("realism", "ab", reference=sets["c"])
    assert {tuple(side.set for side in t.sides) for t in study.real} == {
        ("a", "reference"),
        ("b", "reference"),
    }
    rated = create_study(
        tmp_path / "rated", Wanted(protocol="caption", sets={"a": sets["a"]}, reference=sets["c"])
    )
    assert Counter(trial.sides[0].set for trial in rated.real) == {"a": 6, "reference": 6}


def test_images_are_alike_but_for_their_pixels(make_study, sets):
    folder, study = make_study("drawbench", "ab")
    source = open_samples(sets["a"])
    for image in study.images:
        data = image_path(folder, image.name).read_bytes()
        chunks, offset = [], 8
        while offset < len(data):
            length = int.from_bytes(data[offset : offset + 4], "big")
            chunks.append(data[offset + 4 : offset + 8])
            offset += length + 12
        assert set(chunks) == {b"IHDR", b"IDAT", b"IEND"}
        assert len(image.name) == 32  # 128 bits
        if image.set == "a" and not image.is_ruined:
            number = next(n for n, s in enumerate(source.samples) if s.key == image.key)
            expected = source.pixels([number])[0].permute(1, 2, 0).numpy()
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), expected)
    again = create_study(folder.with_name("again"), _wanted(sets))
    assert not {i.name for i in study.images} & {i.name for i in again.images}


def _wanted(sets, **options):
    chosen = {name: sets[name] for name in "ab"}
    return Wanted(protocol="drawbench", sets=chosen, images=2, **options)


def test_the_same_seed_makes_the_same_trials(tmp_path, sets):
    def shape(name, seed):
        study = create_study(tmp_path / name, _wanted(sets, seed=seed))
        facts = {image.name: (image.set, image.key) for image in study.images}
        return [
            (t.id, t.caption, t.control, [facts[i] for s in t.sides for i in s.images])
            for t in study.trials
        ]

    assert shape("one", 3) == shape("two", 3)


def test_one_in_ten_is_a_control_of_one_set(tmp_path, many_sets):
    wanted = Wanted(protocol="drawbench", sets=many_sets, images=1, seed=5)
    study = create_study(tmp_path / "s", wanted)
    controls = [trial for trial in study.trials if trial.control is not None]
    assert len(controls) == 3 and len(study.real) == 27
    kinds = Counter(trial.control.kind for trial in controls)
    assert set(kinds) == {"ruined", "caption"}
    for trial in controls:
        assert len({side.set for side in trial.sides}) == 1  # no set is judged by it
        assert trial.control.right[0] == "first"
    ruined_images = {image.name for image in study.images if image.is_ruined}
    for trial in controls:
        first, second = (set(side.images) for side in trial.sides)
        assert not first & ruined_images
        assert bool(second & ruined_images) == (trial.control.kind == "ruined")


def test_best_of_shows_what_the_scorer_likes(make_study, sets, tmp_path):
    samples = open_samples(sets["b"]).samples
    scores = tmp_path / "scores.jsonl"
    scores.write_text(
        "".join(json.dumps({"key": s.key, "score": float(s.index)}) + "\n" for s in samples)
    )
    best = {"b": BestOf(2, "indexer", scores)}
    _, study = make_study("elo", "ab", best_of=best)
    shown = {image.key for image in study.images if image.set == "b"}
    assert {s.index for s in samples if s.key in shown} == {1}
    assert study.condition == "re-ranked: b (best of 2 by indexer)"
    scores.write_text('{"key": "x", "score": 1}\n')
    with pytest.raises(UsageError, match="got no score of the sample"):
        create_study(tmp_path / "z", Wanted(protocol="elo", sets=sets, best_of=best))
    assert not (tmp_path / "z").exists()
    scores.write_text('{"key": "x", "score": NaN}\n')
    with pytest.raises(UsageError, match="got line 1"):
        create_study(tmp_path / "z", Wanted(protocol="elo", sets=sets, best_of=best))


def test_transforms_and_ruins_change_what_is_seen():
    rows = np.linspace(0, 255, 32, dtype=np.uint8)
    image = np.stack([np.add.outer(rows // 2, rows // 2)] * 3, axis=-1).astype(np.uint8)
    for name in ("jpeg:10", "blur:3", "shrink:4"):
        changed = read_transform(name)(image)
        assert changed.shape == image.shape and not np.array_equal(changed, image)
    broken = ruined(image, 1).astype(float)
    assert np.abs(broken - image).mean() > 30
    assert np.array_equal(ruined(image, 1), ruined(image, 1))
    with pytest.raises(UsageError, match="jpeg:QUALITY"):
        read_transform("jpeg:0")


def test_people_are_a_category(tmp_path, people_sets):
    wanted = Wanted(protocol="elo", sets=people_sets, split_people=True)
    study = create_study(tmp_path / "study", wanted)
    assert {trial.caption: trial.category for trial in study.real} == {
        "two Women and a dog": "with people",
        "a manhole": "without people",
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "x"}, "expected one of drawbench, realism, caption, elo"),
        ({"protocol": "drawbench", "sets": "abc"}, "got 3 sets; drawbench compares two"),
        ({"protocol": "realism"}, "got no --reference"),
        ({"protocol": "elo", "sets": "a"}, "got 1 sets"),
        ({"protocol": "drawbench", "images": 9}, "expected 9: generate more"),
        ({"protocol": "elo", "raters": 0}, "got 0 raters"),
        ({"protocol": "elo", "size": 4}, "expected 8 to 2048"),
        ({"protocol": "elo", "transforms": {"z": "blur:1"}}, "got the set 'z'"),
    ],
)
def test_what_does_not_fit_is_one_line_and_nothing_is_left(options, message, sets, tmp_path):
    names = options.pop("sets", "ab")
    wanted = Wanted(sets={name: sets[name] for name in names}, **options)
    with pytest.raises(UsageError, match=message):
        create_study(tmp_path / "out" / "study", wanted)
    assert not list(tmp_path.glob("out/*"))


def test_an_evaluation_and_a_folder_of_images_are_sets(sets, tmp_path):
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "samples").symlink_to(sets["a"].resolve())
    (tmp_path / "images").mkdir()
    first = open_samples(sets["a"])
    for number, sample in enumerate(first.samples):
        (tmp_path / "images" / f"{number:03d}.png").write_bytes(first.encoded(number))
        (tmp_path / "images" / f"{number:03d}.txt").write_text(sample.caption)
    captions = dict.fromkeys(sample.caption for sample in first.samples)
    ids = {sample.caption: sample.prompt for sample in first.samples}
    lines = [json.dumps({"id": ids[caption], "prompt": caption}) for caption in captions]
    (tmp_path / "suite.jsonl").write_text("\n".join(lines))
    folders = {"a": tmp_path / "e", "b": tmp_path / "images"}
    wanted = Wanted(protocol="elo", sets=folders, suite=tmp_path / "suite.jsonl")
    assert len(create_study(tmp_path / "study", wanted).real) == len(captions)
    for wrong in (tmp_path / "images", tmp_path / "none"):
        with pytest.raises(UsageError, match=r"no manifest\.json; expected one, or a folder"):
            wanted = Wanted(protocol="elo", sets={"a": sets["a"], "b": wrong})
            create_study(tmp_path / "other", wanted)


def test_nobody_is_asked_to_read_a_book(tmp_path, long_sets):
    with pytest.raises(UsageError, match="got a caption of 10,001 characters"):
        create_study(tmp_path / "study", Wanted(protocol="elo", sets=long_sets))
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("name", ["", " ", "a\0b", "x" * 101, "a\u202eb", "a\nb", "\ud800"])
def test_names_of_sets_can_be_shown(name, sets, tmp_path):
    wanted = Wanted(protocol="elo", sets={"a": sets["a"], name: sets["b"]})
    with pytest.raises(UsageError, match="expected 1 to 100 characters"):
        create_study(tmp_path / "study", wanted)


def test_a_broken_image_is_named(sets, tmp_path, monkeypatch):
    first = open_samples(sets["b"]).samples[0].key
    encoded = SampleSet.encoded

    def broken(self, number):
        data = encoded(self, number)
        return data[:40] if self.folder == sets["b"] and number == 0 else data

    monkeypatch.setattr(SampleSet, "encoded", broken)
    with pytest.raises(UsageError, match=f"the image '{first}' of the set 'b' cannot be read"):
        create_study(tmp_path / "study", _wanted(sets))
    assert not (tmp_path / "study").exists()


def test_a_folder_in_use_is_not_touched(tmp_path, sets):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists and is not empty"):
        create_study(tmp_path, _wanted(sets))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_changed_study_is_refused(make_study):
    folder, study = make_study("elo", "ab")
    assert read_study(folder) == study
    path = image_path(folder, study.images[0].name)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CalotypeError, match="has changed; put it back"):
        verify_images(study, folder)
    path.unlink()
    with pytest.raises(CalotypeError, match=r"cannot read .*; put it back"):
        verify_images(study, folder)
    text = (folder / "study.json").read_text()
    for broken in (
        "{",
        "[]",
        text.replace('"elo"', '"what"'),
        text.replace('"raters": 5', '"x":1'),
    ):
        (folder / "study.json").write_text(broken)
        with pytest.raises(UsageError, match=r"calotype rate new"):
            read_study(folder)
