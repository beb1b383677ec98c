"""The raters' pages: coming in, agreeing, answering, being done, leaving."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from calotype.errors import UsageError
from calotype.evaluation.rating.answering import Closed, Given, Refused, current_turn, give
from calotype.evaluation.rating.raters import (
    checked_participant,
    consent,
    is_token,
    join,
    rater_of,
    remove,
)
from calotype.evaluation.rating.server.context import JOIN, RATER, Context, see_other
from calotype.evaluation.rating.store import Rater
from calotype.evaluation.rating.study import image_bytes

Form = Mapping[str, str]


def enter(context: Context, request: Request) -> Response:
    """A rater's own link: the token moves into a cookie, out of the address."""
    token = request.path_params["token"]
    if rater_of(context.store, token) is None:
        return context.message("This link does not work", "Ask for a new one.", status=403)
    response = see_other(_start(request))
    context.let_in(response, RATER, token)
    return response


def enter_in_common(context: Context, request: Request) -> Response:
    """The link that many raters come by, as from a market."""
    token = request.path_params["token"]
    if not is_token(context.store, "join", token):
        return context.message("This link does not work", "Ask for a new one.", status=403)
    response = see_other(_start(request))
    context.let_in(response, JOIN, token)
    return response


def start(context: Context, request: Request) -> Response:
    """The page a rater is on, whatever that is; all have one address, which says nothing."""
    rater = context.rater(request)
    if rater is None and not context.may_join(request):
        return context.message(
            "Open your own link", "This study is open to people with a link to it.", status=403
        )
    if rater is None or not rater.has_consented:
        participant = checked_participant(request.query_params.get("pid"))
        return context.page("consent", participant=participant)
    try:
        turn = current_turn(context.store, rater)
    except Closed:
        return _done(context, rater, is_closed=True)
    if turn is None:
        return _done(context, rater, is_closed=False)
    for side in turn.sides:  # nobody is asked about what cannot be shown
        for name in side.images:
            image_bytes(context.study, context.folder, name)
    return context.page("trial", turn=turn)


def agree(context: Context, request: Request, form: Form) -> Response:
    """Take somebody in who agreed."""
    rater = context.rater(request)
    participant = form.get("participant")
    if form.get("agreed") != "yes":
        raise UsageError("got no agreement; tick the box to take part")
    if rater is not None:
        consent(context.store, rater, participant)
        return see_other("/")
    if not context.may_join(request):
        raise Refused("got nobody's link; open your own")
    link = join(context.store, participant)
    if link is None:
        return context.message(
            "You have begun before",
            "This participant id has come before. Go on in the browser you began with.",
            status=409,
        )
    made = rater_of(context.store, link.token)
    assert made is not None
    consent(context.store, made)
    response = see_other("/")
    context.let_in(response, RATER, link.token)
    return response


def answer(context: Context, request: Request, form: Form) -> Response:
    """Keep an answer, then show what comes next."""
    rater = _known(context, request)
    choice = form.get("choice", "")
    position = form.get("position", "")
    if not all(text.isascii() and text.isdigit() and len(text) < 7 for text in (choice, position)):
        raise Refused("got an answer that belongs to no page of yours; open the study again")
    given = Given(int(position), form.get("question", ""), int(choice), form.get("signature", ""))
    try:
        give(context.store, rater, given)
    except Closed:
        return _done(context, rater, is_closed=True, status=410)
    return see_other("/")


def image(context: Context, request: Request) -> Response:
    """An image, unless it has changed; nothing tells when it was made."""
    name = request.path_params["name"]
    is_known = context.rater(request) is not None or context.is_admin(request)
    if name not in context.study.hashes or not is_known:
        return Response(status_code=404)
    data = image_bytes(context.study, context.folder, name)
    headers = {"cache-control": "private, max-age=86400, immutable"}
    return Response(data, media_type="image/png", headers=headers)


def ask_to_leave(context: Context, request: Request) -> Response:
    """Ask a rater whether all they said is to be deleted."""
    _known(context, request)
    return context.page("leave")


def leave(context: Context, request: Request, form: Form) -> Response:
    """Delete a rater's answers at their wish."""
    remove(context.store, _known(context, request).id)
    response = context.message(
        "Your answers are deleted", "Nothing of you is left in this study.", status=200
    )
    context.forget(response)
    return response


def _known(context: Context, request: Request) -> Rater:
    rater = context.rater(request)
    if rater is None or not rater.has_consented:
        raise Refused("got nobody's answer; open your own link and agree first")
    return rater


def _done(context: Context, rater: Rater, *, is_closed: bool, status: int = 200) -> Response:
    with context.store.read() as connection:
        (count,) = connection.execute(
            "SELECT COUNT(*) FROM answers WHERE rater = ?", (rater.id,)
        ).fetchone()
    code = context.code(rater) if count else None
    return context.page("done", status=status, code=code, is_closed=is_closed)


def _start(request: Request) -> str:
    participant = request.query_params.get("pid")
    return "/" if participant is None else f"/?{urlencode({'pid': participant})}"
