"""How requests are found: one page is a window over one index, and what in it is as asked for. Alike in every dialect.

A page looks at no more than a window of one index, in the order of the answer, whatever is asked for: what is rare
costs more pages, never a scan. So the index is chosen here, and not by a planner that has to guess.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Protocol

from sqlalchemy import BigInteger, TextualSelect, bindparam, text

from keshi.orchestrator.finding import Order, Place, Sought
from keshi.schemas.outcomes import Outcome
from keshi.schemas.requests import RequestStatus

WINDOW: Final = 5000
_OPEN: Final = frozenset({RequestStatus.WAITING, RequestStatus.OPEN})
_ENDINGS: Final = ", ".join(f"'{o.value}'" for o in Outcome)
_DONE_THERE: Final = ", ".join(f"'{o.value}'" for o in Outcome if o is not Outcome.OUT_OF_SCOPE)
"""A system that was only left out had no part in a request."""


class Spelling(Protocol):
    """What each dialect spells in its own way."""

    AT: Any
    """The type of a moment."""
    HAS_TASK: str
    """Whether `r.state` has a task of `:system`."""
    HAS_HELD: str
    """Whether `r.state` has a task that is held."""
    HAS_OPEN: str
    """Whether `r.state` has a task of `:open_in` that has not ended."""
    HAS_LATE: str
    """Whether `r.state` has a task that is late at `:now`: by its own word, or because its worker is silent."""


class _Put(dict[str, Any]):
    """The values of a statement, each put in where it is named."""

    def __call__(self, name: str, value: Any) -> str:
        self[name] = value
        return f":{name}"


def matching(
    sought: Sought, after: Place | None, limit: int, now: datetime, sql: Spelling
) -> tuple[TextualSelect, dict[str, Any]]:
    """What in the window is as asked for (`number`, `request_id`, `moment`), in order.

    Args:
        sought: What is asked for.
        after: Where the page before ended.
        limit: So many at most.
        now: By which `late` is judged.
        sql: The dialect.
    """
    put = _Put()
    window = _window(sought, after, put)
    state = "JOIN requests r ON r.request_id = c.request_id" if _asks_for_state(sought) else ""
    conditions = " AND ".join(["1 = 1", *_conditions(sought, now, put, sql)])
    statement = (
        f"SELECT w.moment, w.number, c.request_id FROM ({window}) AS w JOIN cases c ON c.number = w.number {state} "  # noqa: S608 - parts of ours; values are parameters
        f"WHERE {conditions} ORDER BY {_sorted(sought.order, 'w.')} LIMIT {put('limit', limit)}"
    )
    return _text(statement, put, sql), put


def window_end(sought: Sought, after: Place | None, sql: Spelling) -> tuple[TextualSelect, dict[str, Any]]:
    """The last place of a window that is full; no row where it is not, and all was looked at."""
    put = _Put()
    window = _window(sought, after, put)
    statement = (
        f"SELECT w.moment, w.number FROM ({window}) AS w ORDER BY {_sorted(sought.order, 'w.')} "  # noqa: S608 - as above
        f"LIMIT 1 OFFSET {put('last', WINDOW - 1)}"
    )
    return _text(statement, put, sql), put


def _text(statement: str, put: _Put, sql: Spelling) -> TextualSelect:
    bound: list[Any] = [bindparam(n, type_=sql.AT) for n, v in put.items() if isinstance(v, datetime)]
    bound += [bindparam(n, expanding=True) for n, v in put.items() if isinstance(v, list)]
    return text(statement).bindparams(*bound).columns(moment=sql.AT, number=BigInteger)


def _asks_for_state(sought: Sought) -> bool:
    by_status = sought.states & _OPEN not in (frozenset(), _OPEN)
    of_tasks = sought.held is not None or sought.late is not None or sought.open_in is not None
    return by_status or of_tasks or (sought.system is not None and sought.outcome is None)


# --- the window

_COLUMN: Final = {Order.ARRIVED: "c.arrived", Order.CLOSED: "c.closed", Order.DUE: "c.due"}


def _sorted(order: Order, table: str) -> str:
    if order is Order.NUMBER:
        return f"{table}number DESC"
    way = "ASC" if order is Order.DUE else "DESC"
    return f"{table}moment {way}, {table}number {way}"


def _window(sought: Sought, after: Place | None, put: _Put) -> str:
    """The places of one index that a page looks at."""
    limit = f"LIMIT {put('window', WINDOW)}"
    if sought.order is not Order.NUMBER:
        return f"{_by_moment(sought, after, put)} {limit}"
    below = f"number < {put('number', after.number if after else 2**62)}"
    sources = [*_sources(sought, put)]
    # Each part in order and cut: the whole then holds the first of all of them.
    parts = [
        f"SELECT * FROM (SELECT DISTINCT {t}.number FROM {t} WHERE {where} AND {below} "  # noqa: S608 - as above
        f"ORDER BY {t}.number DESC {limit}) AS p{n}"
        for n, (t, where) in enumerate(sources)
    ]
    if len(parts) == 1:
        return f"SELECT NULL AS moment, number FROM ({parts[0]}) AS u ORDER BY number DESC {limit}"  # noqa: S608 - as above
    return (
        f"SELECT DISTINCT NULL AS moment, number FROM ({' UNION ALL '.join(parts)}) AS u "  # noqa: S608 - as above
        f"ORDER BY number DESC {limit}"
    )


def _by_moment(sought: Sought, after: Place | None, put: _Put) -> str:
    column, way = _COLUMN[sought.order], "<" if sought.order is not Order.DUE else ">"
    where = [*_ranges(sought, put)]
    if sought.order is Order.DUE or sought.states <= _OPEN:
        where.append("c.closed IS NULL")
    if after is not None:
        where.append(f"({column}, c.number) {way} ({put('moment', after.moment)}, {put('number', after.number)})")
    order = _sorted(sought.order, "c.").replace("c.moment", column)
    return f"SELECT {column} AS moment, c.number FROM cases c WHERE {' AND '.join(where)} ORDER BY {order}"  # noqa: S608 - as above


def _sources(sought: Sought, put: _Put) -> Iterator[tuple[str, str]]:
    """Tables with conditions that an index of theirs answers in the order of numbers: the narrowest that is known."""
    if sought.people:
        yield "people", f"holder IN {put('people', sorted(sought.people))}"
    elif sought.outcome:
        here = f" AND system = {put('system', sought.system)}" if sought.system else ""
        yield "endings", f"outcome = {put('outcome', sought.outcome.value)}{here}"
    elif sought.ground:
        ground = put("ground", sought.ground)
        yield "cases", f"ground = {ground}"
        for outcome in Outcome:
            yield "endings", f"outcome = '{outcome.value}' AND ground = {ground} AND ground <> ''"
    elif sought.states <= _OPEN or sought.held or sought.open_in:
        yield "cases", "closed IS NULL"
    elif sought.late:
        yield "cases", "closed > due"
        if sought.states & _OPEN:
            yield "cases", "closed IS NULL"
    elif sought.regime:
        yield "cases", f"regime = {put('regime', sought.regime.value)}"
    elif sought.action:
        yield "cases", f"action = {put('action', sought.action.value)}"
    else:
        yield "cases", "1 = 1"


# --- what in the window is as asked for


def _ranges(sought: Sought, put: _Put) -> Iterator[str]:
    for column, name, sign in (
        ("c.arrived", "arrived_from", ">="),
        ("c.arrived", "arrived_until", "<"),
        ("c.closed", "closed_from", ">="),
        ("c.closed", "closed_until", "<"),
        ("c.due", "due_before", "<"),
    ):
        moment = getattr(sought, name)
        if moment is not None:
            yield f"{column} {sign} {put(name, moment)}"


def _conditions(sought: Sought, now: datetime, put: _Put, sql: Spelling) -> Iterator[str]:
    yield from _ranges(sought, put)
    yield from _standing(sought, now, put, sql)
    if sought.action:
        yield f"c.action = {put('action', sought.action.value)}"
    if sought.regime:
        yield f"c.regime = {put('regime', sought.regime.value)}"
    if sought.outcome:
        yield _ending(f"= {put('outcome', sought.outcome.value)}", sought, put)
    else:
        if sought.system:
            ended = _ending(f"IN ({_DONE_THERE})", sought, put, ground=False)
            yield f"(c.closed IS NULL AND {sql.HAS_TASK} OR {ended})"
        if sought.ground:
            ended = _ending(f"IN ({_ENDINGS})", sought, put)
            yield f"(c.ground = {put('ground', sought.ground)} OR {ended})"


def _ending(outcome: str, sought: Sought, put: _Put, *, ground: bool = True) -> str:
    """That there is one ending of which all that is asked is true."""
    where = ["e.number = c.number", f"e.outcome {outcome}"]
    if sought.system:
        where.append(f"e.system = {put('system', sought.system)}")
    if sought.ground and ground:
        where.append(f"e.ground = {put('ground', sought.ground)}")
    return f"EXISTS (SELECT 1 FROM endings e WHERE {' AND '.join(where)})"  # noqa: S608 - as above


def _standing(sought: Sought, now: datetime, put: _Put, sql: Spelling) -> Iterator[str]:
    """Where it stands: its state, whether it is late, whether it waits for a person."""
    if sought.due_before or sought.states <= _OPEN:
        yield "c.closed IS NULL"
    if not sought.states & _OPEN:
        yield "c.closed IS NOT NULL"
    partly = sought.states & _OPEN
    if partly and partly != _OPEN:
        (status,) = partly
        either = "c.closed IS NOT NULL OR " if RequestStatus.CLOSED in sought.states else ""
        yield f"({either}r.status = {put('status', status.value)})"
    if sought.late is not None:
        # A CASE, so that states are read of open requests alone.
        past = f"c.due < {put('now', now)} OR {sql.HAS_LATE}"
        late = f"CASE WHEN c.closed IS NULL THEN {past} ELSE c.closed > c.due END"
        yield late if sought.late else f"NOT ({late})"
    if sought.held is not None:
        held = f"(c.closed IS NULL AND {sql.HAS_HELD})"
        yield held if sought.held else f"NOT {held}"
    if sought.open_in is not None:
        put("open_in", sought.open_in)
        yield f"(c.closed IS NULL AND {sql.HAS_OPEN})"
