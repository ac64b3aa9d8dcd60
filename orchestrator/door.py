"""What a go depends on: so much of a request as `unwrap` and `begin` read. Kept beside the state, and small.

Reading the whole state for each of a worker's calls was the greater half of their cost.
"""

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.commands import Action
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Mode, StopReason

MAX_REMEMBERED: Final = 1000
"""Characters of a door that is kept."""
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_REQUEST: Final = {s.value: s for s in RequestStatus}
_ACTION: Final = {a.value: a for a in Action}
_TASK: Final = {s.value: s for s in TaskStatus}
_MODE: Final = {m.value: m for m in Mode}
_CALLED_OFF: Final = {None: None, True: StopReason.WITHDRAWN, StopReason.SUPERSEDED.value: StopReason.SUPERSEDED}


class TaskDoor(NamedTuple):
    """One task, as far as a go depends on it. See `TaskProgress`."""

    status: TaskStatus
    attempt: int
    mode: Mode
    decided_at: datetime | None = None
    approved_digest: str | None = None

    @property
    def ended(self) -> bool:
        return self.status is TaskStatus.ENDED


class Door(NamedTuple):
    """A request, as far as a go in one system depends on it. See `State`.

    `items` are sealed; the obligations of `suspensions` are those that this request lifts, by system. Nothing is known
    of action and plan while only a withdrawal has come.
    """

    status: RequestStatus
    called_off: StopReason | None
    action: Action | None = None
    plan_hash: str = ""
    trace: str | None = None
    items: str | None = None
    suspensions: Mapping[str, tuple[str, ...]] = _NOTHING
    tasks: Mapping[str, TaskDoor] = _NOTHING


def write_door(state: State) -> str:
    """The door of a request, as JSON."""
    case = state.case
    found: dict[str, object] = {"s": state.status.value, "t": {t.system: _task(t) for t in state.tasks.values()}}
    if state.called_off:
        found["w"] = state.withdrawn or state.called_off.value
    if case is not None:
        found |= {"a": case.action.value, "p": case.plan_hash}
        if case.traceparent is not None:
            found["c"] = case.traceparent
        if case.items is not None:
            found["i"] = case.items
        if state.suspensions:
            found["l"] = {s: list(o) for s, o in state.suspensions.items()}
    return orjson.dumps(found).decode()


def _task(task: TaskProgress) -> list[object]:
    known: list[object] = [task.status.value, task.attempt, task.mode.value]
    if task.decided_at or task.approved_digest:
        known += [task.decided_at.isoformat() if task.decided_at else None, task.approved_digest]
    return known


def read_door(text: str, system: str) -> Door:
    """What `write_door` wrote, as far as it is about one system."""
    return _remembered(text, system) if len(text) <= MAX_REMEMBERED else _read(text, system)


def _read(text: str, system: str) -> Door:
    found = orjson.loads(text)
    task, suspended = found["t"].get(system), found["l"].get(system) if "l" in found else None
    return Door(
        _REQUEST[found["s"]],
        _CALLED_OFF[found.get("w")],
        _ACTION[found["a"]] if "a" in found else None,
        found.get("p", ""),
        found.get("c"),
        found.get("i"),
        {system: tuple(suspended)} if suspended else _NOTHING,
        {system: _task_door(*task)} if task else _NOTHING,
    )


_remembered: Final = lru_cache(maxsize=4096)(_read)
"""The doors of requests that stand alike are one text."""


def _task_door(
    status: str, attempt: int, mode: str, decided: str | None = None, approved: str | None = None
) -> TaskDoor:
    return TaskDoor(_TASK[status], attempt, _MODE[mode], datetime.fromisoformat(decided) if decided else None, approved)
