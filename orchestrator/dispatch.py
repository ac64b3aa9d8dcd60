"""Stage 3: which tasks may start, and the lists in which they travel."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.context import Context
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.base import made
from keshi.schemas.inventory import Plan
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import MAX_LIST_BYTES, MAX_TASKS, Mode, PerformTasks, Task


def waiting(state: State) -> bool:
    """Whether there are tasks that could be started."""
    if state.status is not RequestStatus.OPEN or state.called_off:
        return False
    unstarted = TaskStatus.WAITING
    return any(t.status is unstarted for t in state.tasks.values())


def startable(state: State, plan: Plan, now: datetime, ctx: Context) -> list[Any]:
    """Events that start every task which nothing holds back any more, where some are `waiting`."""
    sources = {t.system for t in plan.tasks if t.identify and _asked(state.tasks[t.system])}
    found: list[Any] = []
    for planned in plan.tasks:
        task = state.tasks.get(planned.system)
        if task is None or task.status is not TaskStatus.WAITING:
            continue
        if planned.system in sources:
            found.append(first(task, Mode.IDENTIFY, now, ctx))
        elif not planned.categories:
            found.append(ev.TaskEnded(system=planned.system, outcomes=()))  # it was asked for identifiers alone
        elif not sources and all(state.tasks[s].ended for s in planned.after):
            if state.accepted.sealed[planned.system]:
                found.append(first(task, Mode.ACT, now, ctx))
            else:
                found.append(_unsearchable(planned.system, planned.categories))
    return found


def _asked(task: TaskProgress) -> bool:
    """Whether a source of identifiers has still to answer. One that a person gave up is waited for no longer."""
    return not (task.identified or task.ended)


def first(task: TaskProgress, mode: Mode, now: datetime, ctx: Context) -> ev.TaskDispatched:
    """The next attempt at a task."""
    return made(
        ev.TaskDispatched,
        system=task.system,
        attempt=task.attempt + 1,
        mode=mode,
        next_at=now + timedelta(seconds=ctx.policy.silence_seconds),
    )


def _unsearchable(system: str, categories: Iterable[str]) -> ev.TaskEnded:
    """Nobody learned an identifier that this system knows."""
    return ev.TaskEnded(
        system=system,
        outcomes=tuple(
            CategoryOutcome(
                category=c,
                outcome=Outcome.NOT_SEARCHABLE,
                decided_by=DecidedBy.PLAN,
                reason="no_identifier_learned",
            )
            for c in categories
        ),
    )


def task_message(state: State, plan: Plan, system: str, now: datetime) -> Task:
    """The current attempt at one task, as a worker gets it."""
    task = state.tasks[system]
    planned = plan.task(system)
    case = state.accepted
    if not case.sealed[system]:
        raise ValueError("a task without a sealed identifier")
    return made(
        Task,
        request_id=state.request_id,
        system=system,
        action=case.action,
        mode=task.mode,
        attempt=task.attempt,
        # Who is asked for identifiers alone looks wherever the person may be.
        categories=planned.categories or tuple(k.category for k in planned.known),
        retention=planned.retention,
        sealed=case.sealed[system],
        as_of=now.date(),
        arrived_at=case.arrival.at,
        regime=case.regime,
        traceparent=case.traceparent,
    )


def lists(tasks: Iterable[Task], partition: int) -> list[PerformTasks]:
    """Batches travel as batches: tasks by system, each list bounded in number and bytes."""
    by_system: dict[str, list[Task]] = {}
    for task in tasks:
        by_system.setdefault(task.system, []).append(task)
    found: list[PerformTasks] = []
    for system, waiting in by_system.items():
        found.extend(
            made(PerformTasks, system=system, partition=partition, tasks=tuple(chunk)) for chunk in _chunks(waiting)
        )
    return found


def _chunks(tasks: list[Task]) -> Iterable[list[Task]]:
    chunk: list[Task] = []
    size = 0
    for task in tasks:
        weight = 400 + sum(len(s) for s in task.sealed) + 60 * (len(task.categories) + len(task.retention))
        if chunk and (len(chunk) == MAX_TASKS or size + weight > MAX_LIST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(task)
        size += weight
    if chunk:
        yield chunk
