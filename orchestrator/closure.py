"""Stage 6: the closure record, sealed into its partition's chain, and what is left to do after it."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.base import made
from keshi.schemas.closure import Clocks, ClosureRecord, Located, ObligationRecord, SystemRecord, sealed
from keshi.schemas.commands import Action
from keshi.schemas.inventory import Plan, PlannedTask
from keshi.schemas.outcomes import CategoryOutcome, Outcome, Residue, verdict
from keshi.schemas.tasks import Found

_DELETED = frozenset({Outcome.ERASED, Outcome.ANONYMISED})


@dataclass(frozen=True, slots=True)
class Chain:
    """The end of a partition's chain."""

    number: int
    head: str


@dataclass(frozen=True, slots=True)
class Obligation:
    """What is left to do, with the references it needs. They are sealed under a key of its own."""

    record: ObligationRecord
    refs: tuple[Found, ...]

    def opened(self, request_id: str) -> ev.ObligationOpened:
        """The event that opens it."""
        r = self.record
        return ev.ObligationOpened(
            request_id=request_id,
            system=r.system,
            category=r.category,
            what=r.kind,
            count=r.count,
            ground=r.ground,
            until=r.until,
        )


@dataclass(frozen=True, slots=True)
class Closed:
    """All that closing a request makes. `text` is the record's canonical JSON."""

    record: ClosureRecord
    text: str
    obligations: tuple[Obligation, ...]
    event: ev.RequestClosed

    @property
    def chain(self) -> Chain:
        return Chain(self.record.number, self.record.hash)


def needs_references(state: State) -> bool:
    """Whether closing has to know the records themselves, to remember them in obligations."""
    return any(
        o.outcome in {Outcome.RETAINED_BY_LAW, Outcome.SUSPENDED} and o.count
        for t in state.tasks.values()
        for o in t.outcomes
    )


def close(
    state: State,
    plan: Plan,
    unions: Mapping[str, Sequence[Found]],
    chain: Chain,
    now: datetime,
    *,
    plan_text: bytes,
    commands_days: float = 7,
) -> Closed:
    """Seal the account of a request whose tasks have all ended.

    Args:
        state: The request.
        plan: Its plan, whole.
        unions: By system, the union of manifests that the ledger has, where `needs_references`.
        chain: The end of the partition's chain.
        now: By the database's clock.
        plan_text: Its plan as canonical JSON.
        commands_days: How long the plain command stays in the topic `commands`.
    """
    case = state.accepted
    assert state.all_ended
    assert state.accepted_at is not None
    systems = tuple(_system(p, state.tasks.get(p.system), now) for p in plan.tasks)
    outcomes = [o for s in systems for o in s.outcomes]
    obligations = tuple(
        o for s in systems for o in _obligations(state.request_id, case.action, s, unions.get(s.system, ()))
    )
    judged = verdict(outcomes, narrowed=case.scope.narrowed, residue=any(s.residue for s in systems))
    if not all(s.outcomes for s in systems):
        raise ValueError("a system without an outcome: the request cannot be closed")
    record = made(
        ClosureRecord,
        request_id=state.request_id,
        action=case.action,
        scope=case.scope,
        regime=case.regime,
        ground=case.ground,
        requested_by=case.requested_by,
        assessed=case.assessed,
        arrival=case.arrival,
        subject=case.subject,
        clocks=made(Clocks, arrived=case.arrival.at, accepted=state.accepted_at, due=case.due, closed=now),
        withdrawn=state.withdrawn,
        superseded_by=state.superseded_by,
        plan=plan,
        plan_hash=case.plan_hash,
        systems=systems,
        obligations=tuple(o.record for o in obligations),
        own_residue=(
            made(
                Residue,
                place="topic_commands",
                reason="kept_until_cleaned_up",
                # A segment is closed within a day and deleted within another.
                until=(state.accepted_at + timedelta(days=commands_days + 2)).date(),
            ),
        ),
        verdict=judged,
        partition=state.partition,
        number=chain.number + 1,
        previous=chain.head,
        hash="0" * 64,
    )
    record, text = sealed(record, plan_text)
    event = made(
        ev.RequestClosed,
        verdict=judged,
        number=record.number,
        previous=record.previous,
        hash=record.hash,
        obligations=tuple(o.record.obligation_id for o in obligations),
    )
    return Closed(record, text, obligations, event)


def _system(planned: PlannedTask, task: TaskProgress | None, now: datetime) -> SystemRecord:
    if task is None:
        return made(SystemRecord, system=planned.system, outcomes=planned.known, located=made(Located, counts={}))
    return made(
        SystemRecord,
        system=planned.system,
        outcomes=(*task.outcomes, *planned.known),
        located=made(Located, counts=task.counts, commitment=task.digest),
        searched=task.searched,
        checked_at=task.checked_at,
        handler=task.handler,
        residue=(*task.residue, *_expected(planned, task, now)),
        attempts=task.attempts,
        decisions=task.decisions,
    )


def _expected(planned: PlannedTask, task: TaskProgress, now: datetime) -> tuple[Residue, ...]:
    """What the inventory says that the system keeps after "deleted", where something was deleted."""
    if not any(o.outcome in _DELETED and o.count for o in task.outcomes):
        return ()
    return tuple(
        made(Residue, place=r.place, reason=r.reason, until=(now + timedelta(days=r.days)).date())
        for r in planned.residue
    )


def _obligations(request_id: str, action: Action, system: SystemRecord, union: Sequence[Found]) -> list[Obligation]:
    found: list[Obligation] = []
    for outcome in system.outcomes:
        if outcome.outcome is Outcome.RETAINED_BY_LAW:
            found.extend(
                _one(request_id, "retention", system.system, outcome, (union[i],), str(i)) for i in outcome.items or ()
            )
        elif outcome.outcome is Outcome.SUSPENDED and action is Action.SUSPEND_USE:
            ours = tuple(f for f in _items(outcome, union) if f.was == "active")
            if ours:
                found.append(_one(request_id, "suspension", system.system, outcome, ours, ""))
    return found


def _items(outcome: CategoryOutcome, union: Sequence[Found]) -> list[Found]:
    if outcome.items is not None:
        return [union[i] for i in outcome.items]
    return [f for f in union if f.category == outcome.category]


def _one(
    request_id: str,
    kind: Literal["retention", "suspension"],
    system: str,
    outcome: CategoryOutcome,
    refs: tuple[Found, ...],
    place: str,
) -> Obligation:
    # The id is drawn from what it is about, so that closing again after a crash names it alike. The place in the
    # union stands for the record: its reference may itself be an identifier.
    name = f"{request_id}/{kind}/{system}/{outcome.category}/{place}"
    record = ObligationRecord(
        obligation_id=hashlib.sha256(name.encode()).hexdigest()[:32],
        kind=kind,
        system=system,
        category=outcome.category,
        count=len(refs),
        ground=outcome.ground,
        until=outcome.until,
    )
    return Obligation(record, refs)
