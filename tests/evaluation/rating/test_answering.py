"""What a rater meets, in which order and on which sides; answers are kept once, or not at all."""

import sqlite3
import threading
from collections import Counter

import pytest

from calotype.errors import CalotypeError
from calotype.evaluation.rating.answering import (
    Closed,
    Given,
    Refused,
    current_turn,
    give,
)
from calotype.evaluation.rating.new import create_study
from calotype.evaluation.rating.protocols import FIRST, SAME, SECOND
from calotype.evaluation.rating.raters import (
    close,
    completion_code,
    consent,
    invite,
    join,
    rater_of,
    remove,
    renew,
)
from calotype.evaluation.rating.records import answers, as_csv, as_json_lines, read_results
from calotype.evaluation.rating.store import FILE, Store, Unavailable
from calotype.evaluation.rating.study import read_study
from calotype.evaluation.rating.wanted import Wanted


def newcomer(store, participant=None):
    rater = rater_of(store, join(store, participant).token)
    consent(store, rater)
    return rater


def given(turn, choice):
    return Given(turn.position, turn.question.name, choice, turn.signature)


def trial_of(store, rater, turn):
    with store.read() as connection:
        row = connection.execute(
            "SELECT trial FROM assignments WHERE rater = ? AND position = ?",
            (rater.id, turn.position),
        ).fetchone()
    return store.study.by_id[row[0]]


def best_choice(store, rater, turn, better="a"):
    """The button of somebody who prefers a set and passes the controls."""
    trial = trial_of(store, rater, turn)
    wanted = trial.control.right[0] if trial.control else FIRST
    is_first = trial.control is not None or trial.sides[0].set == better
    target = trial.sides[0] if (wanted == FIRST) == is_first else trial.sides[1]
    return 0 if turn.sides[0] == target else 2


def work_through(store, rater, choose=best_choice):
    """The trial of each page until all is done, or the study ends."""
    met = []
    try:
        while (turn := current_turn(store, rater)) is not None:
            met.append(trial_of(store, rater, turn))
            give(store, rater, given(turn, choose(store, rater, turn)))
    except Closed:
        pass
    return met


def test_quality_comes_first_and_without_the_caption(make_store):
    store = make_store("drawbench")
    rater = newcomer(store)
    first = current_turn(store, rater)
    assert (first.question.name, first.caption) == ("quality", None)
    assert current_turn(store, rater) == first  # a reload, another tab
    give(store, rater, given(first, 1))
    second = current_turn(store, rater)
    assert second.question.name == "alignment" and second.position == first.position
    assert second.caption == trial_of(store, rater, second).caption
    assert second.sides == first.sides


def test_sides_are_balanced_in_each_trial_and_for_each_rater(make_store):
    store = make_store("elo", "abc", raters=4)
    for _ in range(4):
        work_through(store, newcomer(store))
    rows = answers(store)
    by_trial, by_rater = Counter(), Counter()
    for row in rows:
        if row.question == "quality":
            by_trial[row.trial] += 1 if row.is_swapped else -1
            by_rater[row.rater] += 1 if row.is_swapped else -1
    real = [name for name in by_trial if name.startswith("t")]
    assert len(real) == 18 and all(by_trial[name] == 0 for name in real)
    assert all(abs(count) <= 3 for count in by_rater.values())


def test_the_order_is_each_raters_own_and_the_seeds(tmp_path, sets):
    def orders(name, seed):
        chosen = {key: sets[key] for key in "ab"}
        study = create_study(tmp_path / name, Wanted(protocol="elo", sets=chosen, seed=seed))
        store = Store(tmp_path / name, study)
        return [[t.id for t in work_through(store, newcomer(store))] for _ in range(2)]

    one, two = orders("one", 1), orders("again", 1)
    assert one == two and one[0] != one[1]
    assert orders("other", 2) != one


def test_the_least_answered_trial_is_next(make_store):
    store = make_store("elo", raters=3, per_rater=3)
    counts = Counter()
    for _ in range(6):
        counts.update(t.id for t in work_through(store, newcomer(store)) if t.control is None)
    # 3 raters x 6 trials x 2 questions, shared out evenly among raters who answer three each
    assert set(counts.values()) == {6}


def test_a_rater_meets_controls_and_everything_once(make_store, many_sets, tmp_path):
    study = create_study(tmp_path / "many", Wanted(protocol="elo", sets=many_sets, seed=3))
    store = Store(tmp_path / "many", study)
    places = []
    for _ in range(3):
        met = work_through(store, newcomer(store))[::2]  # two questions each
        assert len(met) == len({trial.id for trial in met}) == 30
        places.append([n for n, trial in enumerate(met) if trial.control])
    assert all(len(found) == 3 for found in places)
    assert all(n * 10 <= place < n * 10 + 10 for found in places for n, place in enumerate(found))
    assert len({tuple(found) for found in places}) > 1  # where cannot be foreseen


def test_scores_are_in_the_studys_order(make_study):
    folder, study = make_study("elo", raters=2)
    store = Store(folder, study)
    for better in "ab":
        work_through(
            store, newcomer(store), lambda s, r, t, better=better: best_choice(s, r, t, better)
        )
    results = read_results(folder)
    assert (results.sets, results.planned, results.closed) == (("a", "b"), 12, True)
    by_rater = {}
    for one in results.judgements:
        assert (one.first, one.second) == ("a", "b")
        by_rater.setdefault(one.rater, set()).add(one.score)
    assert list(by_rater.values()) == [{1.0}, {0.0}]
    assert len(results.judgements) == 2 * 6 * 2
    assert len(results.controls) == 2 and all(one.passed for one in results.controls)


def test_indifference_and_caption_degrees_have_scores(make_study, sets):
    folder, study = make_study("caption", "a", raters=1)
    store = Store(folder, study)
    choices = iter([0, 1, 2] * 9)
    work_through(store, newcomer(store), lambda s, r, t: next(choices))
    results = read_results(folder)
    assert {one.score for one in results.ratings} <= {100.0, 50.0, 0.0}
    assert len(results.ratings) == 6 and not results.judgements


def test_a_ruined_copy_does_not_pass_as_equal_but_another_caption_may(make_store):
    store = make_store("elo", "abc")
    passed = {}
    for answer in (1, 0):
        rater = newcomer(store)
        work_through(store, rater, lambda s, r, t, answer=answer: answer)
        for row in answers(store):
            if row.rater == rater.id and row.passed is not None:
                passed[row.control, row.answer] = row.passed
    assert passed["ruined", SAME] is False and passed["caption", SAME] is True
    assert passed.get(("ruined", SECOND), False) is False
    assert passed.get(("ruined", FIRST), True) is True


def test_raters_who_fail_do_not_fill_the_plan(make_store):
    store = make_store("elo", raters=1)

    def worst(store, rater, turn):
        return 2 - best_choice(store, rater, turn)

    bad = newcomer(store)
    work_through(store, bad, worst)
    assert store.fact("closed_at") is None
    good = newcomer(store)
    work_through(store, good)
    assert store.fact("closed_because") == "complete"


def test_categories_get_as_many_raters(tmp_path, category_sets):
    study = create_study(
        tmp_path / "s", Wanted(protocol="drawbench", sets=category_sets, images=1, raters=2)
    )
    store = Store(tmp_path / "s", study)
    pools = Counter()
    for _ in range(4):
        met = work_through(store, newcomer(store))
        assert len({trial.pool for trial in met}) == 1  # one category, its controls included
        assert {trial.category for trial in met} == {met[0].pool}
        pools[met[0].pool] += 1
    assert pools == {"category 0": 2, "category 1": 2}
    assert store.fact("closed_because") == "complete"


def test_answers_count_once(make_store):
    store = make_store()
    rater = newcomer(store)
    turn = current_turn(store, rater)
    assert give(store, rater, given(turn, 0)) is True
    assert give(store, rater, given(turn, 2)) is False  # another tab, another mind: the first stays
    assert [row.answer for row in answers(store)] == [
        FIRST if turn.sides[0] == trial_of(store, rater, turn).sides[0] else SECOND
    ]


def test_forged_late_and_foreign_answers_are_refused(make_store):
    store = make_store()
    one, other = newcomer(store), newcomer(store)
    turn = current_turn(store, one)
    current_turn(store, other)
    for bad in (
        Given(turn.position, turn.question.name, 0, "0" * 64),
        Given(turn.position, turn.question.name, 0, ""),
        Given(turn.position, turn.question.name, 0, "é" * 64),
        Given(turn.position, "alignment", 0, turn.signature),
        Given(turn.position, turn.question.name, 3, turn.signature),
        Given(99, turn.question.name, 0, turn.signature),
    ):
        with pytest.raises(Refused):
            give(store, one, bad)
    with pytest.raises(Refused):
        give(store, other, given(turn, 0))
    close(store, "ended by hand")
    with pytest.raises(Closed, match="came late"):
        give(store, one, given(turn, 0))
    with pytest.raises(Closed):
        current_turn(store, one)
    assert not answers(store)


def test_the_plan_is_frozen_with_the_first_answer(make_study):
    folder, study = make_study("elo")
    store = Store(folder, study)
    rater = newcomer(store)
    current_turn(store, rater)
    text = (folder / "study.json").read_text()
    (folder / "study.json").write_text(text.replace("red apple", "red pear"))
    store = Store(folder, read_study(folder))  # nobody has answered yet
    turn = current_turn(store, rater)
    give(store, rater, given(turn, 0))
    (folder / "study.json").write_text(text)
    with pytest.raises(CalotypeError, match="changed after its first answer"):
        Store(folder, read_study(folder))
    with pytest.raises(CalotypeError, match="changed after its first answer"):
        read_results(folder)


def test_twenty_five_at_once_lose_nothing(make_store):
    store = make_store("drawbench", raters=25)
    raters = [rater_of(store, link.token) for link in invite(store, 25)]
    for rater in raters:
        consent(store, rater)
    errors, kept = [], []

    def work(rater):
        try:
            while (turn := current_turn(store, rater)) is not None:
                kept.append(give(store, rater, given(turn, best_choice(store, rater, turn))))
        except Closed:
            pass
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(rater,)) for rater in raters for _ in "12"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    rows = answers(store)
    # The study ends with the last judgement that was planned, perhaps before a control trial's.
    assert 25 * 7 * 2 - 2 <= len(rows) == sum(kept) <= 25 * 7 * 2
    assert len({(row.rater, row.trial, row.question) for row in rows}) == len(rows)
    by_trial = Counter((row.trial, row.is_swapped) for row in rows if row.question == "quality")
    assert all(abs(by_trial[name, True] - by_trial[name, False]) <= 1 for name, _ in by_trial)


def test_a_locked_or_full_database_is_one_line_and_half_writes_nothing(make_study):
    folder, study = make_study("elo")
    store = Store(folder, study, busy_seconds=0.05)
    rater = newcomer(store)
    turn = current_turn(store, rater)
    other = sqlite3.connect(folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="database is locked; make room, or end what locks it"):
        give(store, rater, given(turn, 0))
    other.rollback()
    (pages,) = other.execute("PRAGMA page_count").fetchone()
    other.close()
    connect = store._connect

    def full():
        connection = connect()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    store._connect = full
    with pytest.raises(Unavailable, match="full"):
        invite(store, 5000)
    store._connect = connect
    assert give(store, rater, given(turn, 0))
    assert len(answers(store)) == 1


def test_no_database_but_a_broken_file(make_study):
    folder, study = make_study("elo")
    (folder / FILE).write_bytes(b"nonsense" * 200)
    with pytest.raises(Unavailable, match="not a database; it is damaged: put a copy of it back"):
        Store(folder, study)


def test_tokens_are_kept_as_hashes_and_links_can_be_renewed(make_store):
    store = make_store()
    (link,) = invite(store, 1)
    assert len(link.token) == 32
    assert link.token.encode() not in store.path.read_bytes()
    fresh = renew(store, link.rater)
    assert rater_of(store, link.token) is None
    assert rater_of(store, fresh.token).id == link.rater
    assert renew(store, "nobody") is None


def test_answers_are_the_owners_alone(make_store):
    assert make_store().path.stat().st_mode & 0o077 == 0


def test_a_participant_comes_once(make_store):
    store = make_store()
    assert join(store, "P-1") is not None
    assert join(store, " P-1 ") is None
    for bad in ("x" * 129, "a\0b", "a\nb"):
        with pytest.raises(CalotypeError, match="participant id"):
            join(store, bad)


def test_who_leaves_takes_all_along(make_store):
    store = make_store()
    stays, leaves = newcomer(store), newcomer(store, "who")
    for rater in (stays, leaves):
        give(store, rater, given(current_turn(store, rater), 0))
    assert remove(store, leaves.id) and not remove(store, leaves.id)
    assert {row.rater for row in answers(store)} == {stays.id}
    with store.read() as connection:
        assert connection.execute("SELECT COUNT(*) FROM assignments").fetchone() == (1,)
    with pytest.raises(Refused):
        current_turn(store, leaves)


def test_exports(make_store):
    store = make_store()
    rater = newcomer(store, "=cmd|'x'")
    give(store, rater, given(current_turn(store, rater), 1))
    assert len(as_json_lines(store).splitlines()) == 2
    assert "'=cmd" in as_csv(store)
    assert len(completion_code(store, rater.id)) == 10
