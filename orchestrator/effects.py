"""What events send: lists of tasks to workers, answers to the DSAR system, quarantine notes to operators."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import State
from keshi.schemas.base import canonical_object
from keshi.schemas.envelope import enveloped, wrap
from keshi.schemas.requests import (
    RejectionCode,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
)
from keshi.schemas.tasks import PerformTasks
from keshi.schemas.writing import sent

SOURCE = "urn:keshi:orchestrator"
_ANSWERED = frozenset({ev.CommandRejected, ev.CommandRepeated, ev.RequestAccepted, ev.AlarmRaised})


def answers(state: State, happened: Iterable[Any], record: str | None, at: datetime) -> Iterator[bytes]:
    """The messages on `requests` that these events of one request call for, as CloudEvents.

    Args:
        state: The request after them: every answer carries its whole state.
        happened: The events of this cycle.
        record: Its closure record as JSON, where it is closed.
        at: Now.
    """
    for event in happened:
        if type(event) not in _ANSWERED:
            continue
        if isinstance(event, ev.CommandRejected):
            yield rejection(
                RequestRejected(
                    request_id=state.request_id,
                    code=RejectionCode(event.code),
                    field=event.field,
                    detail=event.detail,
                    command=event.command,
                ),
                at,
                state.case.traceparent if state.case else None,
            )
        elif isinstance(event, ev.AlarmRaised) and event.overdue and not state.closed:
            yield _told(RequestOverdue.__name__, state, at)
        elif isinstance(event, ev.RequestAccepted | ev.CommandRepeated) and state.case is not None and not record:
            yield _told(RequestAccepted.__name__, state, at)
    if record and any(isinstance(e, ev.RequestClosed | ev.CommandRepeated) for e in happened):
        yield _told(RequestClosed.__name__, state, at, closure=record.encode())


def rejection(said: RequestRejected, at: datetime, traceparent: str | None = None) -> bytes:
    """That a command was refused, as a CloudEvent."""
    where = said.command
    name = f"{said.request_id}/{RequestRejected.__name__}/{where.partition}-{where.offset}"
    return wrap(said, kind=RequestRejected.__name__, id=name, source=SOURCE, time=at, traceparent=traceparent)


def _told(kind: str, state: State, at: datetime, **more: bytes) -> bytes:
    """An answer with the state. Its id says the same of the same, so that receivers can drop repeats."""
    members = {"state": sent(state.public(at)), **more}
    return enveloped(
        canonical_object(members),
        kind=kind,
        id=f"{state.request_id}/{kind}/{state.sequence}",
        source=SOURCE,
        time=at,
        traceparent=state.accepted.traceparent,
    )


def list_message(tasks: PerformTasks, at: datetime) -> bytes:
    """One list of tasks as a CloudEvent."""
    named = "/".join(f"{t.request_id}:{t.attempt}" for t in tasks.tasks)
    name = f"{tasks.system}/{hashlib.sha256(named.encode()).hexdigest()[:32]}"
    return enveloped(sent(tasks), kind="PerformTasks", id=name, source=SOURCE, time=at)
