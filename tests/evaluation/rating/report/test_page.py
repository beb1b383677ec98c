import json
import re
import sys
from html.parser import HTMLParser
from types import MappingProxyType

import pytest

from calotype.errors import CalotypeError, MissingExtra
from calotype.evaluation.rating.judgements import ControlAnswer, Judgement
from calotype.evaluation.rating.report import write_report
from calotype.evaluation.rating.report.analysis import analyse
from calotype.evaluation.rating.report.page import json_of, render

HOSTILE = "</title><script>alert(1)</script><img src=x onerror=a> $x^2$ \u202eabc \x00\ud800 \"'"


class _Page(HTMLParser):
    """Tags, whether they are closed in order, and the text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open = [], "", []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] != "style":
            self.text += " ".join(data.split()) + " "


@pytest.fixture
def whole(study, judge):
    """A study with categories and two raters who failed."""
    judgements, controls = judge(12, 8, 0.7, failing=("r1", "r4"), category=("x", "y"))
    return study(judgements, controls=controls, planned=50, conditions={"re-ranking": "none"})


def test_two_files_say_the_same(whole, tmp_path):
    report = write_report(whole, tmp_path / "deep" / "report")
    assert {path.name for path in (tmp_path / "deep" / "report").iterdir()} == {
        "report.html",
        "report.json",
    }
    found = json.loads((tmp_path / "deep" / "report" / "report.json").read_text())
    assert found["format"] == 1 and found["study"]["planned"] == 50
    assert "judgements" not in found["study"] and found["left_out"] == ["r1", "r4"]
    rate = report.kept.preferences[0].rate
    assert found["kept"]["preferences"][0]["rate"]["low"] == rate.low
    assert found["everyone"]["preferences"][0]["rate"]["count"] == 96
    page = _Page((tmp_path / "deep" / "report" / "report.html").read_text())
    for said in (
        report.kept.verdicts[0].sentence,
        f"{100 * rate.low:.1f} to {100 * rate.high:.1f}",
        "2 of 12 raters failed more than 20 % of their control trials and are left out: "
        "r1 (2 of 2), r4 (2 of 2)",
        "80 / 50",
        "2 left out",
        "With all raters, those who failed the controls among them",
        "re-ranking none",
        "5a" * 32,
        "60 % needs 194 independent answers, one of 55 % 783",
    ):
        assert said in page.text
    assert page.tags.count("svg") == 2


@pytest.mark.slow
def test_it_is_the_same_each_time(whole):
    one, two = analyse(whole), analyse(whole)
    assert json_of(one) == json_of(two)
    pages = [re.sub("Written [^<]*", "", render(report)) for report in (one, two)]
    assert pages[0] == pages[1]


def test_that_all_raters_say_otherwise_is_said(study, judge):
    judgements, controls = judge(12, 8, 0.8, failing=("r1", "r2", "r3", "r4"))
    page = _Page(render(analyse(study(judgements, controls=controls, planned=50))))
    assert "With all raters it is otherwise: “quality”: no winner" in page.text


@pytest.mark.slow
def test_hostile_text_stays_text_and_nothing_is_fetched(study, judge):
    names = (HOSTILE, HOSTILE + "2", HOSTILE + "3")
    answers = [
        Judgement(HOSTILE + str(i), "t", HOSTILE, HOSTILE + str(i % 2), HOSTILE, *pair, 1.0)
        for i in range(3)
        for pair in (names[:2], names[1:])
    ]
    results = study(
        answers, name=HOSTILE, sets=names, protocol="elo", stopping_rule=HOSTILE,
        conditions=MappingProxyType({HOSTILE: HOSTILE}),
    )  # fmt: skip
    html = render(analyse(results))
    page = _Page(html)
    assert "script" not in page.tags and "img" not in page.tags
    assert "<script>alert(1)</script>" in page.text
    assert not re.search(r"https?://|@import|url\((?!#)", html) and "default-src 'none'" in html
    json.loads(json_of(analyse(results)))


def test_elo_and_captions_have_their_sections(study, rate):
    facts = {"protocol": "caption", "sets": ("model", "real"), "reference": "real"}
    page = _Page(render(analyse(study(ratings=rate(4, 3), planned=12, **facts))))
    assert (
        "Does the caption describe the image?" in page.text and "real is the reference" in page.text
    )
    assert page.tags.count("svg") == 2 and "model – real" in page.text
    answers = [
        Judgement("r", f"t{i}", f"p{i}", None, "better", *pair, 1.0)
        for i, pair in enumerate((("a", "b"), ("b", "c")))
    ]
    results = study(answers, protocol="elo", sets=("a", "b", "c"))
    page = _Page(render(analyse(results)))
    assert "Elo, “better”" in page.text and "Regularised (α = 0.1)" in page.text
    assert "One rater: no intervals" in page.text


def test_many_pairs_share_a_card_and_those_left_out_may_be_alone_with_one(study):
    sets = ("a", "b", "c", "d")
    pairs = [(first, second) for first in sets for second in sets if first < second]
    answers = [
        Judgement(rater, f"t{pair}", "p", None, "better", *pair, 1.0)
        for number, pair in enumerate(pairs)
        for rater in (("x",) if number == 0 else ("x", "y", "z"))
    ]
    controls = (ControlAnswer("x", "c", False),)
    results = study(answers, protocol="elo", sets=sets, planned=2, controls=controls)
    page = _Page(render(analyse(results)))
    assert "“better”: all pairs" in page.text and "In numbers: c against d" in page.text
    assert page.tags.count("svg") == 3 and "a against b" not in page.text


def test_an_empty_study_is_a_page(study, judge):
    page = _Page(render(analyse(study())))
    assert "No answers yet." in page.text and "svg" not in page.tags
    judgements, controls = judge(1, 2, 0.5, failing=("r0",))
    page = _Page(render(analyse(study(judgements, controls=controls))))
    assert "No answers yet but of raters who failed the controls." in page.text
    json.loads(json_of(analyse(study(judgements, controls=controls))))


def test_one_answer_is_a_page(study):
    answer = Judgement("r", "t", "p", None, "quality", "a", "b", 1.0)
    page = _Page(render(analyse(study([answer]))))
    assert "with 1 of 100 planned answers" in page.text and "2.5 to 100.0" in page.text


def test_a_place_that_cannot_be_written_is_one_line(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CalotypeError, match="cannot write"):
        write_report(study(), tmp_path / "file" / "report")


@pytest.mark.parametrize(
    ("package", "extra"), [("choix", "rate"), ("jinja2", "rate"), ("matplotlib", "evaluate")]
)
def test_a_missing_package_names_its_extra(monkeypatch, package, extra):
    rooms = ("calotype.evaluation.rating.", "calotype.pages.")
    for name in [name for name in sys.modules if name.startswith(rooms)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package}.*calotype\[{extra}\]"):
        __import__("calotype.evaluation.rating.report")
