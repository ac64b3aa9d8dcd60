"""How requests are found again: what is noted of each for those who ask, and what can be asked for. Pure."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import State
from keshi.schemas.commands import Action, Regime
from keshi.schemas.inventory import Plan
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.requests import RequestStatus


@dataclass(frozen=True, slots=True)
class CaseNote:
    """A request as it is listed: written when it is accepted; `closed` follows."""

    number: int
    request_id: str
    action: str
    regime: str
    ground: str
    arrived: datetime
    due: datetime
    closed: datetime | None = None


@dataclass(frozen=True, slots=True)
class EndingNote:
    """That something of a request ended so in a system; an empty ground is none."""

    number: int
    system: str
    outcome: str
    ground: str = ""


@dataclass(frozen=True, slots=True)
class Notes:
    """What one cycle has to note of one request. `people` are keyed hashes of the person's identifiers."""

    number: int
    accepted: CaseNote | None = None
    closed: datetime | None = None
    people: tuple[str, ...] = ()
    endings: tuple[EndingNote, ...] = ()


def notes(state: State, happened: Iterable[Any], plan: Callable[[str], Plan]) -> Notes | None:
    """What these events of a request change for those who ask.

    Args:
        state: The request after them.
        happened: The events of one cycle.
        plan: Gives a plan by its hash. Asked for only when the request was accepted.
    """
    accepted, closed, ended = False, False, list[tuple[str, CategoryOutcome]]()
    for event in happened:
        kind = type(event)
        if kind is ev.TaskEnded:
            ended += [(event.system, o) for o in event.outcomes]
        elif kind is ev.RequestAccepted:
            accepted = True
            ended += [(t.system, o) for t in plan(state.accepted.plan_hash).tasks for o in t.known]
        elif kind is ev.RequestClosed:
            closed = True
    if not (accepted or closed or ended):
        return None
    assert state.number is not None
    endings = sorted({(system, o.outcome.value, o.ground or "") for system, o in ended})
    return Notes(
        number=state.number,
        accepted=_case(state) if accepted else None,
        closed=state.closed_at if closed and not accepted else None,
        people=state.accepted.subject if accepted else (),
        endings=tuple(EndingNote(state.number, *e) for e in endings),
    )


def _case(state: State) -> CaseNote:
    case = state.accepted
    assert state.number is not None
    return CaseNote(
        number=state.number,
        request_id=state.request_id,
        action=case.action.value,
        regime=case.regime.value,
        ground=case.ground,
        arrived=case.arrival.at,
        due=case.due,
        closed=state.closed_at,
    )


class Order(StrEnum):
    """How what was found is sorted: the latest first, but what is due soonest first."""

    NUMBER = "number"
    ARRIVED = "arrived"
    CLOSED = "closed"
    DUE = "due"


@dataclass(frozen=True, slots=True)
class Sought:
    """What is asked for: requests of which all that is given is true. `…_until` and `due_before` are exclusive.

    `outcome`, `system` and `ground` together speak of one ending. `ground` without an outcome is also that of the
    request; `system` without one also a task there. `open_in` and `due_before` ask for open requests alone: with a task
    in this system that has not ended, and due before. `late` is what closed after its due date, and what is open past
    it or has a task that is late.
    """

    people: tuple[str, ...] = ()
    states: frozenset[RequestStatus] = frozenset(RequestStatus)
    action: Action | None = None
    regime: Regime | None = None
    ground: str | None = None
    system: str | None = None
    outcome: Outcome | None = None
    late: bool | None = None
    held: bool | None = None
    open_in: str | None = None
    due_before: datetime | None = None
    arrived_from: datetime | None = None
    arrived_until: datetime | None = None
    closed_from: datetime | None = None
    closed_until: datetime | None = None

    @property
    def order(self) -> Order:
        """How the answer is sorted. A person has few requests: whatever else is asked, they come by number."""
        if self.people:
            return Order.NUMBER
        if self.due_before:
            return Order.DUE
        if self.closed_from or self.closed_until:
            return Order.CLOSED
        if self.arrived_from or self.arrived_until:
            return Order.ARRIVED
        return Order.NUMBER


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page ends: the last request that was looked at, and the moment that it is sorted by, if by one."""

    number: int
    moment: datetime | None = None


@dataclass(frozen=True, slots=True)
class Hits:
    """Ids of requests in order, and where to go on; None where all was looked at."""

    request_ids: tuple[str, ...]
    next: Place | None
