"""One whole example of each message. Those on `commands` can be sent as they are; the people are invented."""

import hashlib
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Final

from keshi.schemas.base import Model, canonical
from keshi.schemas.closure import (
    GENESIS,
    AttemptRecord,
    Clocks,
    ClosureRecord,
    Located,
    ObligationRecord,
    SystemRecord,
    record_hash,
)
from keshi.schemas.commands import (
    Action,
    Arrival,
    Assessment,
    DecideTask,
    Decision,
    EraseSubject,
    RecordNotice,
    Regime,
    Requester,
    ResumeUse,
    Scope,
    StopProvision,
    SuspendUse,
    WithdrawRequest,
)
from keshi.schemas.identifiers import Identifier
from keshi.schemas.inventory import Plan, PlannedTask
from keshi.schemas.outcomes import CategoryOutcome, Outcome, verdict
from keshi.schemas.reports import UNSIGNED, Accepted, Completed, Failed, HandlerVersion, Intent, TasksReported, signed
from keshi.schemas.requests import (
    Coordinates,
    Quarantined,
    RejectionCode,
    RequestAccepted,
    RequestClosed,
    RequestOverdue,
    RequestRejected,
    RequestState,
    RequestStatus,
    TaskState,
    TaskStatus,
)
from keshi.schemas.tasks import Mode, PerformTasks, RetentionRule, Task

ERASE: Final = "01KN33YH80E7QZ3V5W9T2B4M6A"
SUSPEND: Final = "5f0c2a6e-3b7d-4c1a-9e58-d2417f60b3a9"
RESUME: Final = "01KN33YH80E7QZ3V5W9T2B4M6C"
STOP: Final = "01KN33YH80E7QZ3V5W9T2B4M6D"

_JST: Final = timezone(timedelta(hours=9))
ARRIVED: Final = datetime(2026, 4, 1, 9, 0, tzinfo=_JST)
ACCEPTED: Final = datetime(2026, 4, 1, 1, 30, 0, tzinfo=UTC)
CLOSED: Final = ACCEPTED + timedelta(seconds=4)
DUE: Final = datetime(2026, 4, 15, 0, 0, tzinfo=UTC)

_JWE: Final = (
    "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..ZXhhbXBsZS1ub25j.ZXhhbXBsZS1jaXBoZXJ0ZXh0.ZXhhbXBsZS10YWctMTYuLg"
)
"""Has the form of a sealed text, and opens under no key."""
_CHANNEL: Final = "channel:web-form"
_KATO: Final = "staff:kato"


def _digest(words: str) -> str:
    """Stands where a keyed hash would."""
    return hashlib.sha256(f"example {words}".encode()).hexdigest()


def _erase() -> EraseSubject:
    return EraseSubject(
        request_id=ERASE,
        identifiers=(
            Identifier(type="email", value="hanako.keshi@customer.example"),
            Identifier(type="customer_id", value="C-000001"),
        ),
        regime=Regime.APPI,
        ground="appi.35-5",
        requested_by=Requester(kind="person", identity_evidence=("evidence:2026-0401-001",)),
        assessed=Assessment(by=_KATO, at=ARRIVED + timedelta(hours=1)),
        arrived=Arrival(at=ARRIVED, channel=_CHANNEL),
    )


def _suspend() -> SuspendUse:
    return SuspendUse(
        request_id=SUSPEND,
        identifiers=(Identifier(type="customer_id", value="C-000002"),),
        scope=Scope(categories=("contacts", "activities")),
        regime=Regime.GDPR,
        ground="gdpr.18",
        requested_by=Requester(
            kind="agent",
            identity_evidence=("evidence:2026-0401-002",),
            mandate_evidence=("mandate:2026-0401-002",),
        ),
        assessed=Assessment(by=_KATO, at=ARRIVED + timedelta(hours=1)),
        arrived=Arrival(at=ARRIVED, channel="channel:letter"),
        notice_language="en",
    )


def _resume() -> ResumeUse:
    return ResumeUse(
        request_id=RESUME,
        identifiers=(Identifier(type="customer_id", value="C-000002"),),
        regime=Regime.GDPR,
        ground="gdpr.18",
        requested_by=Requester(kind="person", identity_evidence=("evidence:2026-0601-007",)),
        assessed=Assessment(by=_KATO, at=ARRIVED + timedelta(days=61)),
        arrived=Arrival(at=ARRIVED + timedelta(days=61), channel=_CHANNEL),
        notice_language="en",
    )


def _stop() -> StopProvision:
    return StopProvision(
        request_id=STOP,
        identifiers=(Identifier(type="email", value="taro.kakuu@customer.example"),),
        regime=Regime.APPI,
        ground="appi.35-3",
        requested_by=Requester(
            kind="legal_representative",
            identity_evidence=("evidence:2026-0401-003",),
            mandate_evidence=("register:2026-0401-003",),
        ),
        assessed=Assessment(by=_KATO, at=ARRIVED + timedelta(hours=2)),
        arrived=Arrival(at=ARRIVED, channel="channel:counter"),
    )


def _decide() -> DecideTask:
    return DecideTask(
        request_id=ERASE,
        system="crm",
        decision=Decision.REFUSE,
        person=_KATO,
        reason=_JWE,
        ground="own.not-this-person",
        attempt=2,
        manifest_digest=_digest("manifest"),
        decided_at=ACCEPTED + timedelta(hours=3),
        signature=_digest("signature"),
    )


def _perform() -> PerformTasks:
    return PerformTasks(
        system="billing",
        partition=2,
        tasks=(
            Task(
                request_id=ERASE,
                system="billing",
                action=Action.ERASE,
                attempt=1,
                categories=("customers", "invoices", "payments", "usage"),
                retention=(RetentionRule(category="invoices", ground="jp.tax-records", years=7),),
                sealed=(_JWE,),
                as_of=date(2026, 4, 1),
                traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            ),
        ),
    )


_HANDLER: Final = HandlerVersion(name="keshi:billing", version="0.1.0")


def _reported() -> TasksReported:
    lease, secret = _digest("lease")[:32], _digest("secret")
    completed = Completed(
        request_id=ERASE,
        system="billing",
        attempt=1,
        handler=_HANDLER,
        at=CLOSED,
        mode=Mode.ACT,
        lease_id=lease,
        digest=_digest("union"),
        searched=("email", "customer_id"),
        outcomes=(
            CategoryOutcome(category="customers", outcome=Outcome.ERASED, count=1),
            CategoryOutcome(
                category="invoices",
                outcome=Outcome.RETAINED_BY_LAW,
                count=2,
                ground="jp.tax-records",
                until=date(2032, 8, 31),
                items=(1, 2),
            ),
        ),
        checked_at=CLOSED,
        hmac=UNSIGNED,
    )
    accepted = Accepted(
        request_id=SUSPEND,
        system="billing",
        attempt=1,
        handler=_HANDLER,
        at=CLOSED,
        lease_id=lease,
        digest=_digest("other union"),
        check_after_seconds=3600,
        hmac=UNSIGNED,
    )
    failed = Failed(
        request_id=RESUME,
        system="billing",
        attempt=3,
        handler=_HANDLER,
        at=CLOSED,
        error="unavailable",
        intent=Intent.RETRY,
        retry_after_seconds=600,
    )
    return TasksReported(partition=2, reports=(signed(completed, secret), signed(accepted, secret), failed))


_DONE: Final = {"billing": {"customers": 1, "usage": 30}, "crm": {"contacts": 2, "cards": 1, "activities": 5}}


def _outcomes(system: str) -> tuple[CategoryOutcome, ...]:
    done = tuple(CategoryOutcome(category=c, outcome=Outcome.ERASED, count=n) for c, n in _DONE[system].items())
    if system == "crm":
        return done
    kept = CategoryOutcome(
        category="invoices", outcome=Outcome.RETAINED_BY_LAW, count=1, ground="jp.tax-records", until=date(2032, 8, 31)
    )
    return (*done, kept)


def _record() -> ClosureRecord:
    command = _erase()
    plan = Plan(
        inventory=_digest("inventory"),
        action=Action.ERASE,
        scope=command.scope,
        tasks=(
            PlannedTask(
                system="billing",
                categories=("customers", "usage", "invoices"),
                identifiers=("customer_id", "email"),
                record_limit=1000,
                retention=(RetentionRule(category="invoices", ground="jp.tax-records", years=7),),
            ),
            PlannedTask(
                system="crm",
                categories=("contacts", "cards", "activities"),
                identifiers=("customer_id", "email"),
                record_limit=1000,
            ),
        ),
    )
    systems = tuple(
        SystemRecord(
            system=name,
            outcomes=_outcomes(name),
            located=Located(
                counts={o.category: o.count for o in _outcomes(name)}, commitment=_digest(f"union in {name}")
            ),
            searched=("customer_id", "email"),
            checked_at=CLOSED,
            handler=HandlerVersion(name=f"keshi:{name}", version="0.1.0"),
            attempts=(
                AttemptRecord(attempt=1, mode="act", started=ACCEPTED, ended=CLOSED, error=None, acts_entered=1),
            ),
        )
        for name in _DONE
    )
    record = ClosureRecord(
        request_id=ERASE,
        action=Action.ERASE,
        scope=command.scope,
        regime=command.regime,
        ground=command.ground,
        requested_by=command.requested_by,
        assessed=command.assessed,
        arrival=command.arrived,
        subject=tuple(sorted((_digest("e-mail"), _digest("customer id")))),
        clocks=Clocks(arrived=ARRIVED, accepted=ACCEPTED, due=DUE, closed=CLOSED),
        withdrawn=False,
        plan=plan,
        plan_hash=hashlib.sha256(canonical(plan)).hexdigest(),
        systems=systems,
        obligations=(
            ObligationRecord(
                obligation_id=_digest("obligation")[:32],
                kind="retention",
                system="billing",
                category="invoices",
                count=1,
                ground="jp.tax-records",
                until=date(2032, 8, 31),
            ),
        ),
        verdict=verdict([o for s in systems for o in s.outcomes], narrowed=False),
        partition=2,
        number=1,
        previous=GENESIS,
        hash=GENESIS,
    )
    return record.model_copy(update={"hash": record_hash(record)})


def _state(*tasks: TaskState, sequence: int, status: RequestStatus) -> RequestState:
    return RequestState(
        request_id=ERASE,
        sequence=sequence,
        status=status,
        action=Action.ERASE,
        arrived_at=ARRIVED,
        accepted_at=ACCEPTED,
        due_at=DUE,
        notice_language="ja",
        tasks=tasks,
    )


def _accepted() -> RequestAccepted:
    tasks = (TaskState(system=s, status=TaskStatus.OPEN, attempt=1) for s in _DONE)
    return RequestAccepted(state=_state(*tasks, sequence=3, status=RequestStatus.OPEN))


def _overdue() -> RequestOverdue:
    crm = TaskState(system="crm", status=TaskStatus.HELD, attempt=8, reason="attempts_spent", next_at=DUE)
    billing = TaskState(system="billing", status=TaskStatus.ENDED, attempt=1, outcomes=_outcomes("billing"))
    state = _state(billing, crm, sequence=21, status=RequestStatus.OPEN)
    return RequestOverdue(state=state.model_copy(update={"overdue": True}))


def _closed() -> RequestClosed:
    record = _record()
    tasks = (TaskState(system=s, status=TaskStatus.ENDED, attempt=1, outcomes=_outcomes(s)) for s in _DONE)
    state = _state(*tasks, sequence=8, status=RequestStatus.CLOSED)
    closing = {"closed_at": CLOSED, "verdict": record.verdict, "closure_hash": record.hash}
    return RequestClosed(state=state.model_copy(update=closing), closure=record)


def _rejected() -> RequestRejected:
    return RequestRejected(
        request_id=STOP,
        code=RejectionCode.ACTION_NOT_POSSIBLE,
        field="type",
        detail="no system of the inventory can do stop_provision",
        command=Coordinates(topic="commands", partition=1, offset=417),
    )


def _quarantined() -> Quarantined:
    where = Coordinates(topic="commands", partition=0, offset=102)
    return Quarantined(reason="not_json", size=1_048_576, message=where, at=ACCEPTED)


def examples() -> tuple[Model, ...]:
    """One of each type."""
    return (
        _erase(),
        _suspend(),
        _resume(),
        _stop(),
        WithdrawRequest(request_id=SUSPEND),
        RecordNotice(request_id=ERASE, notified_at=CLOSED + timedelta(days=1), notice="letter:2026-0402-001"),
        _decide(),
        _perform(),
        _reported(),
        _accepted(),
        _rejected(),
        _closed(),
        _overdue(),
        _quarantined(),
    )
