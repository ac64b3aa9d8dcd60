"""What the engine tells its telemetry of: events that are committed, by their stage."""

from collections.abc import Iterable, Sequence
from typing import Any

from keshi.orchestrator import events as ev
from keshi.orchestrator.ledger.port import Ledger
from keshi.orchestrator.request import State
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.runtime.telemetry import Metric, Stage, Telemetry
from keshi.schemas.reports import Report


def tell_oldest(telemetry: Telemetry, ledger: Ledger) -> None:
    """Have the age of the oldest open task of each system told, in seconds."""

    def read() -> list[tuple[float, dict[str, str]]]:
        with ledger.reader() as view:
            return [((view.now - at).total_seconds(), {"system": s}) for s, at in view.oldest().items()]

    telemetry.gauge(Metric.OLDEST_TASK, read)


def tell_lag(telemetry: Telemetry, heartbeat: Heartbeat) -> None:
    """Have it told how many records of each lane in hand are still to be taken."""

    def read() -> list[tuple[float, dict[str, str | int]]]:
        behind = heartbeat.vitals().behind
        return [(count, {"stage": lane.stage, "partition": lane.partition}) for lane, count in behind.items()]

    telemetry.gauge(Metric.LAG, read)


def tell_cycle(
    telemetry: Telemetry, happened: Iterable[tuple[State, Sequence[Any]]], reports: Iterable[Report], began: int
) -> None:
    """Spans and counts of one cycle.

    Args:
        telemetry: What tells.
        happened: By request, its events and its state after them.
        reports: What the cycle took in.
        began: When it began, in nanoseconds since the epoch.
    """
    for report in reports:
        telemetry.count(Metric.REPORTS, system=report.system, result=report.kind)
    for state, events in happened:
        for event in events:
            _tell(telemetry, state, event, began)


def _tell(telemetry: Telemetry, state: State, event: Any, began: int) -> None:  # noqa: C901 - a table of events
    case = state.case
    if case is None:
        return
    trace, action = case.traceparent, case.action.value
    known: dict[str, Any] = {"request_id": state.request_id, "action": action, "partition": state.partition}
    match event:
        case ev.RequestAccepted():
            telemetry.count(Metric.COMMANDS, result="accepted", action=action)
        case ev.CommandRepeated():
            telemetry.count(Metric.COMMANDS, result="duplicate", action=action)
        case ev.CommandRejected():
            telemetry.count(Metric.COMMANDS, result="rejected", code=event.code)
        case ev.TaskDispatched():
            task: dict[str, Any] = {"system": event.system, "mode": event.mode.value}
            telemetry.count(Metric.TASKS, action=action, **task)
            telemetry.span(Stage.DISPATCH, trace, began, attempt=event.attempt, **task, **known)
        case ev.TaskFailed():
            telemetry.count(Metric.ATTEMPTS_FAILED, system=event.system, code=event.error)
        case ev.TaskHeld():
            telemetry.count(Metric.ATTEMPTS_FAILED, system=event.system, code=event.error or event.reason)
        case ev.TaskEnded():
            telemetry.count(Metric.TASKS_ENDED, system=event.system, action=action)
            telemetry.span(Stage.COMPLETION, trace, began, system=event.system, **known)
        case ev.AlarmRaised() if event.overdue:
            telemetry.count(Metric.OVERDUE, action=action)
        case ev.RequestClosed():
            telemetry.count(Metric.CLOSURES, verdict=event.verdict.value, action=action)
            telemetry.span(Stage.CLOSURE, trace, began, verdict=event.verdict.value, **known)
