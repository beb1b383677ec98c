"""The pages: what a rater is told and what not, who is let in, what is refused, what survives."""

import re
import sqlite3
import threading

import pytest

pytest.importorskip("starlette")
from starlette.testclient import TestClient

from calotype.evaluation.rating.new import create_study
from calotype.evaluation.rating.raters import close, invite, new_token
from calotype.evaluation.rating.records import answers
from calotype.evaluation.rating.server.app import build_app
from calotype.evaluation.rating.server.context import Access, Context
from calotype.evaluation.rating.server.guard import MAX_BODY
from calotype.evaluation.rating.store import FILE, Store
from calotype.evaluation.rating.study import image_path
from calotype.evaluation.rating.wanted import Wanted

ORIGIN = "http://127.0.0.1:8000"


def browser(store, *, is_open=True, origin=ORIGIN, code=None):
    access = Access(origins=(origin,), is_open=is_open, completion_code=code)
    app = build_app(Context(store, store.path.parent, access))
    return TestClient(
        app, base_url=origin, headers={"origin": origin}, raise_server_exceptions=False
    )


def begin(store, **options):
    client = browser(store, **options)
    page = client.post("/consent", data={"agreed": "yes"})
    assert page.status_code == 200, page.text
    return client


def fields(page):
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', page.text))


def images(page):
    return re.findall(r'<img src="/image/([0-9a-f]{32})"', page.text)


def press(client, page, choice="0"):
    return client.post("/answer", data={**fields(page), "choice": choice})


def test_a_study_from_consent_to_the_code(make_store):
    store = make_store("drawbench", raters=1)
    client = browser(store)
    page = client.get("/")
    assert "take part" in page.text and "You see two sets of images" in page.text
    page = client.post("/consent", data={"agreed": "yes", "participant": "P7"})
    titles = []
    while "answers" in page.text and fields(page):
        titles.append(re.search("<h1>(.*?)</h1>", page.text)[1])
        page = press(client, page, "1")
    assert titles[:2] == [
        "Which set of images is of higher quality?",
        "Which set of images better represents the caption?",
    ]
    assert len(titles) == 7 * 2
    assert re.search(r'class="code">[0-9A-F]{10}<', page.text)
    assert {row.participant for row in answers(store)} == {"P7"}


def test_the_quality_page_has_no_caption_and_the_next_one_has(make_store):
    store = make_store("drawbench")
    client = begin(store)
    page = client.get("/")
    captions = {trial.caption for trial in store.study.trials}
    assert not any(caption in page.text for caption in captions)
    page = press(client, page)
    assert any(caption in page.text for caption in captions)


def test_nothing_but_pixels_tells_which_set_is_which(make_store):
    """Two raters see one trial with its sides swapped; all else is the same to the byte."""
    store = make_store("elo", raters=2)
    seen = {}
    for _ in range(2):
        client = begin(store)
        for _ in range(14):
            page = client.get("/")
            if not (names := images(page)):
                break
            facts = fields(page)
            blank = re.sub("|".join([*names, facts["signature"], r"\d+ of \d+"]), "*", page.text)
            blank = re.sub(r'(name="position"|<progress) value="\d+"', "*", blank)
            headers = {
                key: value
                for key, value in page.headers.items()
                if key not in ("content-length", "date")
            }
            seen.setdefault((facts["question"], *sorted(names)), {})[tuple(names)] = (
                blank,
                headers,
            )
            press(client, page)
    swapped = [both for both in seen.values() if len(both) == 2]
    assert len(swapped) >= 6
    for one, other in (both.values() for both in swapped):
        assert one == other
    folder = store.path.parent
    sent = {}
    for image in store.study.images:
        answer = client.get(f"/image/{image.name}")
        assert answer.content == image_path(folder, image.name).read_bytes()
        sent.setdefault(image.set, set()).add(
            tuple((k, v) for k, v in answer.headers.items() if k != "content-length")
        )
        assert not {"last-modified", "etag", "date", "server"} & set(answer.headers)
    assert sent["a"] == sent["b"] and len(sent["a"]) == 1


def test_pages_name_no_set_and_no_control(make_study, sets):
    folder, _ = make_study("elo")
    named = {"zebrawood": sets["a"], "quagga": sets["b"]}
    study = create_study(folder.with_name("named"), Wanted(protocol="elo", sets=named))
    store = Store(folder.with_name("named"), study)
    client = begin(store)
    for _ in range(14):
        page = client.get("/")
        assert not re.search("zebrawood|quagga|control|ruin|t0000|c0000", page.text)
        press(client, page)


def test_a_double_click_a_reload_and_two_tabs_count_once(make_store):
    store = make_store("elo")
    client = begin(store)
    page = client.get("/")
    other_tab = client.get("/")
    assert page.text == other_tab.text
    threads = [threading.Thread(target=press, args=(client, page, str(n % 3))) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert press(client, other_tab).status_code == 200
    assert len(answers(store)) == 1


def test_raters_go_on_where_they_stopped(make_store):
    store = make_store("elo")
    client = begin(store)
    page = press(client, client.get("/"))
    again = browser(store)
    again.cookies = client.cookies
    assert again.get("/").text == page.text


def test_two_studies_of_one_host_know_their_raters_apart(make_study, sets):
    folder, study = make_study("elo")
    other = create_study(
        folder.with_name("other"), Wanted(protocol="elo", sets={n: sets[n] for n in "ab"})
    )
    stores = Store(folder, study), Store(folder.with_name("other"), other)
    one, two = (begin(store) for store in stores)
    page = press(one, one.get("/"))
    for client in (one, two):  # cookies are a host's, whatever the port
        one.cookies.update(client.cookies)
        two.cookies.update(client.cookies)
    assert one.get("/").text == page.text
    press(two, two.get("/"))
    assert [len(answers(store)) for store in stores] == [1, 1]


def test_text_of_others_is_shown_and_not_obeyed(tmp_path, odd_sets):
    study = create_study(
        tmp_path / "odd",
        Wanted(protocol="elo", sets=odd_sets, title="<script>alert(1)</script>", consent="a<b>\0c"),
    )
    store = Store(tmp_path / "odd", study)
    client = browser(store)
    pages = [client.get("/").text]
    page = client.post("/consent", data={"agreed": "yes"})
    for _ in range(8):
        pages.append(page.text)
        page = press(client, page)
    client.get(f"/admin/enter/{new_token(store, 'admin')}")
    pages.append(client.get("/admin").text)
    text = "".join(pages)
    assert "<script>alert" not in text and "<b>" not in text and "\0" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $HOME" in text
    assert 'dir="auto">\u05d0\u05d1' in text  # right to left, on its own
    assert "a�b" in text  # what no page can show
    assert "&lt;i&gt;$(x)" in text  # a set's name, for the administrator alone


def test_headers_and_cookies(make_store):
    store = make_store("elo")
    client = browser(store)
    client.follow_redirects = False
    answer = client.post("/consent", data={"agreed": "yes"})
    cookie = answer.headers["set-cookie"].lower()
    assert answer.status_code == 303 and "httponly" in cookie and "samesite=lax" in cookie
    assert "secure" not in cookie
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?! src=)|style=|\bon\w+=", page.text)  # as the policy asks
    assert not re.search(r'(src|href|action)="(?!/)', page.text)  # nothing from elsewhere
    secure = browser(store, origin="https://rate.example.org")
    secure.follow_redirects = False
    answer = secure.post("/consent", data={"agreed": "yes"})
    assert "; secure" in answer.headers["set-cookie"].lower()


def test_foreign_hosts_origins_and_bodies_are_refused(make_store):
    store = make_store("elo")
    client = begin(store)
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    data = {**fields(client.get("/")), "choice": "0"}
    for origin in ("http://evil.example", "null", ""):
        answer = client.post("/answer", data=data, headers={"origin": origin})
        assert answer.status_code == 403
    assert client.post("/answer", content=b"x" * (MAX_BODY + 1)).status_code == 413
    stream = (b"x" * 1000 for _ in range(MAX_BODY // 1000 + 2))
    assert client.post("/answer", content=stream).status_code == 413
    assert client.request("DELETE", "/").status_code == 405
    assert client.get("/image/../study.json").status_code == 404
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/study.json").status_code == 404
    assert not answers(store)


@pytest.mark.parametrize(
    "change",
    [
        {"signature": "0" * 64},
        {"signature": ""},
        {"position": "-1"},
        {"position": "9" * 30},
        {"position": "²"},
        {"question": "alignment"},
        {"question": "\0"},
        {"choice": "3"},
        {"choice": ""},
        {"choice": "1e3"},
    ],
)
def test_forged_answers_are_refused_in_one_line(make_store, change):
    store = make_store("elo")
    client = begin(store)
    answer = client.post("/answer", data={**fields(client.get("/")), "choice": "0", **change})
    assert answer.status_code == 403 and "belongs to no page of yours" in answer.text
    assert not answers(store)


def test_another_raters_page_cannot_be_answered(make_store):
    store = make_store("elo")
    one, other = begin(store), begin(store)
    page = one.get("/")
    other.get("/")
    assert press(other, page).status_code == 403
    stranger = browser(store)
    assert press(stranger, page).status_code == 403
    assert stranger.get(f"/image/{images(page)[0]}").status_code == 404


def test_late_answers_are_refused(make_store):
    store = make_store("elo")
    client = begin(store)
    page = press(client, client.get("/"))
    close(store, "ended by hand")
    late = press(client, page)
    assert late.status_code == 410 and "has ended" in late.text and 'class="code"' in late.text
    assert len(answers(store)) == 1


def test_a_changed_image_or_study_is_not_shown(make_store):
    store = make_store("elo")
    client = begin(store)
    page = client.get("/")
    name = images(page)[0]
    path = image_path(store.path.parent, name)
    path.write_bytes(path.read_bytes()[:-1])
    for _ in range(2):
        assert client.get(f"/image/{name}").status_code == 409
        again = client.get("/")
        assert again.status_code == 409 and f"images/{name}.png" in again.text
        assert str(store.path.parent) not in again.text and not images(again)
        path.unlink(missing_ok=True)


def test_links_and_nothing_else_let_in(make_store):
    store = make_store("elo")
    client = browser(store, is_open=False)
    assert client.get("/").status_code == 403
    assert client.post("/consent", data={"agreed": "yes"}).status_code == 403
    assert client.get("/r/" + "0" * 32).status_code == 403
    (link,) = invite(store, 1)
    page = client.get(f"/r/{link.token}?pid=P%201")
    assert page.status_code == 200 and page.url.path == "/" and link.token not in str(page.url)
    page = client.post("/consent", data={"agreed": "yes", **fields(page)})
    press(client, page)
    assert [row.participant for row in answers(store)] == ["P 1"]


def test_one_link_for_many(make_store):
    store = make_store("elo")
    token = new_token(store, "join")
    page = browser(store, is_open=False).get(f"/join/{'0' * 32}")
    assert page.status_code == 403
    for expected in (200, 409):
        client = browser(store, is_open=False, code="C0DE")
        page = client.get(f"/join/{token}?pid=P1")
        page = client.post("/consent", data={"agreed": "yes", **fields(page)})
        assert page.status_code == expected
    assert "has come before" in page.text
    assert client.get("/join/x?pid=" + "y" * 300).status_code == 403
    assert client.get("/?pid=" + "y" * 300).status_code == 400


def test_the_administrator_sees_and_changes(make_store):
    store = make_store("elo")
    rater = begin(store)
    press(rater, rater.get("/"))
    for path in ("/admin", "/admin/answers.jsonl", "/admin/answers.csv"):
        assert rater.get(path).status_code == 403
    assert rater.post("/admin/close", data={"sure": "yes"}).status_code == 403
    token = new_token(store, "admin")
    client = browser(store)
    assert client.get("/admin/enter/" + "0" * 32).status_code == 403
    page = client.get(f"/admin/enter/{token}")
    assert page.url.path == "/admin" and token not in page.text
    name = answers(store)[0].rater
    assert name in page.text
    assert '"answer"' in client.get("/admin/answers.jsonl").text
    assert name in client.get("/admin/answers.csv").text
    page = client.post("/admin/invite", data={"count": "2"})
    links = re.findall(r"http://127.0.0.1:8000(/r/[0-9a-f]{32})", page.text)
    assert len(links) == 2 and browser(store, is_open=False).get(links[0]).status_code == 200
    for count in ("0", "501", "x", "9" * 50):
        assert client.post("/admin/invite", data={"count": count}).status_code == 400
    renewed = client.post("/admin/renew", data={"rater": name})
    assert re.search(r"/r/[0-9a-f]{32}", renewed.text)
    assert client.post("/admin/remove", data={"rater": name}).status_code == 400
    client.post("/admin/remove", data={"rater": name, "sure": "yes"})
    assert not answers(store)
    client.post("/admin/close", data={"sure": "yes"})
    assert store.fact("closed_because") == "ended by hand"


def test_a_rater_can_leave_with_all_they_said(make_store):
    store = make_store("elo")
    client = begin(store)
    press(client, client.get("/"))
    assert "cannot be undone" in client.get("/leave").text
    assert "are deleted" in client.post("/leave").text
    assert not answers(store)
    assert "take part" in client.get("/").text  # nobody is known


def test_a_locked_database_is_a_page_and_the_answer_can_be_sent_again(make_study):
    folder, study = make_study("elo")
    store = Store(folder, study, busy_seconds=0.05)
    client = begin(store)
    page = client.get("/")
    other = sqlite3.connect(folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answer = press(client, page)
    assert answer.status_code == 503 and "Nothing was kept" in answer.text
    assert answer.headers["retry-after"] == "5"
    other.rollback()
    other.close()
    assert press(client, page).status_code == 200
    assert len(answers(store)) == 1


def test_nothing_of_the_network_is_kept(make_store):
    store = make_store("elo")
    client = begin(store)
    press(client, client.get("/"))
    data = b"".join(path.read_bytes() for path in store.path.parent.glob(f"{FILE}*"))
    assert b"testclient" not in data and b"127.0.0.1" not in data
    (token,) = client.cookies.values()
    assert len(token) == 32 and token.encode() not in data
