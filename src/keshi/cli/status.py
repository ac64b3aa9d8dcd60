"""`keshi status`: where requests stand."""

import sys
from collections.abc import Callable
from datetime import tzinfo
from functools import partial
from threading import Event
from typing import Annotated, Final, NamedTuple

import typer
from rich.console import Console

from keshi.cli import filters as f
from keshi.cli.http import Api, parsed
from keshi.cli.output import heading, note, say, table
from keshi.cli.reading import AS_JSON, ZONE, day_and_time, request_id_of, when, zone_of
from keshi.orchestrator.views import RequestPage, RequestSummary, RequestView
from keshi.schemas.requests import RequestState, RequestStatus, TaskState, TaskStatus

_MAX: Final = 10_000
_UNFINISHED: Final = [RequestStatus.WAITING, RequestStatus.OPEN]
_COLUMNS: Final = ("request", "action", "status", "verdict", "arrived", "due", "open tasks")


class Shown(NamedTuple):
    """How it is shown."""

    zone: tzinfo
    as_json: bool


def status(
    request: Annotated[str | None, typer.Argument(help="A request id. Without it: those that are asked for.")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Leave closed ones out.", rich_help_panel=f.WHICH)] = False,
    state: f.STATE = None,
    action: f.ACTION = None,
    regime: f.REGIME = None,
    ground: f.GROUND = None,
    system: f.SYSTEM = None,
    outcome: f.OUTCOME = None,
    late: f.LATE = None,
    held: f.HELD = None,
    open_in: f.OPEN_IN = None,
    due_before: f.DUE_BEFORE = None,
    arrived_from: f.ARRIVED_FROM = None,
    arrived_until: f.ARRIVED_UNTIL = None,
    closed_from: f.CLOSED_FROM = None,
    closed_until: f.CLOSED_UNTIL = None,
    person: f.PERSON = False,
    identifiers_file: f.IDENTIFIERS_FILE = None,
    limit: Annotated[int, typer.Option(min=1, max=_MAX, help="How many requests to show.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on where a list ended: it names the cursor.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it anew until all is closed, or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, max=3600, metavar="SECONDS", help="How often, with --watch.")] = 2,
    zone: ZONE = "UTC",
    as_json: AS_JSON = False,
) -> None:
    """Show where requests stand; of one, also its tasks, what waits for a person, and what is left to do.

    What stands on a command line can be seen by others on this machine: identifiers of a person are therefore read
    from the prompt, standard input or a file. The API gets them in a body, hashes them on arrival and logs none.

    Needs KESHI_API_URL and KESHI_API_TOKEN (of a reader, an operator or a decider; of a reader or a decider to find a
    person's requests).
    """
    given = {
        "state": _UNFINISHED if only_open else state,
        "action": action,
        "regime": regime,
        "ground": ground,
        "system": system,
        "outcome": outcome,
        "late": late,
        "held": held,
        "open_in": open_in,
        "due_before": due_before,
        "arrived_from": arrived_from,
        "arrived_until": arrived_until,
        "closed_from": closed_from,
        "closed_until": closed_until,
    }
    with Api() as api:
        shown = Shown(zone_of(zone), as_json)
        if request is not None:
            look = partial(_one, api, request_id_of(request), shown)
        else:
            asked = f.which(given, zone, person=person, file=identifiers_file)
            look = partial(_some, api, asked, limit, cursor, shown)
        if watch:
            _watch(look, every)
        else:
            look()


def _watch(look: Callable[[], bool], seconds: float) -> None:
    """Look again and again, until all that is seen is closed."""
    pause, console = Event(), Console()
    while True:
        if sys.stdout.isatty():
            console.clear()
        if look():
            return
        sys.stdout.flush()
        pause.wait(seconds)
        if not sys.stdout.isatty():
            say()


def _some(api: Api, asked: f.Which, limit: int, cursor: str | None, shown: Shown) -> bool:
    """Show what is asked for; whether all of it is closed."""
    found: list[RequestSummary] = []
    for page in f.pages(api, asked, limit, cursor):
        found += page.requests
    whole = RequestPage(requests=tuple(found), next=page.next)
    if shown.as_json:
        say(whole.model_dump_json(exclude_none=True))
    else:
        _show_page(whole, shown.zone)
    return all(r.state.status is RequestStatus.CLOSED for r in found)


def _show_page(page: RequestPage, zone: tzinfo) -> None:
    matched = any(r.matched for r in page.requests)
    columns = (*_COLUMNS, "outcomes") if matched else _COLUMNS
    table(columns, [(*_row(r.state, zone), *([_matched(r)] if matched else [])) for r in page.requests])
    if page.next is not None:
        note(f"There are more. --limit goes up to {_MAX}; to go on from here: --cursor {page.next}")


def _row(state: RequestState, zone: tzinfo) -> tuple[object, ...]:
    waiting = "; ".join(
        f"{t.system} {_stands(t)}" + (f": {', '.join(t.left)}" if t.left else "")
        for t in state.tasks
        if t.status is not TaskStatus.ENDED
    )
    if state.waits_for:
        waiting = f"waits for {state.waits_for}"
    return (
        state.request_id,
        state.action,
        standing(state),
        state.verdict or "",
        day_and_time(state.arrived_at, zone),
        day_and_time(state.due_at, zone),
        waiting,
    )


def _matched(summary: RequestSummary) -> str:
    return "; ".join(
        f"{m.system} {m.category}: {m.outcome}"
        + (f" {m.count}" if m.count else "")
        + (f", {m.ground}" if m.ground else "")
        + (f", until {m.until}" if m.until else "")
        for m in summary.matched
    )


def _stands(task: TaskState) -> str:
    return f"{task.status} (late)" if task.late else str(task.status)


def standing(state: RequestState) -> str:
    """Status with what is remarkable of it."""
    known = (("withdrawn", state.withdrawn), ("superseded", state.superseded_by), ("overdue", state.overdue))
    marks = [m for m, on in known if on]
    return f"{state.status} ({', '.join(marks)})" if marks else str(state.status)


def _one(api: Api, name: str, shown: Shown) -> bool:
    text = api.get(f"/v1/requests/{name}")
    view = parsed(RequestView, text)
    if shown.as_json:
        say(text)
    else:
        _show_one(view, shown.zone)
    return view.state.status is RequestStatus.CLOSED


def _show_one(view: RequestView, zone: tzinfo) -> None:
    state = view.state
    facts = [
        ("request", state.request_id),
        ("number", view.number),
        ("action", state.action),
        ("status", standing(state)),
        ("waits for", state.waits_for),
        ("superseded by", state.superseded_by),
        ("arrived", when(state.arrived_at, zone)),
        ("accepted", when(state.accepted_at, zone)),
        ("due", when(state.due_at, zone)),
        ("closed", when(state.closed_at, zone)),
        ("verdict", state.verdict),
        ("closure", state.closure_hash),
        ("person told", when(view.notified_at, zone)),
    ]
    table(("what", "value"), [x for x in facts if x[1] not in {None, ""}])
    heading("Tasks")
    table(("system", "status", "attempt", "reason", "next", "outcomes"), [_task(t, zone) for t in state.tasks])
    if view.held:
        heading("Waiting for a person")
        table(
            ("system", "attempt", "reason", "records", "can be decided"),
            [(h.system, h.attempt, h.reason, h.count, ", ".join(h.decisions)) for h in view.held],
        )
        first = view.held[0]
        decide = f"keshi decide {state.request_id} {first.system} {'|'.join(first.decisions)} --reason …"
        note(f"Decide: {decide} (refuse: also --ground …)")
    if view.obligations:
        heading("Obligations")
        table(
            ("system", "category", "kind", "records", "ground", "until", "status"),
            [
                (o.system, o.category, o.kind, o.count, o.ground, o.until, "late" if o.late else o.status)
                for o in view.obligations
            ],
        )


def _task(task: TaskState, zone: tzinfo) -> tuple[object, ...]:
    outcomes = ", ".join(f"{o.category}: {o.outcome} {o.count}" for o in task.outcomes)
    left = ", ".join(f"{c}: not done yet" for c in task.left or ())
    status = _stands(task)
    return task.system, status, task.attempt, task.reason, when(task.next_at, zone), outcomes or left
