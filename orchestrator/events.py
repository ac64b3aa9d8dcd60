"""Everything that can happen to a request or an obligation: the primary record. A retired kind stays listed."""

import hashlib
from datetime import date, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from keshi.schemas.commands import Action, Arrival, Assessment, Decision, Regime, Requester, Scope
from keshi.schemas.outcomes import CategoryOutcome, Residue, Verdict
from keshi.schemas.reports import HandlerVersion
from keshi.schemas.requests import Coordinates
from keshi.schemas.tasks import Mode


class Fact(BaseModel):
    """Base of what the ledger keeps. Frozen; unknown fields of a later version are kept out loudly."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Case(Fact):
    """What intake made of a command: no identifier in it but sealed and hashed ones.

    `items` are the records that it is about, sealed; absent where it is about all of a person's.
    """

    request_id: str
    action: Action
    scope: Scope
    regime: Regime
    ground: str
    requested_by: Requester
    assessed: Assessment
    arrival: Arrival
    due: datetime
    alarms: tuple[datetime, ...] = ()
    notice_language: str
    fingerprint: str
    subject: tuple[str, ...]
    plan_hash: str
    sealed: dict[str, tuple[str, ...]]
    items: str | None = None
    traceparent: str | None = None
    command: Coordinates


class RequestAccepted(Fact):
    kind: Literal["request_accepted"] = "request_accepted"
    case: Case
    number: int
    waits_for: str | None = None
    suspensions: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class WithdrawalRecorded(Fact):
    """A withdrawal, also one that comes before its command."""

    kind: Literal["withdrawal_recorded"] = "withdrawal_recorded"
    command: Coordinates


class Superseded(Fact):
    """A later erasure of the same person takes the place of this suspension."""

    kind: Literal["superseded"] = "superseded"
    by: str


class CommandRepeated(Fact):
    """The same command again: answered with what exists."""

    kind: Literal["command_repeated"] = "command_repeated"
    command: Coordinates


class CommandRejected(Fact):
    """A command that this request could not take (a conflict, a decision that does not fit)."""

    kind: Literal["command_rejected"] = "command_rejected"
    code: str
    field: str | None = None
    detail: str
    command: Coordinates


class ElderEnded(Fact):
    """The earlier request for the same person has closed: this one may begin."""

    kind: Literal["elder_ended"] = "elder_ended"
    elder: str
    waits_for: str | None = None
    suspensions: dict[str, tuple[str, ...]] | None = None
    """In force now, where they may be others than when the request was accepted."""


class TaskDispatched(Fact):
    kind: Literal["task_dispatched"] = "task_dispatched"
    system: str
    attempt: int
    mode: Mode
    next_at: datetime
    again: bool = False


class TaskIdentified(Fact):
    """A source of identifiers has answered; what it learned is sealed for each system that needs it."""

    kind: Literal["task_identified"] = "task_identified"
    system: str
    attempt: int
    learned: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class TaskGoesOn(Fact):
    """The system works on by itself (`accepted`, `under_way`) or an act is being waited for; a check follows.

    `left` names the categories that are not done. With `late` a person should look at it meanwhile.
    """

    kind: Literal["task_goes_on"] = "task_goes_on"
    system: str
    attempt: int
    check_at: datetime
    reason: str
    late: bool = False
    left: tuple[str, ...] = ()


class TaskFailed(Fact):
    kind: Literal["task_failed"] = "task_failed"
    system: str
    attempt: int
    error: str
    next_at: datetime
    late: bool = False
    left: tuple[str, ...] = ()


class TaskHeld(Fact):
    """A person has to decide. `left` names the categories that are not done, where a check has found some."""

    kind: Literal["task_held"] = "task_held"
    system: str
    attempt: int
    reason: str
    error: str | None = None
    count: int | None = None
    digest: str | None = None
    next_at: datetime
    left: tuple[str, ...] = ()


class TaskDecided(Fact):
    kind: Literal["task_decided"] = "task_decided"
    system: str
    decision: Decision
    person: str
    at: datetime
    reason: str
    ground: str | None = None
    digest: str | None = None
    command: Coordinates


class TaskEnded(Fact):
    kind: Literal["task_ended"] = "task_ended"
    system: str
    outcomes: tuple[CategoryOutcome, ...]
    counts: dict[str, int] = Field(default_factory=dict)
    digest: str | None = None
    searched: tuple[str, ...] = ()
    checked_at: datetime | None = None
    handler: HandlerVersion | None = None
    residue: tuple[Residue, ...] = ()
    acts_entered: int = 0


class NoticeRecorded(Fact):
    kind: Literal["notice_recorded"] = "notice_recorded"
    notified_at: datetime
    notice: str
    command: Coordinates


class AlarmRaised(Fact):
    """A legal moment has passed: the due date (`overdue`) or an alarm on the way."""

    kind: Literal["alarm_raised"] = "alarm_raised"
    passed: datetime
    overdue: bool


class RequestClosed(Fact):
    kind: Literal["request_closed"] = "request_closed"
    verdict: Verdict
    number: int
    previous: str
    hash: str
    obligations: tuple[str, ...] = ()


class ObligationOpened(Fact):
    kind: Literal["obligation_opened"] = "obligation_opened"
    request_id: str
    system: str
    category: str
    what: Literal["retention", "suspension", "residue"]
    count: int
    ground: str | None = None
    until: date | None = None


class ObligationDue(Fact):
    """Its moment has passed and it is not met: it shows as late until it is."""

    kind: Literal["obligation_due"] = "obligation_due"
    passed: datetime


class ObligationMet(Fact):
    kind: Literal["obligation_met"] = "obligation_met"
    by: str


Event = Annotated[
    RequestAccepted
    | WithdrawalRecorded
    | Superseded
    | CommandRepeated
    | CommandRejected
    | ElderEnded
    | TaskDispatched
    | TaskIdentified
    | TaskGoesOn
    | TaskFailed
    | TaskHeld
    | TaskDecided
    | TaskEnded
    | NoticeRecorded
    | AlarmRaised
    | RequestClosed
    | ObligationOpened
    | ObligationDue
    | ObligationMet,
    Field(discriminator="kind"),
]


def plan_hash(body: str) -> str:
    """Names a plan by its canonical JSON."""
    return hashlib.sha256(body.encode()).hexdigest()


EVENTS: TypeAdapter[Any] = TypeAdapter(Event)
