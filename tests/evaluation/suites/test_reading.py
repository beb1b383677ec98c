"""The users' files in the forms of the published suites, made small here, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from calotype.errors import UsageError
from calotype.evaluation.suites.reading import SKILLS, read_suite
from calotype.evaluation.suites.suite import Suite

SHARED = Path(__file__).parents[4] / "shared" / "prompts"


def _read(folder: Path, name: str, text: str | bytes) -> Suite:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_suite(path)


@pytest.mark.parametrize("column", ["Prompt", "Prompts"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_drawbench(tmp_path: Path, column: str, mark: str) -> None:
    text = f'{mark}{column},Category\r\na red cat.,Colors\r\n"a cat, two dogs",Counting\r\n'
    suite = _read(tmp_path, "drawbench.csv", text)
    assert suite.name == "drawbench"
    assert [(p.id, p.caption, p.category) for p in suite.prompts] == [
        ("00000", "a red cat.", "Colors"),
        ("00001", "a cat, two dogs", "Counting"),
    ]
    assert suite.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_partiprompts_quotation_marks_are_the_prompts(tmp_path: Path) -> None:
    text = (
        'Prompt\tCategory\tChallenge\tNote\n"PEACE" on a wall\tArts\tBasic\t\na cat\tAnimals\t\tn\n'
    )
    suite = _read(tmp_path, "parti.tsv", text)
    assert suite.captions == ('"PEACE" on a wall', "a cat")
    assert suite.categories == ("Arts", "Animals")
    assert [dict(p.facts) for p in suite.prompts] == [{"Challenge": "Basic"}, {"Note": "n"}]


def test_geneval_has_the_ids_of_its_folders(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"tag": "counting", "include": [{"class": "cow", "count": 2}], "prompt": "two cows"},
        {"tag": "colors", "include": [{"class": "bus", "color": "red"}], "prompt": "a red bus"},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    suite = _read(tmp_path, "evaluation_metadata.jsonl", text)
    assert suite.name == "geneval"
    assert [(p.id, p.caption, p.category) for p in suite.prompts] == [
        ("00000", "two cows", "counting"),
        ("00001", "a red bus", "colors"),
    ]
    assert suite.prompts[0].facts == {"include": [{"class": "cow", "count": 2}]}
    assert _read(tmp_path, "other.json", text).prompts == suite.prompts  # told by its contents
    assert _read(tmp_path, "other", text).prompts == suite.prompts


def test_compbench_file_and_folder(tmp_path: Path) -> None:
    assert _read(tmp_path, "color_val.txt", "a green bench\n\n a red car \n").categories == (
        "color_val",
    )
    (tmp_path / "color_train.txt").write_text("not measured\n")
    (tmp_path / "complex_val.txt").write_text("a green bench\r\n")
    suite = read_suite(tmp_path)
    assert [(p.id, p.caption, p.category) for p in suite.prompts] == [
        ("color_val-00000", "a green bench", "color_val"),
        ("color_val-00001", " a red car ", "color_val"),
        ("complex_val-00000", "a green bench", "complex_val"),
    ]
    assert suite.choices["files"] == ["color_val.txt", "complex_val.txt"]


def test_a_folders_hash_depends_on_every_file(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text("a cat\n")
    before = read_suite(tmp_path)
    assert before.categories == ("one", "two")
    (tmp_path / "two.txt").write_text("a dog\n")
    assert read_suite(tmp_path).sha256 != before.sha256


DSG = (
    "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
    "question_natural_language\n"
)


def test_dsg_keeps_its_questions(tmp_path: Path) -> None:
    rows = [
        'whoops_5,a purple cube,cube,1,0,entity,whole,entity - whole (cube),Is there a cube?',
        'vrd_2,"bench, trees",bench,1,0,entity,whole,entity - whole (bench),Is there a bench?',
        'whoops_5,a purple cube,"cube, purple",2,1,attribute,color,x,Is the cube purple?',
    ]  # fmt: skip
    suite = _read(tmp_path, "dsg.csv", DSG + "\n".join(rows) + "\n")
    assert [(p.id, p.caption, p.category) for p in suite.prompts] == [
        ("whoops_5", "a purple cube", "defying"),
        ("vrd_2", "bench, trees", "relation"),
    ]
    questions = suite.prompts[0].facts["questions"]
    assert [q["question_natural_language"] for q in questions] == [
        "Is there a cube?", "Is the cube purple?",
    ]  # fmt: skip
    assert [q["dependency"] for q in questions] == ["0", "1"]


def test_dsg_questions_of_two_captions_are_refused(tmp_path: Path) -> None:
    rows = "a_1,one,k,1,0,e,w,t,q?\na_1,another,k,2,0,e,w,t,q?\n"
    with pytest.raises(UsageError, match="different captions for the questions of 'a_1'"):
        _read(tmp_path, "dsg.csv", DSG + rows)


def test_tifa_keeps_its_questions(tmp_path: Path) -> None:
    question = {"question": "is this a cat?", "choices": ["yes", "no"], "answer": "yes"}
    entries = [
        {"id": "coco_7", "caption": "a cat", **question, "coco_val_id": "3"},
        {"id": "drawbench_1", "caption": "a dog", **question},
        {"id": "coco_7", "caption": "a cat", **question, "question": "what is it?"},
    ]
    suite = _read(tmp_path, "tifa.json", json.dumps(entries))
    assert [(p.id, p.caption, p.category) for p in suite.prompts] == [
        ("coco_7", "a cat", "coco"),
        ("drawbench_1", "a dog", "drawbench"),
    ]
    first = suite.prompts[0].facts["questions"]
    assert first[0] == {**question, "coco_val_id": "3"}
    assert first[1]["question"] == "what is it?"
    inputs = [{"id": "coco_7", "caption": "a cat", "coco_val_id": "3"}]
    assert _read(tmp_path, "inputs.json", json.dumps(inputs)).prompts[0].facts == {
        "coco_val_id": "3"
    }


def test_genai_bench_with_and_without_skills(tmp_path: Path) -> None:
    entries = {
        key: {"id": key, "prompt": f"prompt {key}", "models": {"A": [5, 4, 3]}}
        for key in ("00000", "00001", "00002")
    }
    alone = _read(tmp_path, "genai_image.json", json.dumps(entries))
    assert alone.name == "genai-bench"
    assert alone.prompts[1].facts == {"models": {"A": [5, 4, 3]}}
    (tmp_path / SKILLS).write_text(json.dumps({"basic": [0], "advanced": [2], "counting": [2]}))
    suite = read_suite(tmp_path / "genai_image.json")
    assert [p.category for p in suite.prompts] == ["basic", None, "advanced"]
    assert suite.prompts[2].facts["skills"] == ["advanced", "counting"]
    assert suite.sha256 != alone.sha256


def test_plain_text(tmp_path: Path) -> None:
    suite = _read(tmp_path, "mine.txt", "[1] a cat, a dog\n\na\u2028b\r\n<script>\n$x^2$\nقطة")
    assert suite.captions == ("[1] a cat, a dog", "a\u2028b", "<script>", "$x^2$", "قطة")
    assert suite.categories == ()
    assert [p.id for p in suite.prompts] == [f"{i:05d}" for i in range(5)]
    utf_16 = _read(tmp_path, "windows.txt", "a cat\r\nein Käse\r\n".encode("utf-16"))
    assert utf_16.captions == ("a cat", "ein Käse")


def test_equal_captions_are_kept_and_equal_ids_refused(tmp_path: Path) -> None:
    assert _read(tmp_path, "a.txt", "a cat\na cat\n").captions == ("a cat", "a cat")
    with pytest.raises(UsageError, match="2 prompts with the id 'x'"):
        _read(tmp_path, "b.csv", "id,prompt\nx,a\nx,b\n")


BAD: list[tuple[str, str | bytes, str]] = [
    ("empty.csv", "", "got the columns of no row"),
    ("header.csv", "Prompt,Category\n", "got the columns of no row"),
    ("other.csv", "Name,Category\na,b\n", "got the columns Name, Category; expected one of prompt"),
    ("comma.csv", "Prompt,Category\na cat, a dog,x\n", "line 2: got 3 fields; expected 2"),
    ("short.csv", "Prompt,Category\na cat\n", "line 2: got 1 fields; expected 2"),
    ("quote.csv", 'Prompt,Category\n"a cat,x\n', "after line 1: unexpected end of data"),
    ("huge.csv", f"Prompt,Category\n{'x' * 10_000_000},y\n", "field larger than field limit"),
    ("huge.txt", "x" * 10_000_000, "got 10,000,000 characters as caption"),
    ("huge.json", json.dumps(["x" * 10_000_000]), "got 10,000,000 characters as caption"),
    ("blank.txt", "\n \n", "has no prompts"),
    ("nul.txt", "a\0b\n", "got a NUL"),
    ("nul.csv", "Prompt\na\0b\n", "got a NUL"),
    ("half.json", '["a\\ud800b"]', "surrogate"),
    ("tag.json", '[{"prompt": "a", "tag": "b\\u0000"}]', "got a NUL"),
    ("images.json", '{"images": [], "annotations": [3]}', "entry 'images': got list"),
    ("latin.txt", b"ein K\xe4se\n", "is not UTF-8 text"),
    ("broken.json", "{", "not valid JSON"),
    ("deep.json", "[" * 200_000, "nested too deeply"),
    ("nan.json", '[{"prompt": "a", "score": NaN}]', "got NaN"),
    ("number.json", "3", "no list and no object"),
    ("numbers.json", "[3]", "entry 0: got int"),
    ("nothing.json", "[]", "has no prompts"),
    ("other.json", '[{"name": "a"}]', "got the fields name; expected text in one of prompt"),
    ("list.json", '[{"prompt": ["a"]}]', "got the fields prompt; expected text"),
    ("line.jsonl", '{"prompt": "a"}\n{"prompt"\n', "line 2 is not valid JSON"),
    ("anonymous.json", '[{"question": "q", "caption": "c"}]', "a question without an id"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "said"), BAD, ids=[name for name, _, _ in BAD])
def test_what_is_no_suite_is_refused_in_a_line(
    tmp_path: Path, name: str, text: str | bytes, said: str
) -> None:
    with pytest.raises(UsageError) as error:
        _read(tmp_path, name, text)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500


def test_missing_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_suite(tmp_path / "none.txt")
    with pytest.raises(UsageError, match="holds no text files"):
        read_suite(tmp_path)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201])
def test_names_that_no_page_could_show_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.txt").write_text("a cat\n")
    if name:
        with pytest.raises(UsageError, match="got a suite's name"):
            read_suite(tmp_path / "a.txt", name=name)
    else:
        assert read_suite(tmp_path / "a.txt", name=name).name == "a"
    assert read_suite(tmp_path / "a.txt", name="<script>$").name == "<script>$"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published suites are not here")
def test_the_published_drawbench_and_partiprompts() -> None:
    drawbench = read_suite(SHARED / "drawbench.csv")
    assert (len(drawbench.prompts), len(drawbench.categories)) == (200, 11)
    parti = read_suite(SHARED / "parti_prompts.tsv")
    assert (len(parti.prompts), len(parti.categories)) == (1632, 12)
    assert parti.prompts[0].facts["Challenge"] == "Basic"
