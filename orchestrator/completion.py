"""Stage 5: what a report means for its task. A report counts if it speaks under the task's newest lease."""

import hmac as compare
from collections.abc import Mapping
from datetime import timedelta

from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Lease
from keshi.orchestrator.request import CALLED_OFF_BY, State, TaskProgress
from keshi.orchestrator.turn import Turn
from keshi.schemas.base import changed, made
from keshi.schemas.commands import Action
from keshi.schemas.grounds import grounds
from keshi.schemas.inventory import PlannedTask
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome
from keshi.schemas.reports import Accepted, Completed, Failed, Intent, Left, Report, signature
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import Mode, StopReason

LEGAL: Mapping[Action, frozenset[Outcome]] = {
    Action.ERASE: frozenset(
        {
            Outcome.ERASED,
            Outcome.ANONYMISED,
            Outcome.NOT_FOUND,
            Outcome.NOT_SEARCHABLE,
            Outcome.RETAINED_BY_LAW,
            Outcome.ALTERNATIVE_MEASURE,
        }
    ),
    Action.SUSPEND_USE: frozenset({Outcome.SUSPENDED, Outcome.NOT_FOUND, Outcome.ALTERNATIVE_MEASURE}),
    Action.RESUME_USE: frozenset({Outcome.RESUMED, Outcome.NOT_FOUND}),
    Action.STOP_PROVISION: frozenset({Outcome.PROVISION_STOPPED, Outcome.NOT_FOUND, Outcome.ALTERNATIVE_MEASURE}),
}
"""What a worker may say of an act. Refusals and impossibilities are decided by people and plans."""


NOT_DONE_YET = "not_done_yet"
"""A check found something left, and its system says nothing of it."""
PATIENCE = 500
"""Attempts. A system that puts its date off again and again is late then, too."""


class NotAuthentic(Exception):  # noqa: N818 - it is a finding
    """A report that names a lease and is not signed under its secret."""


def report(turn: Turn, message: Report) -> None:
    """Take one report.

    Raises:
        NotAuthentic: the report goes to quarantine; its task is as before.
    """
    task = turn.task(message.system)
    if task is None or task.ended or turn.state.closed or task.status is TaskStatus.WAITING:
        return
    if isinstance(message, Failed):
        _failed(turn, task, message)
        return
    lease = turn.ctx.leases.newest(message.system)
    if lease is None or message.lease_id != lease.lease_id:
        return
    if not compare.compare_digest(signature(message, turn.ctx.lease_secret(lease.lease_id)), message.hmac):
        raise NotAuthentic
    if isinstance(message, Accepted):
        if task.attempt == message.attempt:
            check_at = turn.later(message.check_after_seconds)
            left = _of_this(message.left, turn, task)
            turn.add(
                ev.TaskGoesOn(system=task.system, attempt=task.attempt, check_at=check_at, reason="accepted", left=left)
            )
        return
    _completed(turn, task, message, lease)


def _completed(turn: Turn, task: TaskProgress, message: Completed, lease: Lease) -> None:
    planned = turn.plan.task(task.system)
    if message.mode is not lease.mode or message.digest != lease.digest or message.attempt != lease.attempt:
        again(turn, task, "report_inconsistent", None)
        return
    if lease.mode is Mode.IDENTIFY:
        if task.identified:
            return  # said again, behind the answer
        turn.add(ev.TaskIdentified(system=task.system, attempt=task.attempt, learned=dict(lease.learned)))
        turn.start()
        return
    latest = turn.ctx.leases.newest_evidence(task.system)
    if latest is not None and latest.digest != lease.digest:
        # An attempt that got no go has found more since: this check did not cover it.
        again(turn, task, "more_found_since", None)
        return
    problem = inconsistency(message, lease, planned, turn.state.accepted.action)
    if problem:
        again(turn, task, problem, None)
        return
    outcomes = message.outcomes
    if lease.mode is Mode.CHECK:
        left = tuple(dict.fromkeys(o.category for o in outcomes if o.outcome is Outcome.NOT_STARTED))
        if left and _stays_open(turn, task, message.left or Left(), left):
            return
        outcomes = tuple(_why_left(o, task, turn.state) for o in outcomes)
    turn.add(
        made(
            ev.TaskEnded,
            system=task.system,
            outcomes=outcomes,
            counts=dict(lease.counts),
            digest=lease.digest,
            searched=lease.searched,
            checked_at=message.checked_at,
            handler=message.handler,
            residue=message.residue,
            acts_entered=turn.ctx.leases.acts(task.system),
        )
    )
    turn.start()


def _stays_open(turn: Turn, task: TaskProgress, left: Left, categories: tuple[str, ...]) -> bool:
    """Whether a task goes on of which a check found something not done.

    What its system is still working on may yet be done, also when nobody wants it any more: nobody can say before how
    it ends. As long as the system's own date has not passed it is waited for and costs no attempt. Then it is late, and
    shows so.
    """
    if task.refusal is not None:
        return False
    if left.check_after_seconds is not None and task.status is not TaskStatus.HELD:
        if left.late or task.attempt >= PATIENCE:
            again(turn, task, left.asks or "overdue_there", left.check_after_seconds, left=categories, late=True)
        else:
            turn.add(
                ev.TaskGoesOn(
                    system=task.system,
                    attempt=task.attempt,
                    check_at=turn.later(left.check_after_seconds),
                    reason=left.asks or "under_way",
                    late=left.asks is not None,
                    left=categories,
                )
            )
        return True
    if turn.state.called_off:
        return False
    if left.asks:
        turn.hold(task, "handler_asks", left.asks, left=categories)
    else:
        again(turn, task, NOT_DONE_YET, None)
    return True


def _why_left(outcome: CategoryOutcome, task: TaskProgress, state: State) -> CategoryOutcome:
    if outcome.outcome is not Outcome.NOT_STARTED:
        return outcome
    if task.refusal is not None:
        return changed(
            outcome,
            {
                "outcome": Outcome.REFUSED,
                "decided_by": DecidedBy.PERSON,
                "ground": task.refusal.ground,
                "reason": None,
            },
        )
    assert state.called_off is not None
    return changed(outcome, {"decided_by": CALLED_OFF_BY[state.called_off], "reason": state.called_off.value})


def inconsistency(  # noqa: PLR0911 - a table of guards
    message: Completed, lease: Lease, planned: PlannedTask, action: Action
) -> str | None:
    """Why a report cannot be true of the union that the ledger has; None where it can."""
    legal = LEGAL[action] | {Outcome.NOT_STARTED} if lease.mode is Mode.CHECK else LEGAL[action]
    counted = dict.fromkeys(planned.categories, 0)
    said = set()
    for outcome in message.outcomes:
        word, category = outcome.outcome, outcome.category
        if word not in legal or outcome.decided_by is not DecidedBy.WORKER:
            return "outcome_not_legal"
        if category not in counted:
            return "category_not_planned"
        if word is Outcome.RETAINED_BY_LAW and not _retention_known(outcome, planned):
            return "retention_not_known"
        if outcome.until is not None and outcome.until < message.checked_at.date() - timedelta(days=1):
            return "retention_over"
        if outcome.items is not None and len(set(outcome.items)) != outcome.count:
            return "items_not_counted"
        if word is Outcome.RETAINED_BY_LAW and outcome.items is None:
            return "items_not_named"
        counted[category] += outcome.count
        said.add(category)
    if len(said) != len(counted):
        return "category_missing"
    if any(n != lease.counts.get(c, 0) for c, n in counted.items()):
        return "counts_differ"
    return None


def _retention_known(outcome: CategoryOutcome, planned: PlannedTask) -> bool:
    rules = [r for r in planned.retention if r.category == outcome.category and r.ground == outcome.ground]
    ground = grounds().get(outcome.ground or "")
    return bool(rules) and ground is not None and ground.retains


def _failed(turn: Turn, task: TaskProgress, message: Failed) -> None:
    if message.attempt != task.attempt or task.status is not TaskStatus.OPEN:
        return
    newest = turn.ctx.leases.newest(task.system)
    if message.lease_id is not None and newest is not None and newest.lease_id != message.lease_id:
        return  # a worker that was overtaken: who got the go after it will say how it went
    left = _of_this(message.left, turn, task)
    if message.error in {StopReason.OVER_LIMIT, StopReason.ACTS_SPENT}:
        turn.hold(task, message.error, over_limit=message.error == StopReason.OVER_LIMIT)
    elif message.intent is Intent.PERSON:
        turn.hold(task, "handler_asks", message.error, left=left)
    else:
        again(turn, task, message.error, message.retry_after_seconds, left=left)


def _of_this(named: tuple[str, ...] | None, turn: Turn, task: TaskProgress) -> tuple[str, ...]:
    """Of the categories that a report names those that the task is about."""
    return tuple(c for c in turn.plan.task(task.system).categories if c in named) if named else ()


def again(
    turn: Turn,
    task: TaskProgress,
    error: str,
    retry_after: float | None,
    *,
    left: tuple[str, ...] = (),
    late: bool = False,
) -> None:
    """Schedule the next attempt, or ask a person when they are spent. What is held stays with the person.

    Args:
        turn: The request.
        task: What failed.
        error: Its code.
        retry_after: Seconds that the system wants to be left alone.
        left: Categories that are not done.
        late: Its system should have done them by now.
    """
    if task.status is TaskStatus.HELD:
        return
    policy = turn.ctx.policy
    if task.spent >= policy.max_attempts:
        turn.hold(task, "attempts_spent", error, left=left)
    else:
        schedule = policy.retry_schedule
        wait = schedule[min(max(task.spent, 1), len(schedule)) - 1]
        turn.add(
            ev.TaskFailed(
                system=task.system,
                attempt=task.attempt,
                error=error,
                next_at=turn.later(max(wait, retry_after or 0)),
                late=late,
                left=left,
            )
        )
