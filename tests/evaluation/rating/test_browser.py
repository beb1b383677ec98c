"""A whole study in Debian's Chromium, by keyboard on a phone; what axe finds; a killed server."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys

import pytest

from calotype.evaluation.rating.answering import Given, current_turn, give
from calotype.evaluation.rating.new import create_study
from calotype.evaluation.rating.raters import consent, join, rater_of
from calotype.evaluation.rating.records import answers, read_results
from calotype.evaluation.rating.report import write_report
from calotype.evaluation.rating.store import Store
from calotype.evaluation.rating.wanted import Wanted

pytestmark = pytest.mark.slow
SERVE = (sys.executable, "-m", "calotype", "rate", "serve")
PHONE = {"width": 360, "height": 740}
PREFERENCE, TIES = 0.65, 0.15


class Server:
    """`calotype rate serve` in a process of its own."""

    def __init__(self, folder, port=0, *options):
        command = [*SERVE, str(folder)]
        self.process = subprocess.Popen(
            [*command, "--port", str(port), *options], stdout=subprocess.PIPE, text=True
        )
        self.links = {}
        while "administrator" not in self.links:
            line = self.process.stdout.readline()
            assert line, "the server ended"
            who, _, link = line.strip().partition(": ")
            self.links[who] = link
        self.origin = re.match("http://[^/]+", self.links["administrator"])[0]
        self.port = int(self.origin.rpartition(":")[2])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=20)


class Rater:
    """Somebody simulated, who sees what the page shows and knows what the study is."""

    def __init__(self, study, number, *, fails_controls=False):
        self.random = random.Random(number)
        self.fails_controls = fails_controls
        self.trials = {self._names(trial.sides): trial for trial in study.trials}

    @staticmethod
    def _names(sides):
        return frozenset(name for side in sides for name in side.images)

    def key(self, shown):
        """Of the names of the images on the page, in its order: the key to press."""
        trial = self.trials[frozenset(shown)]
        is_first_a = shown[0] in trial.sides[0].images
        if trial.control is not None:
            wants_first = not self.fails_controls
        else:
            number = self.random.random()
            if number < TIES:
                return "2"
            wants_first = number < TIES + PREFERENCE - TIES / 2
        return "1" if wants_first == is_first_a else "3"


def shown(page):
    return page.eval_on_selector_all(
        ".images img", "all => all.map(one => one.getAttribute('src').split('/').pop())"
    )


def rate(page, rater, *, most=None):
    """Press keys until all is done; the number of pages."""
    count = 0
    while most is None or count < most:
        page.wait_for_load_state("load")
        names = shown(page)
        if not names:
            return count
        with page.expect_navigation():
            page.keyboard.press(rater.key(names))
        count += 1
    return count


def begin(browser, server, **options):
    context = browser.new_context(viewport=PHONE, **options)
    page = context.new_page()
    page.goto(server.links["raters"])
    page.keyboard.press("Tab")  # into the participant's id
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    return page


def test_a_whole_study_by_keyboard_on_a_phone(tmp_path, browser_sets, chromium):
    wanted = Wanted(protocol="drawbench", sets=browser_sets, images=2, raters=6, seed=1)
    folder = tmp_path / "study"
    study = create_study(folder, wanted)
    server = Server(folder)
    asked = []
    try:
        for number in range(8):
            page = begin(chromium, server)
            page.on("request", lambda request: asked.append(request.url))
            rater = Rater(study, number, fails_controls=number in (2, 5))
            if number == 4:
                rate(page, rater, most=7)
                server.kill()
                server = Server(folder, server.port)
                page.reload()
            rate(page, rater)
            assert "completion code" in page.content()
            page.context.close()
    finally:
        server.kill()
    assert asked and all(url.startswith(server.origin) for url in asked)
    results = read_results(folder)
    assert results.closed and len({one.rater for one in results.controls}) == 8
    for question in ("quality", "alignment"):
        assert sum(one.question == question for one in results.judgements) >= 6 * 18
    store = Store(folder, study)
    counts = {}
    for row in answers(store):
        key = (row.rater, row.trial, row.question)
        counts[key] = counts.get(key, 0) + 1
    assert set(counts.values()) == {1}  # the kill lost nothing and doubled nothing
    report = write_report(results, tmp_path / "report")
    failing = {row.rater for row in answers(store) if row.passed is False}
    assert len(failing) == 2 and set(report.left_out) == failing
    assert report.kept.raters == 6 and report.everyone.raters == 8
    for row in report.kept.preferences:
        if row.category is None:
            assert row.rate.low < PREFERENCE < row.rate.high
    assert [verdict.winner for verdict in report.kept.verdicts] == ["a", "a"]
    page = chromium.new_page()
    page.goto((tmp_path / "report" / "report.html").as_uri())
    assert "2 left out" in page.inner_text("body")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(tmp_path, browser_sets, chromium, axe, scheme):
    wanted = Wanted(protocol="drawbench", sets=browser_sets, images=2, raters=2)
    study = create_study(tmp_path / "study", wanted)
    server = Server(tmp_path / "study")
    found = {}

    def check(page, name):
        page.wait_for_load_state("load")
        page.evaluate(axe)
        result = page.evaluate("axe.run()")
        assert result["passes"]
        found[name] = [(one["id"], one["nodes"][0]["html"]) for one in result["violations"]]
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= page.viewport_size["width"], name  # nothing sticks out on a phone

    try:
        context = chromium.new_context(viewport=PHONE, color_scheme=scheme)
        page = context.new_page()
        page.goto(server.links["raters"])
        check(page, "consent")
        page = begin(chromium, server, color_scheme=scheme)
        check(page, "quality")
        page.click(".images a >> nth=0")
        check(page, "larger")
        page.keyboard.press("Escape")
        rate(page, rater := Rater(study, 1), most=1)
        check(page, "alignment")
        rate(page, rater)
        check(page, "done")
        page.goto(server.origin + "/leave")
        check(page, "leave")
        page.goto(server.origin + "/nothing")
        check(page, "message")
        page.goto(server.links["administrator"])
        page.fill("#count", "2")
        page.click("text=Make links")
        check(page, "administrator")
    finally:
        server.kill()
    assert len(found) == 8 and not any(found.values()), found


def test_pages_work_without_script(tmp_path, browser_sets, chromium):
    wanted = Wanted(protocol="drawbench", sets=browser_sets, images=2, raters=2)
    study = create_study(tmp_path / "study", wanted)
    server = Server(tmp_path / "study")
    try:
        page = chromium.new_context(viewport=PHONE, java_script_enabled=False).new_page()
        page.goto(server.links["raters"])
        page.check("[name=agreed]")
        page.click("text=Begin")
        for _ in range(4):
            page.click("text=I am indifferent")
    finally:
        server.kill()
    assert len(answers(Store(tmp_path / "study", study))) == 4


def test_an_acknowledged_answer_survives_kill_9(tmp_path, browser_sets):
    """The writer is killed in the moment it has said that an answer is kept."""
    study = create_study(tmp_path / "study", Wanted(protocol="elo", sets=browser_sets))
    store = Store(tmp_path / "study", study)
    rater = rater_of(store, join(store, None).token)
    consent(store, rater)
    for count in range(1, 6):
        turn = current_turn(store, rater)
        given = Given(turn.position, turn.question.name, 1, turn.signature)
        code = (
            "import os, signal, sys; from pathlib import Path\n"
            "from calotype.evaluation.rating import answering, raters, store, study\n"
            "folder = Path(sys.argv[1])\n"
            "kept = store.Store(folder, study.read_study(folder))\n"
            f"rater = store.Rater({rater.number}, {rater.id!r}, None, None, True)\n"
            f"answering.give(kept, rater, answering.{given!r})\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "study")])
        assert done.returncode == -signal.SIGKILL
        assert len(answers(store)) == count
    assert give(store, rater, given) is False


def test_the_server_ends_well_and_says_who_may_come_in(tmp_path, browser_sets):
    create_study(tmp_path / "study", Wanted(protocol="elo", sets=browser_sets))
    server = Server(tmp_path / "study", 0, "--tokens", "--invite", "2", "--common-link")
    assert "raters" not in server.links and len(server.links) == 4
    assert all(re.search(r"/[0-9a-f]{32}$", link) for link in server.links.values())
    second = subprocess.run(
        [*SERVE, str(tmp_path / "study"), "--port", str(server.port)],
        capture_output=True,
        text=True,
    )
    assert second.returncode == 1 and "cannot listen at 127.0.0.1" in second.stderr
    assert second.stderr.count("\n") == 1
    assert server.end() in (0, 130, -signal.SIGINT)
