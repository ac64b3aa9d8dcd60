"""`keshi status`, `keshi closure`."""

import json
from datetime import datetime
from typing import Annotated

import typer

from keshi.cli.errors import Failure
from keshi.cli.http import Api, parsed
from keshi.cli.output import heading, note, say, table
from keshi.cli.records import show_record
from keshi.client.commands import canonical_request_id
from keshi.orchestrator.query import MAX_PAGE
from keshi.orchestrator.views import ClosureView, RequestPage, RequestSummary, RequestView
from keshi.schemas.base import sha256
from keshi.schemas.requests import RequestState, TaskState, TaskStatus

_JSON = Annotated[bool, typer.Option("--json", help="Print what the API says, as JSON.")]
_MAX = 10_000


def request_id_of(text: str) -> str:
    """The canonical form of what was typed.

    Raises:
        Failure: it is no request id.
    """
    try:
        return canonical_request_id(text)
    except ValueError as e:
        raise Failure(str(e), 2) from None


def status(
    request: Annotated[str | None, typer.Argument(help="A request id. Without it: the latest requests.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Leave closed requests out.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=_MAX, help="How many requests to show.")] = 50,
    as_json: _JSON = False,
) -> None:
    """Show where requests stand; of one, also its tasks, what waits for a person, and what is left to do.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader, an operator or a decider).
    """
    with Api() as api:
        if request is not None:
            text = api.get(f"/v1/requests/{request_id_of(request)}")
        else:
            page = _pages(api, limit, only_open=only_open)
            text = page.model_dump_json(exclude_none=True)
    if as_json:
        say(text)
    elif request is not None:
        _show_one(parsed(RequestView, text))
    else:
        _show_page(page)


def _show_page(page: RequestPage) -> None:
    columns = ("request", "action", "status", "verdict", "arrived", "due", "open tasks")
    table(columns, [_row(r.state) for r in page.requests])
    if page.next is not None:
        note(f"There are more: --limit goes up to {_MAX}.")


def _pages(api: Api, limit: int, *, only_open: bool) -> RequestPage:
    found: list[RequestSummary] = []
    before: int | None = None
    while True:
        ask = min(MAX_PAGE, limit - len(found))
        text = api.get("/v1/requests", limit=ask, before=before, open="true" if only_open else None)
        page = parsed(RequestPage, text)
        found += page.requests
        before = page.next
        if before is None or len(found) >= limit or not page.requests:
            return RequestPage(requests=tuple(found[:limit]), next=before)


def _row(state: RequestState) -> tuple[object, ...]:
    waiting = ", ".join(f"{t.system} {t.status}" for t in state.tasks if t.status is not TaskStatus.ENDED)
    if state.waits_for:
        waiting = f"waits for {state.waits_for}"
    return (
        state.request_id,
        state.action,
        _standing(state),
        state.verdict or "",
        when(state.arrived_at),
        when(state.due_at),
        waiting,
    )


def _standing(state: RequestState) -> str:
    marks = [m for m, on in (("withdrawn", state.withdrawn), ("overdue", state.overdue)) if on]
    return f"{state.status} ({', '.join(marks)})" if marks else str(state.status)


def when(at: datetime | None) -> str:
    """A moment, to the second, in UTC or with its own zone."""
    return at.isoformat(timespec="seconds").replace("+00:00", "Z") if at else ""


def _show_one(view: RequestView) -> None:
    state = view.state
    facts = [
        ("request", state.request_id),
        ("number", view.number),
        ("action", state.action),
        ("status", _standing(state)),
        ("waits for", state.waits_for),
        ("arrived", when(state.arrived_at)),
        ("accepted", when(state.accepted_at)),
        ("due", when(state.due_at)),
        ("closed", when(state.closed_at)),
        ("verdict", state.verdict),
        ("closure", state.closure_hash),
        ("person told", when(view.notified_at)),
    ]
    table(("what", "value"), [f for f in facts if f[1] not in {None, ""}])
    heading("Tasks")
    table(("system", "status", "attempt", "reason", "next", "outcomes"), [_task(t) for t in state.tasks])
    if view.held:
        heading("Waiting for a person")
        table(
            ("system", "attempt", "reason", "records", "can be decided"),
            [(h.system, h.attempt, h.reason, h.count, ", ".join(h.decisions)) for h in view.held],
        )
        first = view.held[0]
        note(f"Decide: keshi decide {state.request_id} {first.system} {'|'.join(first.decisions)} --reason …")
    if view.obligations:
        heading("Obligations")
        table(
            ("system", "category", "kind", "records", "ground", "until", "status"),
            [(o.system, o.category, o.kind, o.count, o.ground, o.until, o.status) for o in view.obligations],
        )


def _task(task: TaskState) -> tuple[object, ...]:
    outcomes = ", ".join(f"{o.category}: {o.outcome} {o.count}" for o in task.outcomes)
    return task.system, task.status, task.attempt, task.reason, when(task.next_at), outcomes


def closure(
    request: Annotated[str, typer.Argument(help="A request id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the record exactly as it was sealed.")] = False,
) -> None:
    """Show the closure record of a request, and check its hash.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader or a decider).
    """
    path = f"/v1/closures/{request_id_of(request)}"
    with Api() as api:
        text = api.get(path, reasons=None if as_json else "true")
    if as_json:
        say(text)
        return
    view = parsed(ClosureView, text)
    # Over the JSON as it was sealed, not as this version of keshi would write it.
    sealed = json.loads(text)["closure"]
    genuine = sealed.pop("hash") == sha256(sealed)
    reasons = {(r.system, r.decision): r.reason for r in view.reasons}
    show_record(view.closure, checked="checked" if genuine else "WRONG", reasons=reasons)
    if not genuine:
        raise Failure("the record does not have the hash that it names: it was changed after it was sealed")
