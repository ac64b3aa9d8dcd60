"""A request: its state, how each event changes it, and which stage answers which input. All pure."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from keshi.orchestrator import events as ev
from keshi.schemas.base import changed, made
from keshi.schemas.closure import AttemptRecord, DecisionRecord
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Residue, Verdict
from keshi.schemas.reports import HandlerVersion
from keshi.schemas.requests import RequestState, RequestStatus, TaskState, TaskStatus
from keshi.schemas.tasks import Mode, StopReason

CALLED_OFF_BY: Mapping[StopReason, DecidedBy] = {
    StopReason.WITHDRAWN: DecidedBy.WITHDRAWAL,
    StopReason.SUPERSEDED: DecidedBy.SUPERSESSION,
}
"""Whose word it is that nothing more is begun."""


class TaskProgress(BaseModel):
    """One task of a request.

    `next_at` is the next moment at which something happens by itself. `spent` counts attempts since a person
    last decided. `left` are the categories that are known not to be done; `late` stays on from check to check.
    """

    model_config = ConfigDict(frozen=True)

    system: str
    status: TaskStatus = TaskStatus.WAITING
    attempt: int = 0
    mode: Mode = Mode.ACT
    spent: int = 0
    identified: bool = False
    reason: str | None = None
    next_at: datetime | None = None
    late: bool = False
    left: tuple[str, ...] = ()
    held_digest: str | None = None
    approved_digest: str | None = None
    refusal: ev.TaskDecided | None = None
    decided_at: datetime | None = None
    outcomes: tuple[CategoryOutcome, ...] = ()
    counts: dict[str, int] = Field(default_factory=dict)
    digest: str | None = None
    searched: tuple[str, ...] = ()
    checked_at: datetime | None = None
    handler: HandlerVersion | None = None
    residue: tuple[Residue, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    decisions: tuple[DecisionRecord, ...] = ()

    @property
    def ended(self) -> bool:
        return self.status is TaskStatus.ENDED

    def is_silent(self, now: datetime) -> bool:
        """Whether its worker should have been heard of by now."""
        return self.status is TaskStatus.OPEN and self.next_at is not None and self.next_at <= now

    def is_late(self, now: datetime) -> bool:
        """Whether a person has not decided yet, a worker has not been heard of, or its system is past its own date."""
        return not self.ended and (self.late or self.is_silent(now))

    def trouble(self, now: datetime) -> str | None:
        """What is wrong with a task that is open: its worker is silent, or its last attempt failed."""
        if self.status is not TaskStatus.OPEN:
            return None
        failed = next((a.error for a in reversed(self.attempts) if a.ended), None)
        return "silent" if self.is_silent(now) else failed


def _stored(model: BaseModel) -> dict[str, Any]:
    """The members of a model inside a state. Of a task all that is empty is its default, and left out."""
    members = model.__dict__
    return {n: v for n, v in members.items() if v} if type(model) is TaskProgress else members


_UNTOUCHED = TaskProgress(system="")


class State(BaseModel):
    """A request as it stands. `case` is absent where only a withdrawal has come so far."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    partition: int
    sequence: int = 0
    number: int | None = None
    status: RequestStatus = RequestStatus.WAITING
    case: ev.Case | None = None
    accepted_at: datetime | None = None
    withdrawn: bool = False
    superseded_by: str | None = None
    waits_for: str | None = None
    suspensions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    overdue: bool = False
    alarms_left: tuple[datetime, ...] = ()
    closed_at: datetime | None = None
    verdict: Verdict | None = None
    closure_hash: str | None = None
    notified_at: datetime | None = None
    tasks: dict[str, TaskProgress] = Field(default_factory=dict)

    @property
    def closed(self) -> bool:
        return self.status is RequestStatus.CLOSED

    @property
    def called_off(self) -> StopReason | None:
        """Why nothing more may be begun, though the request is open: nobody wants it any more."""
        if self.withdrawn:
            return StopReason.WITHDRAWN
        return StopReason.SUPERSEDED if self.superseded_by else None

    @property
    def accepted(self) -> ev.Case:
        """The case; a request that has none yet is a defect of the caller."""
        assert self.case is not None
        return self.case

    @property
    def all_ended(self) -> bool:
        return bool(self.tasks) and all(t.ended for t in self.tasks.values())

    def next_due(self) -> datetime | None:
        """The next moment at which something happens by itself: never None for an open request."""
        if self.closed or self.case is None:
            return None
        moments = [t.next_at for t in self.tasks.values() if t.next_at and not t.ended]
        return min([*moments, *self.alarms_left], default=None)

    def stored(self) -> str:
        """As JSON, as the ledger keeps it: the case stands beside it, and what is empty is left out, as its default."""
        known = {n: v for n, v in self.__dict__.items() if (v or n == "partition") and n != "case"}
        return orjson.dumps(known, default=_stored, option=orjson.OPT_UTC_Z).decode()

    def public(self, now: datetime) -> RequestState:
        """What the sender and compliance may see, at this moment."""
        case = self.accepted
        assert self.accepted_at is not None
        return made(
            RequestState,
            request_id=self.request_id,
            sequence=self.sequence,
            status=self.status,
            action=case.action,
            withdrawn=self.withdrawn,
            superseded_by=self.superseded_by,
            waits_for=self.waits_for,
            arrived_at=case.arrival.at,
            accepted_at=self.accepted_at,
            due_at=case.due,
            overdue=self.overdue,
            closed_at=self.closed_at,
            notice_language=case.notice_language,
            verdict=self.verdict,
            closure_hash=self.closure_hash,
            tasks=tuple(
                made(
                    TaskState,
                    system=t.system,
                    status=t.status,
                    attempt=t.attempt,
                    reason=t.reason or t.trouble(now),
                    next_at=t.next_at,
                    late=t.is_late(now) or None,
                    left=t.left or None,
                    outcomes=t.outcomes,
                )
                for t in self.tasks.values()
            ),
        )


def evolve(state: State, event: Any, at: datetime) -> State:
    """The state after one event. Every event counts one in the sequence."""
    change = _EVOLVE[type(event)](state, event, at)
    return changed(state, {"sequence": state.sequence + 1, **change})


def replay(request_id: str, partition: int, history: Iterable[tuple[Any, datetime]]) -> State:
    """The state that a history of events leads to: what the projection must equal."""
    state = State(request_id=request_id, partition=partition)
    for event, at in history:
        state = evolve(state, event, at)
    return state


def _task(state: State, system: str, **update: Any) -> Mapping[str, Any]:
    return {"tasks": {**state.tasks, system: changed(state.tasks[system], update)}}


def _accepted(_: State, e: ev.RequestAccepted, at: datetime) -> Mapping[str, Any]:
    return {
        "case": e.case,
        "number": e.number,
        "accepted_at": at,
        "status": RequestStatus.WAITING if e.waits_for else RequestStatus.OPEN,
        "waits_for": e.waits_for,
        "suspensions": e.suspensions,
        "alarms_left": tuple(sorted({*e.case.alarms, e.case.due})),
        "tasks": {s: changed(_UNTOUCHED, {"system": s}) for s in e.case.sealed},
    }


def _ended_elder(state: State, e: ev.ElderEnded, _: datetime) -> Mapping[str, Any]:
    return {
        "waits_for": e.waits_for,
        "status": RequestStatus.WAITING if e.waits_for else RequestStatus.OPEN,
        "suspensions": state.suspensions if e.suspensions is None else e.suspensions,
    }


def _dispatched(state: State, e: ev.TaskDispatched, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    if e.again:
        return _task(state, e.system, next_at=e.next_at)
    goes_on = e.mode is Mode.CHECK and task.status is TaskStatus.SCHEDULED
    return _task(
        state,
        e.system,
        status=TaskStatus.OPEN,
        attempt=e.attempt,
        mode=e.mode,
        spent=task.spent + 1,
        reason=None,
        next_at=e.next_at,
        late=task.late and goes_on,
        left=task.left if task.status is TaskStatus.SCHEDULED else (),
        attempts=(*_end_attempt(task, at), made(AttemptRecord, attempt=e.attempt, mode=e.mode.value, started=at)),
    )


def _end_attempt(
    task: TaskProgress, at: datetime, *, error: str | None = None, acts: int | None = None
) -> tuple[AttemptRecord, ...]:
    """The attempts with the last one ended, if it is not yet."""
    if not task.attempts or task.attempts[-1].ended:
        return task.attempts
    update: dict[str, Any] = {"ended": at, "error": error}
    if acts is not None:
        update["acts_entered"] = acts
    return (*task.attempts[:-1], changed(task.attempts[-1], update))


def _identified(state: State, e: ev.TaskIdentified, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    case = state.accepted
    sealed = dict(case.sealed)
    for system, texts in e.learned.items():
        sealed[system] = (*sealed.get(system, ()), *texts)
    change = _task(
        state,
        e.system,
        status=TaskStatus.WAITING,
        identified=True,
        next_at=None,
        attempts=_end_attempt(task, at),
    )
    return {**change, "case": changed(case, {"sealed": sealed})}


_WAITED_FOR = frozenset({"withdrawn", "superseded", "refused"})
"""Why an act is being waited for that was under way when nobody wanted it any more."""


def _goes_on(state: State, e: ev.TaskGoesOn, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    return _task(
        state,
        e.system,
        status=TaskStatus.SCHEDULED,
        mode=Mode.CHECK,
        spent=task.spent - (e.reason not in _WAITED_FOR),  # a system that works on has not failed
        reason=e.reason,
        next_at=e.check_at,
        late=e.late,
        left=e.left,
        attempts=_end_attempt(task, at),
    )


def _failed(state: State, e: ev.TaskFailed, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    return _task(
        state,
        e.system,
        status=TaskStatus.SCHEDULED,
        reason=e.error,
        next_at=e.next_at,
        late=task.late or e.late,
        left=e.left or task.left,
        attempts=_end_attempt(task, at, error=e.error),
    )


def _held(state: State, e: ev.TaskHeld, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    return _task(
        state,
        e.system,
        status=TaskStatus.HELD,
        reason=e.reason,
        late=True,
        left=e.left or task.left,
        held_digest=e.digest,
        next_at=e.next_at,
        attempts=_end_attempt(task, at, error=e.error or e.reason),
    )


def _decided(state: State, e: ev.TaskDecided, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    record = DecisionRecord(
        decision=e.decision,
        person=e.person,
        at=e.at,
        ground=e.ground,
        reason=e.reason,
        manifest_digest=e.digest,
    )
    update: dict[str, Any] = {
        "decisions": (*task.decisions, record),
        "spent": 0,
        "decided_at": at,
        "late": False,
    }
    if e.decision == "approve":
        update["approved_digest"] = e.digest
    if e.decision == "refuse":
        update["refusal"] = e
    return _task(state, e.system, **update)


def _ended(state: State, e: ev.TaskEnded, at: datetime) -> Mapping[str, Any]:
    task = state.tasks[e.system]
    return _task(
        state,
        e.system,
        status=TaskStatus.ENDED,
        reason=None,
        next_at=None,
        late=False,
        left=(),
        outcomes=e.outcomes,
        counts=e.counts,
        digest=e.digest,
        searched=e.searched,
        checked_at=e.checked_at,
        handler=e.handler,
        residue=e.residue,
        attempts=_end_attempt(task, at, acts=e.acts_entered),
    )


def _alarm(state: State, e: ev.AlarmRaised, _: datetime) -> Mapping[str, Any]:
    left = tuple(a for a in state.alarms_left if a > e.passed)
    return {"alarms_left": left, "overdue": state.overdue or e.overdue}


def _closed(_: State, e: ev.RequestClosed, at: datetime) -> Mapping[str, Any]:
    return {
        "status": RequestStatus.CLOSED,
        "closed_at": at,
        "verdict": e.verdict,
        "closure_hash": e.hash,
        "waits_for": None,
        "alarms_left": (),
    }


_EVOLVE: Mapping[type[Any], Any] = {
    ev.RequestAccepted: _accepted,
    ev.WithdrawalRecorded: lambda *_: {"withdrawn": True},
    ev.Superseded: lambda _, e, __: {"superseded_by": e.by},
    ev.CommandRepeated: lambda *_: {},
    ev.CommandRejected: lambda *_: {},
    ev.ElderEnded: _ended_elder,
    ev.TaskDispatched: _dispatched,
    ev.TaskIdentified: _identified,
    ev.TaskGoesOn: _goes_on,
    ev.TaskFailed: _failed,
    ev.TaskHeld: _held,
    ev.TaskDecided: _decided,
    ev.TaskEnded: _ended,
    ev.NoticeRecorded: lambda _, e, __: {"notified_at": e.notified_at},
    ev.AlarmRaised: _alarm,
    ev.RequestClosed: _closed,
}
