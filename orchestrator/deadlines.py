"""Due moments: the next attempt, a task that is silent, a legal date that has passed."""

from keshi.orchestrator import events as ev
from keshi.orchestrator.admission import go_on
from keshi.orchestrator.completion import NOT_DONE_YET
from keshi.orchestrator.request import TaskProgress
from keshi.orchestrator.turn import Turn
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import Mode, StopReason


def due(turn: Turn) -> None:
    """Do what the moment asks for. Nothing waits silently."""
    if turn.state.closed or turn.state.case is None:
        return
    _alarms(turn)
    if turn.state.waits_for is not None:
        if turn.state.waits_for not in turn.ctx.elders:
            go_on(turn, turn.state.waits_for)
        return
    for task in list(turn.state.tasks.values()):
        if task.next_at is not None and task.next_at <= turn.now:
            _task(turn, task)


def _alarms(turn: Turn) -> None:
    passed = [a for a in turn.state.alarms_left if a <= turn.now]
    if passed:
        overdue = turn.state.accepted.due <= turn.now
        turn.add(ev.AlarmRaised(passed=max(passed), overdue=overdue))


def _task(turn: Turn, task: TaskProgress) -> None:
    lease = turn.ctx.leases.newest(task.system)
    attempt = task.attempt + (task.status is TaskStatus.SCHEDULED)  # the one that would begin now
    if lease is not None and lease.in_the_way(attempt, turn.now):
        return  # somebody may be acting; the engine looks again when the lease is over
    if task.status is TaskStatus.SCHEDULED:
        turn.dispatch(task, Mode.CHECK if _only_check(turn, task) else Mode.ACT)
    elif task.status is TaskStatus.OPEN:
        _silent(turn, task)


def _only_check(turn: Turn, task: TaskProgress) -> bool:
    """Where a check found something left and its system says nothing of it (a job failed, or lied), an act follows."""
    checking = task.mode is Mode.CHECK and task.reason != NOT_DONE_YET
    return checking or turn.state.called_off is not None or task.refusal is not None


def _silent(turn: Turn, task: TaskProgress) -> None:
    unreported = turn.ctx.leases.unreported(task.system, task.attempt, task.decided_at)
    if task.mode is Mode.ACT and unreported >= turn.ctx.policy.max_acts:
        turn.hold(task, StopReason.ACTS_SPENT)
    elif (task.system, task.attempt) in turn.ctx.passed:
        turn.add(
            ev.TaskDispatched(
                system=task.system,
                attempt=task.attempt,
                mode=task.mode,
                next_at=turn.later(turn.ctx.policy.silence_seconds),
                again=True,
            )
        )
