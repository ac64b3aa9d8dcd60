"""From the state of each record after the act to the outcomes of a task, per data category. Pure."""

from calendar import monthrange
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Final, NamedTuple

from keshi.handlers.contract import (
    Accepted,
    Active,
    Anonymised,
    Declined,
    Gone,
    NotHeld,
    NotSearchable,
    ProvisionStopped,
    Retained,
    State,
    Suspended,
    UnderWay,
)
from keshi.handlers.errors import GiveToPerson, Retry
from keshi.schemas.commands import Action
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.reports import Left
from keshi.schemas.tasks import Found, Mode

MAX_OUTCOMES: Final = 300
"""In one report."""
IDENTIFIED_ONLY: Final = "identified_only"
WITHDRAWN: Final = "withdrawn"


class NotVerified(Retry):
    """After the act some record was still as before."""


class Case(NamedTuple):
    """What is judged."""

    action: Action
    mode: Mode
    categories: tuple[str, ...]
    searched: tuple[str, ...]
    union: Sequence[Found]
    states: Sequence[State]


class _Ending(NamedTuple):
    """What happened to one record."""

    outcome: Outcome
    ground: str | None = None
    until: date | None = None
    reason: str | None = None


_Coarseness = Callable[[date], date]


def identified(categories: Iterable[str]) -> tuple[CategoryOutcome, ...]:
    """The outcomes of a task that was only to find identifiers."""
    return tuple(CategoryOutcome(category=c, outcome=Outcome.OUT_OF_SCOPE, reason=IDENTIFIED_ONLY) for c in categories)


def judge(case: Case) -> tuple[CategoryOutcome, ...]:
    """Every category of the task with at least one outcome; the counts add up to the union.

    Raises:
        NotVerified: a record is not in the state that was asked for.
        GiveToPerson: the handler did not say the state of every record, or searched by nothing and found nothing,
            which is not the same as "nothing is there"; or the system will not do what was asked for.
    """
    if len(case.states) != len(case.union):
        raise GiveToPerson("verify_misaligned")
    if not case.searched and not case.union:
        raise GiveToPerson("nothing_searched")
    endings = [_ending(case.action, case.mode, s) for s in case.states]
    for coarse in (_day, _month, _year, _all):
        outcomes = tuple(_outcomes(case, endings, coarse))
        if len(outcomes) <= MAX_OUTCOMES:
            return outcomes
    raise GiveToPerson("too_many_outcomes")


def goes_on(case: Case) -> Accepted | None:
    """That an act goes on on which its system is still working; None for any other."""
    under_way = [s.check_after_seconds for s in case.states if isinstance(s, UnderWay)]
    if not under_way or len(case.states) != len(case.union):
        return None
    if not all(isinstance(s, UnderWay) or _done(case.action, s) for s in case.states):
        return None
    left = (f.category for f, s in zip(case.union, case.states, strict=True) if isinstance(s, UnderWay))
    return Accepted(max(1, min(under_way)), tuple(dict.fromkeys(left)))


def left(states: Iterable[State]) -> Left | None:
    """What the system says of that which a check found not done; None where it says nothing."""
    everything = list(states)
    under_way = [s for s in everything if isinstance(s, UnderWay)]
    asks = next((s.code for s in everything if isinstance(s, Declined)), None)
    if not under_way and asks is None:
        return None
    after = min((max(1, s.check_after_seconds) for s in under_way), default=None)
    return Left(check_after_seconds=after, late=any(s.late for s in under_way), asks=asks)


def _ending(action: Action, mode: Mode, state: State) -> _Ending:
    done = _done(action, state)
    if done:
        return done
    if mode is Mode.CHECK:
        return _Ending(Outcome.NOT_STARTED, reason=WITHDRAWN)
    if isinstance(state, Declined):
        raise GiveToPerson(state.code)
    raise NotVerified


def _done(action: Action, state: State) -> _Ending | None:
    """How a record in this state has ended; None while what was asked for has not happened to it."""
    if action is Action.ERASE and isinstance(state, Gone):  # first, for it is so of nearly all
        return _ERASED if state.reason is None else _ERASED._replace(reason=state.reason)
    if isinstance(state, Retained):
        return _retained(action, state)
    if isinstance(state, NotHeld):
        return _Ending(Outcome.NOT_FOUND, reason=state.reason)
    if isinstance(state, NotSearchable):
        return _Ending(Outcome.NOT_SEARCHABLE)
    if isinstance(state, Gone | Anonymised) and action is not Action.ERASE:
        # It vanished by itself, or by an erasure that is not ours to count here.
        return _Ending(Outcome.NOT_FOUND)
    return _OTHERS.get((action, type(state)))


_ERASED: Final = _Ending(Outcome.ERASED)
_OTHERS: Final[dict[tuple[Action, type], _Ending]] = {
    (Action.ERASE, Anonymised): _Ending(Outcome.ANONYMISED),
    (Action.SUSPEND_USE, Suspended): _Ending(Outcome.SUSPENDED),
    (Action.RESUME_USE, Active): _Ending(Outcome.RESUMED),
    (Action.RESUME_USE, ProvisionStopped): _Ending(Outcome.RESUMED),
    (Action.STOP_PROVISION, ProvisionStopped): _Ending(Outcome.PROVISION_STOPPED),
    (Action.STOP_PROVISION, Suspended): _Ending(Outcome.PROVISION_STOPPED),
}


def _retained(action: Action, state: Retained) -> _Ending | None:
    """A retention period ends an erasure only where the record is restricted; to restrict is to suspend."""
    if action is Action.ERASE and state.restricted:
        return _Ending(Outcome.RETAINED_BY_LAW, ground=state.ground, until=state.until)
    return _OTHERS.get((action, Suspended if state.restricted else Active))


def _outcomes(case: Case, endings: Sequence[_Ending], coarse: _Coarseness) -> Iterable[CategoryOutcome]:
    categories = [f.category for f in case.union]
    places: dict[str, dict[_Ending, list[int]]] = {c: {} for c in (*case.categories, *sorted(set(categories)))}
    for place, (category, ending) in enumerate(zip(categories, endings, strict=True)):
        rounded = ending if ending.until is None else ending._replace(until=coarse(ending.until))
        places[category].setdefault(rounded, []).append(place)
    for category, groups in places.items():
        if not groups:
            yield _alike(category, _Ending(Outcome.NOT_FOUND), 0)
        if len(groups) == 1:
            ((ending, items),) = groups.items()
            if ending.outcome is not Outcome.RETAINED_BY_LAW:
                yield _alike(category, ending, len(items))
                continue
        for ending, items in sorted(groups.items(), key=_rank):
            yield CategoryOutcome(
                category=category,
                outcome=ending.outcome,
                count=len(items),
                ground=ending.ground,
                until=max(_untils(items, endings), default=None),
                reason=ending.reason,
                items=tuple(items),
            )


@lru_cache(maxsize=1000)
def _alike(category: str, ending: _Ending, count: int) -> CategoryOutcome:
    """All records of a category have ended in one way, as they nearly always do: made once, for it never changes."""
    return CategoryOutcome(
        category=category,
        outcome=ending.outcome,
        count=count,
        ground=ending.ground,
        until=ending.until,
        reason=ending.reason,
    )


def _untils(items: Iterable[int], endings: Sequence[_Ending]) -> Iterable[date]:
    return (u for u in (endings[i].until for i in items) if u)


def _rank(group: tuple[_Ending, list[int]]) -> tuple[str, str, date, str]:
    ending = group[0]
    return ending.outcome.value, ending.ground or "", ending.until or date.min, ending.reason or ""


def _day(day: date) -> date:
    return day


def _month(day: date) -> date:
    return day.replace(day=monthrange(day.year, day.month)[1])


def _year(day: date) -> date:
    return date(day.year, 12, 31)


def _all(_: date) -> date:
    return date.max
