"""Keys and sessions: shown once, kept as hashes, private, ended at once."""

from __future__ import annotations

import json
import re
import secrets
import stat

import pytest

from calotype.errors import CalotypeError, UsageError
from calotype.serving.front import keys as module
from calotype.serving.front.keys import FILE, Keys, Sessions, delete_key, list_keys, new_key
from calotype.serving.front.limits import MOST_SESSIONS, SESSION_SECONDS
from calotype.web.tokens import token_hash


def test_a_key_is_long_new_and_kept_as_its_hash_for_its_owner_alone(tmp_path):
    one, two = new_key(tmp_path / "data", "one"), new_key(tmp_path / "data", "two")
    path = tmp_path / "data" / FILE
    text = path.read_text()
    assert one != two and one.startswith("ct-") and len(one) >= 3 + 128 / 6
    assert one not in text and two not in text
    assert json.loads(text) == {"one": token_hash(one), "two": token_hash(two)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list_keys(tmp_path / "data") == ["one", "two"]


@pytest.mark.parametrize("name", ["", "a b", "../x", "a\n", "-x", "x" * 65, "é"])
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="name"):
        new_key(tmp_path, name)
    assert not list_keys(tmp_path)


def test_names_are_taken_once_and_only_known_ones_deleted(tmp_path):
    new_key(tmp_path, "one")
    before = (tmp_path / FILE).read_bytes()
    with pytest.raises(UsageError, match="exists"):
        new_key(tmp_path, "one")
    with pytest.raises(UsageError, match="one of the keys: one"):
        delete_key(tmp_path, "two")
    assert (tmp_path / FILE).read_bytes() == before


def test_a_running_server_knows_new_keys_and_forgets_deleted_ones(tmp_path):
    keys = Keys(tmp_path)
    assert not keys.needed and keys.name_of("") is None
    one = new_key(tmp_path, "one")
    assert keys.needed and keys.name_of(one) == "one"
    assert keys.name_of(one + "x") is None and keys.name_of(token_hash(one)) is None
    delete_key(tmp_path, "one")
    assert keys.name_of(one) is None
    assert keys.needed  # deleting the last key opens nothing


@pytest.mark.parametrize("text", ["", "[", "[]", '{"a": 1}', '{"a": "x"}', "[" * 100_000])
def test_a_damaged_file_opens_nothing(tmp_path, text):
    one = new_key(tmp_path, "one")
    keys = Keys(tmp_path)
    (tmp_path / FILE).write_text(text)
    assert keys.needed and keys.name_of(one) == "one"
    with pytest.raises(CalotypeError, match="make new keys") as caught:
        Keys(tmp_path)
    assert "\n" not in str(caught.value)


def test_every_key_is_compared_in_constant_time(tmp_path, monkeypatch):
    """As many comparisons whichever key it is, the first, the last or none."""
    made = [new_key(tmp_path, name) for name in ("one", "two", "three")]
    keys = Keys(tmp_path)
    compared = []

    def counting(left, right):
        compared.append((left, right))
        return secrets.compare_digest(left, right)

    monkeypatch.setattr(module, "compare_digest", counting)
    for key in (made[0], made[2], "wrong"):
        compared.clear()
        keys.name_of(key)
        assert [left for left, _ in compared] == [token_hash(one) for one in made]
        assert {right for _, right in compared} == {token_hash(key)}


def test_sessions_outlive_the_server_and_end_by_logout_time_and_key(tmp_path, monkeypatch):
    new_key(tmp_path, "one")
    keys = Keys(tmp_path)
    sessions = Sessions(tmp_path, keys)
    first, second = sessions.begin("one"), sessions.begin("one")
    text = (tmp_path / module.SESSIONS_FILE).read_text()
    assert first not in text and re.fullmatch(r"[\w-]{32}", first)
    assert stat.S_IMODE((tmp_path / module.SESSIONS_FILE).stat().st_mode) == 0o600
    again = Sessions(tmp_path, Keys(tmp_path))
    assert again.name_of(first) == again.name_of(second) == "one"
    assert again.name_of("") is None and again.name_of(token_hash(first)) is None
    again.end(first)
    assert again.name_of(first) is None and again.name_of(second) == "one"
    real = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: real() + SESSION_SECONDS + 1)
    assert again.name_of(second) is None
    monkeypatch.undo()
    delete_key(tmp_path, "one")
    new_key(tmp_path, "one")  # another of the same name revives nothing
    assert again.name_of(second) is None


def test_there_are_only_so_many_sessions(tmp_path, monkeypatch):
    new_key(tmp_path, "one")
    sessions = Sessions(tmp_path, Keys(tmp_path))
    monkeypatch.setattr(sessions, "_keep", lambda: None)
    ids = [sessions.begin("one") for _ in range(MOST_SESSIONS + 1)]
    assert sessions.name_of(ids[0]) is None
    assert sessions.name_of(ids[1]) == sessions.name_of(ids[-1]) == "one"


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', '{"a": {"key": []}}', "[" * 100_000])
def test_damaged_sessions_are_none(tmp_path, text):
    (tmp_path / module.SESSIONS_FILE).write_text(text)
    assert Sessions(tmp_path, Keys(tmp_path)).name_of("a") is None
