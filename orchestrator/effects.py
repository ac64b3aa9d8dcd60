"""What events send: lists of tasks to workers, answers to the DSAR system, quarantine notes to operators."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import State
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.envelope import wrap
from keshi.schemas.requests import (
    RejectionCode,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
)
from keshi.schemas.tasks import PerformTasks

SOURCE = "urn:keshi:orchestrator"


def answers(state: State, happened: Iterable[Any], record: ClosureRecord | None) -> Iterator[BaseModel]:
    """The messages on `requests` that these events of one request call for.

    Args:
        state: The request after them: every answer carries its whole state.
        happened: The events of this cycle.
        record: Its closure record, where it is closed.
    """
    for event in happened:
        if isinstance(event, ev.CommandRejected):
            yield RequestRejected(
                request_id=state.request_id,
                code=RejectionCode(event.code),
                field=event.field,
                detail=event.detail,
                command=event.command,
            )
        elif isinstance(event, ev.AlarmRaised) and event.overdue and not state.closed:
            yield RequestOverdue(state=state.public())
        elif isinstance(event, ev.RequestAccepted | ev.CommandRepeated) and state.case is not None and not record:
            yield RequestAccepted(state=state.public())
    closing = any(isinstance(e, ev.RequestClosed | ev.CommandRepeated) for e in happened)
    if record and closing:
        yield RequestClosed(state=state.public(), closure=record)


def answer_message(data: BaseModel, state: State | None, at: datetime) -> bytes:
    """One answer as a CloudEvent. Its id says the same of the same, so that receivers can drop repeats."""
    kind = type(data).__name__
    if isinstance(data, RequestRejected):
        where = data.command
        name = f"{data.request_id}/{kind}/{where.partition}-{where.offset}"
    else:
        name = f"{getattr(data, 'state').request_id}/{kind}/{getattr(data, 'state').sequence}"  # noqa: B009
    trace = state.case.traceparent if state and state.case else None
    return wrap(data, kind=kind, id=name, source=SOURCE, time=at, traceparent=trace)


def list_message(tasks: PerformTasks, at: datetime) -> bytes:
    """One list of tasks as a CloudEvent."""
    named = "/".join(f"{t.request_id}:{t.attempt}" for t in tasks.tasks)
    name = f"{tasks.system}/{hashlib.sha256(named.encode()).hexdigest()[:32]}"
    return wrap(tasks, kind="PerformTasks", id=name, source=SOURCE, time=at)
