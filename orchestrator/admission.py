"""What a request answers to commands: to its own, a repeat, a withdrawal, a person's decision."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import TaskProgress
from keshi.orchestrator.turn import Turn
from keshi.schemas.base import made
from keshi.schemas.commands import Action, Decision
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome
from keshi.schemas.requests import Coordinates, RejectionCode, TaskStatus
from keshi.schemas.tasks import Mode


class Routed(ev.Fact):
    """Something that intake read from `commands`. `log` is the UUID of that topic, which gives offsets their sense."""

    log: str


class Submit(Routed):
    """A command that intake accepted, with its key, wrapped (hexadecimal)."""

    kind: Literal["submit"] = "submit"
    request_id: str
    case: ev.Case
    kek_id: str
    wrapped_key: str


class Withdraw(Routed):
    kind: Literal["withdraw"] = "withdraw"
    request_id: str
    command: Coordinates


class Decide(Routed):
    kind: Literal["decide"] = "decide"
    request_id: str
    attempt: int
    decided: ev.TaskDecided


class Notice(Routed):
    kind: Literal["notice"] = "notice"
    request_id: str
    recorded: ev.NoticeRecorded


class ElderOver(ev.Fact):
    """Sent by the partition that closed an earlier request of the same person."""

    kind: Literal["elder_over"] = "elder_over"
    request_id: str
    elder: str


class Supersede(ev.Fact):
    """Sent by the partition that accepted a later erasure of the same person, `by`, to each earlier suspension."""

    kind: Literal["supersede"] = "supersede"
    request_id: str
    by: str
    plan_hash: str
    subject: tuple[str, ...]


class Met(ev.Fact):
    """An obligation of this partition was met by a request of another."""

    kind: Literal["met"] = "met"
    request_id: str
    obligation_id: str
    by: str


Inbound = Annotated[Submit | Withdraw | Decide | Notice | ElderOver | Supersede | Met, Field(discriminator="kind")]
INBOUND: TypeAdapter[Any] = TypeAdapter(Inbound)


def submit(turn: Turn, message: Submit) -> None:
    """Accept a command once; answer its repeats; refuse another under its name."""
    if turn.state.case is not None:
        if turn.state.case.fingerprint == message.case.fingerprint:
            turn.add(ev.CommandRepeated(command=message.case.command))
        else:
            _reject(
                turn,
                message.case.command,
                RejectionCode.REQUEST_ID_CONFLICT,
                "another command came under this request_id before",
                "data.request_id",
            )
        return
    withdrawn = turn.state.withdrawn
    turn.add(
        made(
            ev.RequestAccepted,
            case=message.case,
            number=turn.ctx.number(),
            waits_for=None if withdrawn or not turn.ctx.elders else turn.ctx.elders[-1],
            suspensions=dict(turn.ctx.suspensions),
        )
    )
    if withdrawn:
        _end_untouched(turn)
    else:
        turn.start()


def withdraw(turn: Turn, message: Withdraw) -> None:
    """Take a request back: what has not begun will not begin; what may have begun is looked at first."""
    if turn.state.closed:
        _reject(
            turn,
            message.command,
            RejectionCode.ALREADY_CLOSED,
            "the request was closed before",
            "data.request_id",
        )
        return
    if turn.state.withdrawn:
        turn.add(ev.CommandRepeated(command=message.command))
        return
    turn.add(ev.WithdrawalRecorded(command=message.command))
    if turn.state.case is not None and not turn.state.superseded_by:
        _end_untouched(turn)


def _end_untouched(turn: Turn) -> None:
    reason = turn.state.called_off
    assert reason is not None
    for task in list(turn.state.tasks.values()):
        if task.ended:
            continue
        if turn.ctx.leases.acts(task.system) == 0:
            turn.not_started(task)
        else:
            check_when_quiet(turn, task, reason.value)


def check_when_quiet(turn: Turn, task: TaskProgress, reason: str) -> None:
    """A task that had a go is checked before it ends: now, or when its lease is over."""
    lease = turn.ctx.leases.newest(task.system)
    if lease is not None and lease.alive(turn.now):
        assert lease.until is not None
        turn.add(ev.TaskGoesOn(system=task.system, attempt=task.attempt, check_at=lease.until, reason=reason))
    else:
        turn.dispatch(task, Mode.CHECK)


def decide(turn: Turn, message: Decide) -> None:
    """Carry out what a person decided about a held task."""
    decided = message.decided
    task = turn.task(decided.system)
    problem = _misfit(turn, task, message)
    if problem or task is None:
        _reject(
            turn,
            decided.command,
            RejectionCode.DECISION_NOT_APPLICABLE,
            problem or "no such task",
            "data.system",
        )
        return
    turn.add(decided)
    task = turn.state.tasks[decided.system]
    if decided.decision is not Decision.REFUSE:
        turn.dispatch(task, Mode.CHECK if turn.state.called_off else Mode.ACT)
    elif turn.ctx.leases.acts(task.system) == 0:
        turn.add(ev.TaskEnded(system=task.system, outcomes=_refused(turn, decided)))
        turn.start()
    else:
        check_when_quiet(turn, task, "refused")


def _misfit(turn: Turn, task: TaskProgress | None, message: Decide) -> str | None:
    if turn.state.case is None or turn.state.closed:
        return "the request is not open"
    if task is None or task.status is not TaskStatus.HELD or task.attempt != message.attempt:
        return "the task is not held at this attempt"
    if message.decided.digest != task.held_digest:
        return "other records were found since the person looked"
    if message.decided.decision is Decision.APPROVE and task.reason != "over_limit":
        return "there is nothing to approve: decide retry or refuse"
    if message.decided.decision is Decision.APPROVE and turn.state.called_off:
        return f"the request was {turn.state.called_off}: decide retry or refuse"
    return None


def _refused(turn: Turn, decided: ev.TaskDecided) -> tuple[CategoryOutcome, ...]:
    return tuple(
        CategoryOutcome(category=c, outcome=Outcome.REFUSED, decided_by=DecidedBy.PERSON, ground=decided.ground)
        for c in turn.plan.task(decided.system).categories
    )


def notice(turn: Turn, message: Notice) -> None:
    """The person was told."""
    if turn.state.case is None:
        _reject(
            turn,
            message.recorded.command,
            RejectionCode.REQUEST_UNKNOWN,
            "no such request",
            "data.request_id",
        )
    else:
        turn.add(message.recorded)


def elder_over(turn: Turn, message: ElderOver) -> None:
    """Stop waiting, unless there is another earlier request."""
    if turn.state.waits_for is None or turn.state.closed:
        return
    go_on(turn, message.elder)


def go_on(turn: Turn, elder: str) -> None:
    """Begin after an earlier request has ended, with the suspensions that it left in force."""
    turn.add(
        ev.ElderEnded(
            elder=elder,
            waits_for=turn.ctx.elders[-1] if turn.ctx.elders else None,
            suspensions=dict(turn.ctx.suspensions),
        )
    )
    turn.start()


def supersedes(case: ev.Case) -> bool:
    """Whether a request takes the place of earlier suspensions: an erasure, where the person wants it.

    A retention sweep asks for nobody, and the person may need just what it would erase (GDPR 18(1)(b), (c)).
    """
    return case.action is Action.ERASE and case.requested_by.kind != "retention_sweep"


def supersede(turn: Turn, message: Supersede) -> None:
    """Give way to a later erasure of the same person, if it is to erase all that this request is to suspend."""
    state = turn.state
    if state.case is None or state.closed or state.called_off:
        return
    if state.case.action is Action.SUSPEND_USE and _covered(turn, message):
        turn.add(ev.Superseded(by=message.by))
        _end_untouched(turn)


def _covered(turn: Turn, message: Supersede) -> bool:
    """Whether the erasure knows the person by all that this request does, and acts wherever this request does."""
    erasure, items = turn.ctx.plan(message.plan_hash), turn.state.accepted.scope.items
    erased = {t.system: t.categories for t in erasure.tasks}
    return (
        set(turn.state.accepted.subject) <= set(message.subject)
        and all(set(t.categories) <= set(erased.get(t.system, ())) for t in turn.plan.tasks)
        and (erasure.scope.items is None or (items is not None and set(items) <= set(erasure.scope.items)))
    )


def _reject(turn: Turn, command: Coordinates, code: RejectionCode, detail: str, field: str) -> None:
    turn.add(ev.CommandRejected(code=code.value, field=field, detail=detail, command=command))


HANDLERS: Mapping[Any, Any] = {
    Submit: submit,
    Withdraw: withdraw,
    Decide: decide,
    Notice: notice,
    ElderOver: elder_over,
    Supersede: supersede,
}
