"""COCO-30K on annotations made here: which captions are chosen, and what is said of it."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest

from calotype.errors import UsageError
from calotype.evaluation.suites.coco import Coco, CocoChoices, is_coco_30k, read_coco
from calotype.evaluation.suites.coco_lists import save_list
from calotype.evaluation.suites.reading import read_suite

IMAGES = 300


def _annotations() -> dict[str, Any]:
    """Captions 3i, 3i + 1, 3i + 2 of image i; every fourth image shows a person in one of them."""
    images = [{"id": i, "file_name": f"COCO_val2014_{i:012d}.jpg"} for i in range(IMAGES)]
    words = ("a street", "the road", "asphalt")
    captions = [
        {"id": 3 * i + j, "image_id": i, "caption": f"{words[j]} number {i}\n"}
        for i in range(IMAGES)
        for j in range(3)
    ]
    for i in range(0, IMAGES, 4):
        captions[3 * i]["caption"] = f"A Man and his dog, number {i}"
    return {"images": images, "annotations": captions}


def _instances(path: Path) -> Path:
    people = [
        {"id": i, "image_id": 4 * i, "category_id": 1, "bbox": [0, 0, 1, 1]} for i in range(75)
    ]
    dogs = [{"id": 1000 + i, "image_id": i, "category_id": 18} for i in range(IMAGES)]
    data = {
        "images": _annotations()["images"],
        "annotations": people + dogs,
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    }
    path.write_text(json.dumps(data))
    return path


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(_annotations()))
    return path


def _hash(text: object) -> str:
    return hashlib.sha256(str(text).encode()).hexdigest()


def _ids(coco: Coco) -> list[str]:
    return [prompt.id for prompt in coco.suite.prompts]


def test_images_and_captions_are_the_first_by_hash(captions: Path) -> None:
    coco = read_coco(captions, CocoChoices(count=40))
    expected = sorted(range(IMAGES), key=_hash)[:40]
    assert _ids(coco) == [str(image) for image in expected]
    by_id = {one["id"]: one["caption"] for one in _annotations()["annotations"]}
    for prompt in coco.suite.prompts:
        image = int(prompt.id)
        caption = min(range(3 * image, 3 * image + 3), key=_hash)
        assert prompt.caption == by_id[caption].strip()
        assert prompt.facts == {
            "image": f"COCO_val2014_{image:012d}.jpg",
            "caption_id": str(caption),
        }
    assert len(coco.reference) == IMAGES  # the whole validation set
    assert coco.suite.name == "coco-40"
    assert coco.suite.choices == {
        "format": "COCO",
        "annotations": "captions_val2014.json",
        "images": "40 of 300, first by SHA-256 of the id",
        "captions": "one an image, first by SHA-256 of its id",
        "people": "kept",
        "reference": "300 images of captions_val2014.json",
        "crop": "centre square",
        "resize": "area average to 256 x 256",
    }


def test_the_order_of_the_file_does_not_matter(captions: Path, tmp_path: Path) -> None:
    data = _annotations()
    for part in data.values():
        random.Random(1).shuffle(part)
    shuffled = tmp_path / "shuffled.json"
    shuffled.write_text(json.dumps(data))
    one, other = (read_coco(path, CocoChoices(count=40)) for path in (captions, shuffled))
    assert one.suite.prompts == other.suite.prompts
    assert one.reference == other.reference


def test_fewer_than_30000_images_are_all_taken_once(captions: Path) -> None:
    assert read_suite(captions, name="mine").name == "mine"
    suite = read_suite(captions)
    assert suite.name == "coco-300"
    assert sorted(int(prompt.id) for prompt in suite.prompts) == list(range(IMAGES))


def test_what_papers_call_coco_30k(captions: Path) -> None:
    choices = read_suite(captions).choices
    assert is_coco_30k(choices, 30_000, real=IMAGES)
    assert not is_coco_30k(choices, 300, real=IMAGES)
    assert not is_coco_30k(choices, 30_000, real=IMAGES - 1)
    fewer = read_coco(captions, CocoChoices(without_people="words")).suite.choices
    assert not is_coco_30k(fewer, 30_000, real=IMAGES)
    train = {name: str(text).replace("val2014", "train2014") for name, text in choices.items()}
    assert not is_coco_30k(train, 30_000, real=IMAGES)
    assert not is_coco_30k({"format": "table"}, 30_000, real=IMAGES)


def test_without_people_by_instances(captions: Path, tmp_path: Path) -> None:
    choices = CocoChoices(count=50, without_people=_instances(tmp_path / "instances_val2014.json"))
    coco = read_coco(captions, choices)
    assert len(coco.reference) == 225
    expected = sorted((i for i in range(IMAGES) if i % 4), key=_hash)[:50]
    assert _ids(coco) == [str(image) for image in expected]
    assert coco.suite.name == "coco-50-without-people"
    assert "person in instances_val2014.json" in coco.suite.choices["people"]


def test_without_people_by_imagens_words(captions: Path) -> None:
    coco = read_coco(captions, CocoChoices(without_people="words"))
    assert not any("Man " in prompt.caption for prompt in coco.suite.prompts)
    everybody = read_coco(captions)
    named = [p for p in everybody.suite.prompts if p.caption.startswith("A Man")]
    assert 0 < len(named) < 75
    assert len(coco.suite.prompts) == IMAGES - len(named)
    assert "Imagen's words" in coco.suite.choices["people"]


def test_a_saved_list_gives_the_same_suite(captions: Path, tmp_path: Path) -> None:
    coco = read_coco(captions, CocoChoices(count=40))
    saved = tmp_path / "list.csv"
    save_list(coco.suite, saved)
    again = read_coco(captions, CocoChoices(listed=saved))
    assert [(p.id, p.caption) for p in again.suite.prompts] == [
        (p.id, p.caption) for p in coco.suite.prompts
    ]
    assert again.suite.choices["images"].startswith("40 of 300, as listed in list.csv (SHA-256")
    assert "as listed" in again.suite.choices["captions"]


@pytest.mark.parametrize(
    "text",
    [
        "7\n299\n12\n",
        "COCO_val2014_000000000007.jpg\n000000000299.jpg\n12\n",
        "image_id\n7\n299\n12\n",
    ],
)
def test_a_list_of_images_keeps_its_order(captions: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    coco = read_coco(captions, CocoChoices(listed=tmp_path / "list.txt"))
    assert _ids(coco) == ["7", "299", "12"]
    whole = {prompt.id: prompt for prompt in read_coco(captions).suite.prompts}
    assert list(coco.suite.prompts) == [whole[image] for image in ("7", "299", "12")]
    assert "SHA-256 of its id" in coco.suite.choices["captions"]


def test_a_list_of_captions_finds_their_images(captions: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("the road number 9\na street number 3\n")
    coco = read_coco(captions, CocoChoices(listed=tmp_path / "list.txt"))
    assert [(p.id, p.caption) for p in coco.suite.prompts] == [
        ("9", "the road number 9"),
        ("3", "a street number 3"),
    ]


def test_a_table_of_images_and_captions(captions: Path, tmp_path: Path) -> None:
    text = 'image_id,id,caption\n5,99,"their own, cleaned"\n8,98,another\n'
    (tmp_path / "list.csv").write_text(text)
    coco = read_coco(captions, CocoChoices(listed=tmp_path / "list.csv"))
    assert [(p.id, p.caption) for p in coco.suite.prompts] == [
        ("5", "their own, cleaned"),
        ("8", "another"),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no images"),
        ("7\n7\n", "got image 7 twice"),
        ("7\n5000\n", "1 images without captions in the annotations, the first is 5000"),
        ("a street number 3\na street number 3\n", "no image that is left has"),
        ("image_id,caption\nx,y\n", "got the image 'x'"),
        ('image_id,caption\n7,"y\n', "is no table"),
    ],
)
def test_impossible_lists_are_refused(captions: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_coco(captions, CocoChoices(listed=tmp_path / "list.txt"))


def test_impossible_choices_and_files_are_refused(captions: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected 1 to 300"):
        read_coco(captions, CocoChoices(count=301))
    with pytest.raises(UsageError, match="holds no instances"):
        read_coco(captions, CocoChoices(without_people=captions))
    other = tmp_path / "other.json"
    other.write_text(
        '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}'
    )
    with pytest.raises(UsageError, match="lacks images of the captions"):
        read_coco(captions, CocoChoices(without_people=other))
    with pytest.raises(UsageError, match="holds no captions of COCO"):
        read_coco(_instances(tmp_path / "instances.json"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data["images"].append(data["images"][0]), "301 images with 300 ids"),
        (lambda data: data["images"].pop(), "a caption of image 299"),
        (lambda data: data["annotations"][5].pop("id"), "no file of COCO's captions"),
        (lambda data: data["annotations"].append(3), "no file of COCO's captions"),
    ],
)
def test_damaged_annotations_are_refused(captions: Path, change: Any, said: str) -> None:
    data = _annotations()
    change(data)
    captions.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=said):
        read_suite(captions)
