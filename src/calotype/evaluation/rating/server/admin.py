"""The administrator's pages: progress, raters, links, export, the end of the study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import UsageError
from calotype.evaluation.rating.answering import Refused
from calotype.evaluation.rating.design import fails
from calotype.evaluation.rating.raters import (
    Link,
    close,
    completion_code,
    invite,
    is_token,
    remove,
    renew,
)
from calotype.evaluation.rating.records import as_csv, as_json_lines
from calotype.evaluation.rating.server.context import ADMIN, Context, see_other
from calotype.evaluation.rating.store import fact

_MOST_INVITED = 500


@dataclass(frozen=True)
class RaterRow:
    """A rater in the administrator's table."""

    id: str
    participant: str | None
    pool: str | None
    answers: int
    controls: str
    is_failing: bool
    code: str


def enter(context: Context, request: Request) -> Response:
    """The administrator's link: the token moves into a cookie."""
    token = request.path_params["token"]
    if not is_token(context.store, "admin", token):
        text = "calotype rate serve prints the one that does."
        return context.message("This link does not work", text, status=403)
    response = see_other("/admin")
    context.let_in(response, ADMIN, token)
    return response


def overview(context: Context, request: Request) -> Response:
    """Progress and raters."""
    _check(context, request)
    return _page(context, [])


def change(context: Context, request: Request, form: Mapping[str, str]) -> Response:
    """Do what a button asks for."""
    _check(context, request)
    action, rater = request.path_params["action"], form.get("rater", "")
    if action == "invite":
        count = form.get("count", "")
        if not (count.isascii() and count.isdigit() and 1 <= int(count[:9]) <= _MOST_INVITED):
            raise UsageError(f"got {count[:20]!r} raters; expected 1 to {_MOST_INVITED}")
        return _page(context, invite(context.store, int(count)))
    if action == "renew":
        link = renew(context.store, rater)
        return _page(context, [] if link is None else [link])
    if form.get("sure") != "yes":
        raise UsageError("got no tick in the box beside the button; nothing was changed")
    if action == "remove":
        remove(context.store, rater)
    elif action == "close":
        close(context.store, "ended by hand")
    return see_other("/admin")


def export_json_lines(context: Context, request: Request) -> Response:
    """All answers as JSON lines."""
    _check(context, request)
    return _file(as_json_lines(context.store), "answers.jsonl", "application/jsonl")


def export_csv(context: Context, request: Request) -> Response:
    """All answers as a table."""
    _check(context, request)
    return _file(as_csv(context.store), "answers.csv", "text/csv")


def _check(context: Context, request: Request) -> None:
    if not context.is_admin(request):
        raise Refused("this page is the administrator's; open the link that the server printed")


def _file(text: str, name: str, kind: str) -> Response:
    headers = {
        "content-disposition": f'attachment; filename="{name}"',
        "cache-control": "no-store",
    }
    return Response(text.encode("utf-8", "replace"), media_type=kind, headers=headers)


def _page(context: Context, links: list[Link]) -> Response:
    origin = context.access.origins[0]
    shown = [(link.rater, f"{origin}/r/{link.token}") for link in links]
    return context.page("admin", links=shown, **_facts(context))


def _facts(context: Context) -> dict[str, Any]:
    study, store = context.study, context.store
    last = study.rules.questions[-1].name
    with store.read() as connection:
        rows = connection.execute(
            "SELECT r.id, r.participant, r.pool, COUNT(a.trial), COALESCE(SUM(a.passed), 0), "
            "COUNT(a.passed) FROM raters r LEFT JOIN answers a ON a.rater = r.id "
            "GROUP BY r.id ORDER BY r.number"
        ).fetchall()
        done = dict(
            connection.execute(
                "SELECT trial, COUNT(*) FROM answers WHERE question = ? GROUP BY trial", (last,)
            )
        )
        ended = {name: fact(connection, name) for name in ("closed_at", "closed_because")}
    raters = [
        RaterRow(
            id=name,
            participant=participant,
            pool=pool,
            answers=count,
            controls=f"{passed} of {asked}",
            is_failing=fails(passed, asked),
            code=context.access.completion_code or completion_code(store, name),
        )
        for name, participant, pool, count, passed, asked in rows
    ]
    pools: dict[str, list[int]] = {}
    for trial in study.real:
        pool = pools.setdefault(trial.pool, [0, 0])
        pool[0] += done.get(trial.id, 0)
        pool[1] += study.raters
    return {"raters": raters, "pools": pools, **ended}
